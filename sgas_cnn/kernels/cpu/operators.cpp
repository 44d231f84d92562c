// The kernels as operators of torch, in the namespace sgas_cnn: checks, memory, dispatch by dtype.
//
// Images are [N, H, W, C]; other layouts are copied first. What each operator computes stands in the
// file of its kernel; gradients and shapes for torch.compile are registered in kernels/operators.py.

#include "arguments.h"
#include "kernels.h"

namespace {

using namespace sgas::operators;

sgas::Size size_of(const Tensor& images, long stride) {
  check_images(images);
  SGAS_CHECK(stride == 1 || stride == 2, "stride is ", stride, ", not 1 or 2");
  return {images.size(0), images.size(1), images.size(2), images.size(3), static_cast<int>(stride)};
}

// Those of the convolutions from `first` on, and those before.
template <class P>
std::vector<P> since(const std::vector<P>& all, std::size_t first) {
  return {all.begin() + static_cast<long>(std::min(first, all.size())), all.end()};
}
template <class P>
std::vector<P> until(const std::vector<P>& all, std::size_t end) {
  return {all.begin(), all.begin() + static_cast<long>(std::min(end, all.size()))};
}

// Convolutions as the operators are given them, checked: separable ones, then dense ones.
struct Bank {
  Bank(List<Tensor> inputs, const Maybe& scales, const Maybe& shifts, List<Tensor> taps,
       List<int64_t> dilations, List<int64_t> offsets, List<Tensor> pointwise,
       List<int64_t> first_rows, long stride)
      : inputs(packed(inputs)), weights(packed(taps)), pointwise(packed(pointwise)),
        scales(packed(scales)), shifts(packed(shifts)),
        first_rows(first_rows.begin(), first_rows.end()) {
    const std::size_t num = taps.size(), wanted = scales ? num : 1;
    SGAS_CHECK(num > 0 && dilations.size() == num && offsets.size() == num && pointwise.size() == num && first_rows.size() == num,
                "there are ", num, " taps, ", dilations.size(), " dilations, ", offsets.size(), " offsets, ",
                pointwise.size(), " pointwise weights, ", first_rows.size(), " first rows");
    SGAS_CHECK(inputs.size() == wanted && scales.has_value() == shifts.has_value(), "there are ",
                inputs.size(), " inputs for ", wanted, "; scales and shifts come together");
    size = size_of(inputs[0], stride);
    check_kind(inputs[0], inputs);
    check_kind(inputs[0], taps);
    check_kind(inputs[0], pointwise);
    for (const Tensor& input : inputs) check_shape(input, inputs[0].sizes(), "an input");
    const int64_t count = num, channels = size.channels;
    if (scales) check_shape(*scales, {count, channels}, "scales");
    if (shifts) check_shape(*shifts, {count, channels}, "shifts");
    for (std::size_t i = 0; i < num; ++i) {
      if (pointwise[i].dim() == 4 && pointwise[i].size(3) > 1) add_dense(taps[i], dilations[i], pointwise[i]);
      else add(taps[i], dilations[i], offsets[i], pointwise[i], first_rows[i], i);
    }
  }

  void add_dense(const Tensor& none, int64_t dilation, const Tensor& weight) {
    SGAS_CHECK(none.numel() == 0 && dilation == 1 && size.stride == 1 && !scales,
                "a dense convolution has no taps of channels, dilation and stride 1, and the one input of all");
    check_shape(weight, {size.channels, size.channels, 3, 3}, "a dense weight");
  }

  void add(const Tensor& weight, int64_t dilation, int64_t offset, const Tensor& through, int64_t first_row,
           std::size_t place) {
    const int64_t kernel = weight.numel() ? weight.size(-1) : 1, rows = through.size(0);
    SGAS_CHECK(place == this->taps.size(), "a separable convolution comes after a dense one");
    SGAS_CHECK(kernel == 1 || kernel == 3 || kernel == 5 || kernel == 7, "a weight has ", kernel, " taps a side, not 1, 3, 5 or 7");
    SGAS_CHECK(dilation == 1 || dilation == 2, "a dilation is ", dilation, ", not 1 or 2");
    SGAS_CHECK(offset >= 0 && offset < size.stride, "an offset is ", offset, " at stride ", size.stride);
    if (weight.numel()) check_shape(weight, {size.channels, 1, kernel, kernel}, "a weight");
    check_shape(through, {rows, size.channels, 1, 1}, "a pointwise weight");
    SGAS_CHECK(first_row >= 0 && first_row + rows <= size.channels, "a pointwise weight has rows beyond ", size.channels);
    taps.push_back({static_cast<int>(kernel), static_cast<int>(dilation), static_cast<int>(offset)});
  }

  template <class T>
  sgas::Separable<T> separable() const {
    sgas::Separable<T> all{size, taps, readable<T>(inputs), readable<T>(weights), {}, pointer<T>(scales), pointer<T>(shifts)};
    for (std::size_t i = 0; i < taps.size(); ++i)
      all.pointwise.push_back({pointwise[i].const_data_ptr<T>(), first_rows[i], pointwise[i].size(0)});
    return all;
  }

  template <class T>
  sgas::Dense<T> dense() const {
    return {size, inputs[0].const_data_ptr<T>(), since(readable<T>(pointwise), taps.size())};
  }

  bool has_dense() const { return taps.size() < pointwise.size(); }

  Tensors inputs, weights, pointwise;
  Maybe scales, shifts;
  std::vector<int64_t> first_rows;
  std::vector<sgas::Taps> taps;
  sgas::Size size;
};

std::tuple<Tensors, Tensor, Tensor> separable(List<Tensor> inputs, const Maybe& scales, const Maybe& shifts,
                                              List<Tensor> taps, List<int64_t> dilations,
                                              List<int64_t> offsets, List<Tensor> pointwise,
                                              List<int64_t> first_rows, int64_t stride, bool moments) {
  const Bank bank(inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride);
  const auto options = bank.inputs[0].options();
  const sgas::Size& size = bank.size;
  const int64_t num = bank.pointwise.size(), first = bank.taps.size();
  Tensor mean = empty({moments ? num : 0, size.channels}, options), variance = empty(mean.sizes(), mean.options());
  Tensors out;
  for (int64_t i = 0; i < num; ++i)
    out.push_back(empty({size.images, size.out_height(), size.out_width(), size.channels}, options));
  SGAS_FLOATING_TYPES(mean.scalar_type(), "separable", [&] {
    const std::vector<scalar_t*> outs = pointers<scalar_t>(out);
    auto found = [&](int64_t row) {
      if (!moments) return sgas::Moments<scalar_t>{nullptr, nullptr};
      const int64_t at = row * size.channels;
      return sgas::Moments<scalar_t>{mean.data_ptr<scalar_t>() + at, variance.data_ptr<scalar_t>() + at};
    };
    if (first) sgas::separable(bank.separable<scalar_t>(), until(outs, first), found(0));
    if (bank.has_dense()) sgas::dense(bank.dense<scalar_t>(), since(outs, first), found(first));
  });
  return {out, mean, variance};
}

// Gradients like the weights, empty where they are not wanted.
Tensors gradients_like(const Tensors& weights, const Bools& wanted) {
  SGAS_CHECK(wanted.size() == weights.size(), "there are ", weights.size(), " weights and ", wanted.size(), " wishes");
  Tensors all;
  for (std::size_t i = 0; i < weights.size(); ++i)
    all.push_back(wanted[i] && weights[i].numel() ? empty(weights[i].sizes(), weights[i].options()) : empty({0}, weights[i].options()));
  return all;
}

std::tuple<Tensors, Tensors, Tensors, Tensor, Tensor> separable_backward(
    List<Tensor> gradients, List<int64_t> gradient_of, const Tensor& factors, List<Tensor> outputs,
    const Maybe& slopes, const Maybe& constants, List<Tensor> inputs, const Maybe& scales,
    const Maybe& shifts, List<Tensor> taps, List<int64_t> dilations, List<int64_t> offsets,
    List<Tensor> pointwise, List<int64_t> first_rows, int64_t stride, const Maybe& centres,
    const Maybe& added, bool wants_inputs, const Bools& wants_taps, const Bools& wants_pointwise) {
  const Bank bank(inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride);
  const int64_t channels = bank.size.channels, num = bank.pointwise.size(), mapped = scales ? num : 0;
  const std::vector<int64_t> shape{bank.size.images, bank.size.out_height(), bank.size.out_width(), channels};
  const Tensors from = packed(gradients), kept = packed(outputs);
  const Tensor factor = factors.contiguous();
  const Maybe slope = packed(slopes), constant = packed(constants), centre = packed(centres), plus = packed(added);
  check_kind(bank.inputs[0], from);
  check_kind(bank.inputs[0], kept);
  for (const Tensor& gradient : from) check_shape(gradient, shape, "a gradient");
  for (const Tensor& output : kept) check_shape(output, shape, "an output");
  SGAS_CHECK(static_cast<int64_t>(gradient_of.size()) == num && (!slope || static_cast<int64_t>(kept.size()) == num),
              "there are ", gradient_of.size(), " gradients and ", kept.size(), " outputs of ", num, " convolutions");
  for (const Maybe& rows : {Maybe(factor), slope, constant, centre})
    if (rows) check_shape(*rows, {num, channels}, "factors, slopes, constants or centres");
  if (plus) check_shape(*plus, bank.inputs[0].sizes(), "what is added");
  Tensors to_inputs;
  if (wants_inputs || mapped) {
    for (const Tensor& input : bank.inputs) to_inputs.push_back(empty(input.sizes(), input.options()));
  }
  const Tensors to_taps = gradients_like(bank.weights, wants_taps), to_pointwise = gradients_like(bank.pointwise, wants_pointwise);
  Tensor crossed = empty({mapped, channels}, factor.options()), sums = empty(crossed.sizes(), crossed.options());
  SGAS_FLOATING_TYPES(factor.scalar_type(), "separable_backward", [&] {
    std::vector<const scalar_t*> sources;
    for (int64_t which : gradient_of) sources.push_back(from.at(which).const_data_ptr<scalar_t>());
    const std::vector<const scalar_t*> made = readable<scalar_t>(kept);
    const std::vector<scalar_t*> of_inputs = pointers<scalar_t>(to_inputs), of_pointwise = pointers<scalar_t>(to_pointwise);
    auto rows = [&](const Maybe& all, int64_t row) {
      const scalar_t* data = pointer<scalar_t>(all);
      return data ? data + row * channels : nullptr;
    };
    const int64_t first = bank.taps.size();
    if (first)
      sgas::separable_backward(
          bank.separable<scalar_t>(),
          {until(sources, first), rows(factor, 0), until(made, first), rows(slope, 0), rows(constant, 0),
           rows(centre, 0), pointer<scalar_t>(plus)},
          {of_inputs, pointers<scalar_t>(to_taps), until(of_pointwise, first), crossed.data_ptr<scalar_t>(), sums.data_ptr<scalar_t>()});
    if (bank.has_dense()) {
      scalar_t* to_x = of_inputs.empty() ? nullptr : of_inputs[0];
      const scalar_t* added = first ? to_x : pointer<scalar_t>(plus);
      sgas::dense_backward(bank.dense<scalar_t>(),
                           {since(sources, first), rows(factor, first), since(made, first), rows(slope, first),
                            rows(constant, first), nullptr, added},
                           {to_x, since(of_pointwise, first)});
    }
  });
  return {to_inputs, to_taps, to_pointwise, crossed, sums};
}

// A mixture as the operators are given it, checked.
struct Mixed {
  Mixed(const Tensor& like, List<Tensor> parts, List<int64_t> slot_of, List<Tensor> linear,
        const Tensor& coefficients, int64_t slots)
      : like(like), parts(packed(parts)), linear(packed(linear)),
        coefficients(coefficients.contiguous()), slot_of(slot_of.begin(), slot_of.end()), slots(slots) {
    SGAS_CHECK(parts.size() == slot_of.size(), "there are ", parts.size(), " parts and ", slot_of.size(), " slots");
    size_of(like, 1);
    check_kind(like, parts);
    check_kind(like, linear);
    for (const Tensor& part : parts) check_shape(part, like.sizes(), "a part");
    for (const Tensor& image : linear) check_shape(image, like.sizes(), "a linear part");
    for (int64_t slot : slot_of) SGAS_CHECK(slot >= 0 && slot < slots, "a slot is ", slot, " of ", slots);
    check_shape(coefficients, {slots, static_cast<int64_t>(linear.size()), like.size(3)}, "coefficients");
  }

  template <class T>
  sgas::Mixture<T> given() const {
    sgas::Mixture<T> mixture;
    mixture.images = like.size(0);
    mixture.pixels = like.size(1) * like.size(2);
    mixture.channels = like.size(3);
    mixture.slots = slots;
    mixture.linear = readable<T>(linear);
    mixture.coefficients = coefficients.const_data_ptr<T>();
    mixture.parts = readable<T>(parts);
    mixture.slot_of = slot_of;
    return mixture;
  }

  Tensor like;
  Tensors parts, linear;
  Tensor coefficients;
  std::vector<int> slot_of;
  int64_t slots;
};

// What was before, by slot; empty for the others.
Tensors starts_of(List<Tensor> before, List<int64_t> before_slots, int64_t slots, const Tensor& like) {
  SGAS_CHECK(before.size() == before_slots.size(), "there are ", before.size(), " images before and ", before_slots.size(), " slots");
  Tensors starts(slots, empty({0}, like.options()));
  for (std::size_t i = 0; i < before.size(); ++i) {
    check_shape(before[i], like.sizes(), "what was before");
    SGAS_CHECK(before_slots[i] >= 0 && before_slots[i] < slots, "a slot is ", before_slots[i], " of ", slots);
    starts[before_slots[i]] = before[i].contiguous();
  }
  check_kind(like, starts);
  return starts;
}

Tensors separable_sum(List<Tensor> inputs, const Maybe& scales, const Maybe& shifts, List<Tensor> taps,
                      List<int64_t> dilations, List<int64_t> offsets, List<Tensor> pointwise,
                      List<int64_t> first_rows, int64_t stride, List<Tensor> before, List<int64_t> before_slots,
                      List<int64_t> slot_of, const Tensor& factors, const Tensor& bias) {
  const Bank bank(inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride);
  const sgas::Size& size = bank.size;
  const int64_t num = bank.taps.size(), slots = bias.size(0);
  SGAS_CHECK(!bank.has_dense(), "a dense convolution is not summed as it is made");
  const Tensor factor = factors.contiguous(), shift = bias.contiguous();
  check_kind(bank.inputs[0], {factor, shift});
  check_shape(factor, {num, size.channels}, "factors");
  check_shape(shift, {slots, size.channels}, "bias");
  SGAS_CHECK(static_cast<int64_t>(slot_of.size()) == num, "there are ", num, " convolutions and ", slot_of.size(), " slots");
  std::vector<bool> seen(slots, false);
  for (int64_t slot : slot_of) {
    SGAS_CHECK(slot >= 0 && slot < slots, "a slot is ", slot, " of ", slots);
    seen[slot] = true;
  }
  for (bool any : seen) SGAS_CHECK(any, "a slot of ", slots, " has no convolution");
  Tensors outs;
  for (int64_t slot = 0; slot < slots; ++slot)
    outs.push_back(empty({size.images, size.out_height(), size.out_width(), size.channels}, factor.options()));
  const Tensors starts = starts_of(before, before_slots, slots, outs.at(0));
  SGAS_FLOATING_TYPES(factor.scalar_type(), "separable_sum", [&] {
    const sgas::SeparableSum<scalar_t> sum{{slot_of.begin(), slot_of.end()}, factor.const_data_ptr<scalar_t>(),
                                           shift.const_data_ptr<scalar_t>(), readable<scalar_t>(starts)};
    sgas::separable_sum(bank.separable<scalar_t>(), sum, pointers<scalar_t>(outs));
  });
  return outs;
}

Tensors mixture(List<Tensor> before, List<int64_t> before_slots, List<Tensor> parts, List<int64_t> slot_of,
                const Tensor& factors, List<Tensor> linear, const Tensor& coefficients, const Tensor& bias) {
  SGAS_CHECK(parts.size() + linear.size() > 0, "there is nothing to mix");
  const Tensor like = parts.empty() ? linear[0] : parts[0];
  const int64_t slots = bias.size(0), channels = like.size(3), num = parts.size();
  const Mixed mixed(like, parts, slot_of, linear, coefficients, slots);
  const Tensor factor = factors.contiguous(), shift = bias.contiguous();
  check_shape(factor, {num, channels}, "factors");
  check_shape(shift, {slots, channels}, "bias");
  const Tensors starts = starts_of(before, before_slots, slots, like);
  Tensors outs;
  for (int64_t slot = 0; slot < slots; ++slot) outs.push_back(empty(like.sizes(), like.options()));
  SGAS_FLOATING_TYPES(like.scalar_type(), "mixture", [&] {
    sgas::Mixture<scalar_t> given = mixed.given<scalar_t>();
    given.before = readable<scalar_t>(starts);
    given.factors = factor.const_data_ptr<scalar_t>();
    given.bias = shift.const_data_ptr<scalar_t>();
    sgas::mixture(given, pointers<scalar_t>(outs));
  });
  return outs;
}

std::tuple<Tensors, Tensor, Tensor, Tensor> mixture_backward(
    List<Tensor> gradients, List<Tensor> parts, List<int64_t> slot_of, const Tensor& centres,
    List<Tensor> linear, const Tensor& linear_centres, const Tensor& coefficients, bool wants_linear) {
  const Tensors from = packed(gradients);
  const Tensor like = from.at(0), middle = centres.contiguous(), linear_middle = linear_centres.contiguous();
  const int64_t slots = from.size(), channels = like.size(3), num_parts = parts.size(), num = linear.size();
  const Mixed mixed(like, parts, slot_of, linear, coefficients, slots);
  check_kind(like, from);
  for (const Tensor& gradient : from) check_shape(gradient, like.sizes(), "a gradient");
  check_shape(middle, {num_parts, channels}, "centres");
  check_shape(linear_middle, {num, channels}, "linear centres");
  const auto options = like.options();
  Tensor crossed = empty({num_parts, channels}, options);
  Tensor linear_crossed = empty({slots, num, channels}, options), sums = empty({slots, channels}, options);
  Tensors outs;
  for (int64_t q = 0; q < num; ++q) outs.push_back(wants_linear ? empty(like.sizes(), options) : empty({0}, options));
  SGAS_FLOATING_TYPES(like.scalar_type(), "mixture_backward", [&] {
    const sgas::MixtureGradients<scalar_t> wanted{
        middle.const_data_ptr<scalar_t>(), linear_middle.const_data_ptr<scalar_t>(), pointers<scalar_t>(outs),
        crossed.data_ptr<scalar_t>(), linear_crossed.data_ptr<scalar_t>(), sums.data_ptr<scalar_t>()};
    sgas::mixture_backward(mixed.given<scalar_t>(), readable<scalar_t>(from), wanted);
  });
  return {outs, crossed, linear_crossed, sums};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pool(const Tensor& x, int64_t stride, bool moments, bool wants_largest) {
  const sgas::Size size = size_of(x, stride);
  check_kind(x, {});
  const Tensor from = x.contiguous();
  SGAS_CHECK(wants_largest || !moments, "moments are those of both poolings");
  Tensor average = empty({size.images, size.out_height(), size.out_width(), size.channels}, x.options());
  Tensor largest = wants_largest ? empty(average.sizes(), average.options()) : empty({0}, x.options()), mean = empty({moments ? 2 : 0, size.channels}, x.options());
  Tensor variance = empty(mean.sizes(), mean.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "pool", [&] {
    sgas::Moments<scalar_t> found{nullptr, nullptr};
    if (moments) found = {mean.data_ptr<scalar_t>(), variance.data_ptr<scalar_t>()};
    sgas::pool(size, from.const_data_ptr<scalar_t>(), wants_largest ? largest.data_ptr<scalar_t>() : nullptr,
               average.data_ptr<scalar_t>(), found);
  });
  return {largest, average, mean, variance};
}

Tensor pool_backward(const Tensor& x, const Tensor& largest, const Tensor& average,
                     const Tensor& largest_gradient, const Tensor& average_gradient,
                     const Tensor& slopes, const Tensor& constants, const Maybe& added, int64_t stride) {
  const sgas::Size size = size_of(x, stride);
  const Tensors all = packed(List<Tensor>({x, largest, average, largest_gradient, average_gradient, slopes, constants}));
  check_kind(x, all);
  for (int i = 1; i < 5; ++i)
    if (all[i].dim() != 1 || all[i].numel()) check_shape(all[i], {size.images, size.out_height(), size.out_width(), size.channels}, "a pooled image");
  for (int i = 5; i < 7; ++i) check_shape(all[i], {2, size.channels}, "slopes or constants");
  const Maybe plus = packed(added);
  if (plus) check_shape(*plus, x.sizes(), "what is added");
  Tensor gradient = empty(x.sizes(), x.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "pool_backward", [&] {
    const std::vector<const scalar_t*> p = readable<scalar_t>(all);
    sgas::pool_backward(size, sgas::PoolBackward<scalar_t>{p[0], p[1], p[2], p[3], p[4], p[5], p[6], pointer<scalar_t>(plus)},
                        gradient.data_ptr<scalar_t>());
  });
  return gradient;
}

}  // namespace

SGAS_OPERATORS(sgas_cnn, m) {
  m.add<&separable>(
      "separable(Tensor[] inputs, Tensor? scales, Tensor? shifts, Tensor[] taps, int[] dilations, int[] offsets, "
      "Tensor[] pointwise, int[] first_rows, int stride, bool moments) -> (Tensor[], Tensor, Tensor)");
  m.add<&separable_backward>(
      "separable_backward(Tensor[] gradients, int[] gradient_of, Tensor factors, Tensor[] outputs, Tensor? slopes, "
      "Tensor? constants, Tensor[] inputs, Tensor? scales, Tensor? shifts, Tensor[] taps, int[] dilations, "
      "int[] offsets, Tensor[] pointwise, int[] first_rows, int stride, Tensor? centres, Tensor? added, "
      "bool wants_inputs, bool[] wants_taps, bool[] wants_pointwise) -> (Tensor[], Tensor[], Tensor[], Tensor, Tensor)");
  m.add<&separable_sum>(
      "separable_sum(Tensor[] inputs, Tensor? scales, Tensor? shifts, Tensor[] taps, int[] dilations, int[] offsets, "
      "Tensor[] pointwise, int[] first_rows, int stride, Tensor[] before, int[] before_slots, int[] slot_of, "
      "Tensor factors, Tensor bias) -> Tensor[]");
  m.add<&mixture>(
      "mixture(Tensor[] before, int[] before_slots, Tensor[] parts, int[] slot_of, Tensor factors, "
      "Tensor[] linear, Tensor coefficients, Tensor bias) -> Tensor[]");
  m.add<&mixture_backward>(
      "mixture_backward(Tensor[] gradients, Tensor[] parts, int[] slot_of, Tensor centres, Tensor[] linear, "
      "Tensor linear_centres, Tensor coefficients, bool wants_linear) -> (Tensor[], Tensor, Tensor, Tensor)");
  m.add<&pool>("pool(Tensor x, int stride, bool moments, bool wants_largest) -> (Tensor, Tensor, Tensor, Tensor)");
  m.add<&pool_backward>(
      "pool_backward(Tensor x, Tensor largest, Tensor average, Tensor largest_gradient, "
      "Tensor average_gradient, Tensor slopes, Tensor constants, Tensor? added, int stride) -> Tensor");
}

