// The kernels as operators of torch, in the namespace sgas_cnn: checks, memory, dispatch by dtype.
//
// Images are [N, H, W, C]; other layouts are copied first. What each operator computes stands in the
// file of its kernel; gradients and shapes for torch.compile are registered in cpu_backend.py.
#include <ATen/Dispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Maybe = std::optional<Tensor>;

Tensors packed(at::TensorList given) {
  Tensors all;
  for (const Tensor& tensor : given) all.push_back(tensor.contiguous());
  return all;
}

Maybe packed(const Maybe& given) { return given ? Maybe(given->contiguous()) : given; }

// All tensors have the dtype of the first and lie on the CPU.
void check_kind(const Tensor& first, at::TensorList others) {
  TORCH_CHECK(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble,
              "sgas_cnn takes float32 and float64, not ", first.scalar_type());
  for (const Tensor& tensor : others) {
    TORCH_CHECK(tensor.scalar_type() == first.scalar_type() && tensor.is_cpu(),
                "sgas_cnn takes tensors of one dtype on the CPU, not ", tensor.scalar_type(), " on ",
                tensor.device(), " beside ", first.scalar_type());
  }
}

void check_shape(const Tensor& tensor, at::IntArrayRef shape, const char* name) {
  TORCH_CHECK(tensor.sizes() == shape, name, " has shape ", tensor.sizes(), ", not ", shape);
}

template <class T>
std::vector<T*> pointers(const Tensors& tensors) {
  std::vector<T*> all;
  for (const Tensor& tensor : tensors) all.push_back(tensor.numel() ? tensor.data_ptr<T>() : nullptr);
  return all;
}

template <class T>
std::vector<const T*> readable(const Tensors& tensors) {
  const std::vector<T*> all = pointers<T>(tensors);
  return {all.begin(), all.end()};
}

template <class T>
const T* pointer(const Maybe& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

sgas::Size size_of(const Tensor& images, long stride) {
  TORCH_CHECK(images.dim() == 4, "images have shape ", images.sizes(), ", not [N, H, W, C]");
  TORCH_CHECK(stride == 1 || stride == 2, "stride is ", stride, ", not 1 or 2");
  return {images.size(0), images.size(1), images.size(2), images.size(3), static_cast<int>(stride)};
}

// Depthwise convolutions as the operators are given them, checked.
struct Bank {
  Bank(at::TensorList inputs, const Maybe& matrices, const Maybe& shifts, at::TensorList weights,
       at::IntArrayRef dilations, at::IntArrayRef offsets, long stride)
      : inputs(packed(inputs)), weights(packed(weights)), matrices(packed(matrices)),
        shifts(packed(shifts)) {
    const std::size_t planes = weights.size(), wanted = matrices ? planes : 1;
    TORCH_CHECK(planes > 0 && dilations.size() == planes && offsets.size() == planes,
                "there are ", planes, " weights, ", dilations.size(), " dilations, ", offsets.size(), " offsets");
    TORCH_CHECK(inputs.size() == wanted && matrices.has_value() == shifts.has_value(), "there are ",
                inputs.size(), " inputs for ", wanted, "; matrices and shifts come together");
    size = size_of(inputs[0], stride);
    check_kind(inputs[0], inputs);
    check_kind(inputs[0], weights);
    for (const Tensor& input : inputs) check_shape(input, inputs[0].sizes(), "an input");
    const int64_t num = planes, channels = size.channels;
    if (matrices) check_shape(*matrices, {num, channels, channels}, "matrices");
    if (shifts) check_shape(*shifts, {num, channels}, "shifts");
    for (std::size_t i = 0; i < planes; ++i) add_taps(weights[i], dilations[i], offsets[i]);
  }

  void add_taps(const Tensor& weight, int64_t dilation, int64_t offset) {
    const int64_t kernel = weight.numel() ? weight.size(-1) : 1;
    TORCH_CHECK(kernel == 1 || kernel == 3 || kernel == 5 || kernel == 7, "a weight has ", kernel, " taps a side, not 1, 3, 5 or 7");
    TORCH_CHECK(dilation == 1 || dilation == 2, "a dilation is ", dilation, ", not 1 or 2");
    TORCH_CHECK(offset >= 0 && offset < size.stride, "an offset is ", offset, " at stride ", size.stride);
    if (weight.numel()) check_shape(weight, {size.channels, 1, kernel, kernel}, "a weight");
    taps.push_back({static_cast<int>(kernel), static_cast<int>(dilation), static_cast<int>(offset)});
  }

  template <class T>
  sgas::Depthwise<T> given() const {
    return {size, taps, readable<T>(inputs), readable<T>(weights), pointer<T>(matrices), pointer<T>(shifts)};
  }

  Tensor new_plane() const {
    return at::empty({size.images, size.out_height(), size.out_width(), size.channels}, inputs[0].options());
  }

  Tensors inputs, weights;
  Maybe matrices, shifts;
  std::vector<sgas::Taps> taps;
  sgas::Size size;
};

std::tuple<Tensors, Tensor, Tensor> depthwise(at::TensorList inputs, const Maybe& matrices,
                                              const Maybe& shifts, at::TensorList weights,
                                              at::IntArrayRef dilations, at::IntArrayRef offsets,
                                              int64_t stride, bool moments) {
  const Bank bank(inputs, matrices, shifts, weights, dilations, offsets, stride);
  const int64_t channels = bank.size.channels, planes = moments ? bank.taps.size() : 0;
  const auto options = bank.inputs[0].options();
  Tensor mean = at::empty({planes, channels}, options);
  Tensor covariance = at::empty({planes, channels, channels}, options);
  Tensors out;
  for (std::size_t i = 0; i < bank.taps.size(); ++i) out.push_back(bank.new_plane());
  AT_DISPATCH_FLOATING_TYPES(mean.scalar_type(), "depthwise", [&] {
    sgas::Moments<scalar_t> found{nullptr, nullptr};
    if (moments) found = {mean.data_ptr<scalar_t>(), covariance.data_ptr<scalar_t>()};
    sgas::depthwise(bank.given<scalar_t>(), pointers<scalar_t>(out), found);
  });
  return {out, mean, covariance};
}

std::tuple<Tensors, Tensors, Tensor, Tensor> depthwise_backward(
    at::TensorList gradients, at::IntArrayRef pulled_gradients, at::IntArrayRef pulled_planes,
    const Tensor& pulled_matrices, at::TensorList planes, const Maybe& slopes,
    const Maybe& constants, at::TensorList inputs, const Maybe& matrices, const Maybe& shifts,
    const Maybe& centres, at::TensorList weights, at::IntArrayRef dilations,
    at::IntArrayRef offsets, int64_t stride, const Maybe& added, bool wants_inputs,
    c10::List<bool> wants_weights) {
  const Bank bank(inputs, matrices, shifts, weights, dilations, offsets, stride);
  const int64_t channels = bank.size.channels, num = bank.taps.size();
  const Tensors from = packed(gradients), kept = packed(planes);
  const Tensor through = pulled_matrices.contiguous();
  const Maybe slope = packed(slopes), constant = packed(constants), centre = packed(centres), plus = packed(added);
  check_kind(bank.inputs[0], from);
  check_kind(bank.inputs[0], kept);
  const int64_t pulled = pulled_planes.size();
  TORCH_CHECK(pulled_gradients.size() == pulled_planes.size(), "each gradient reaches a plane");
  check_shape(through, {pulled, channels, channels}, "the matrices of gradients");
  const int64_t mapped = matrices ? num : 0;
  Tensors to_inputs, to_weights;
  if (wants_inputs || mapped) {
    for (const Tensor& input : bank.inputs) to_inputs.push_back(at::empty_like(input));
  }
  for (int64_t i = 0; i < num; ++i) {
    const bool wanted = wants_weights[i] && bank.weights[i].numel();
    to_weights.push_back(wanted ? at::empty_like(bank.weights[i]) : at::empty({0}, through.options()));
  }
  Tensor crossed = at::empty({mapped, channels, channels}, through.options());
  Tensor sums = at::empty({mapped, channels}, through.options());
  AT_DISPATCH_FLOATING_TYPES(through.scalar_type(), "depthwise_backward", [&] {
    sgas::DepthwiseBackward<scalar_t> back;
    for (int64_t t = 0; t < pulled; ++t) {
      const scalar_t* gradient = from[pulled_gradients[t]].const_data_ptr<scalar_t>();
      back.pulled.push_back({gradient, through.const_data_ptr<scalar_t>() + t * channels * channels, static_cast<int>(pulled_planes[t])});
    }
    back.planes = readable<scalar_t>(kept);
    back.slopes = pointer<scalar_t>(slope);
    back.constants = pointer<scalar_t>(constant);
    back.centres = pointer<scalar_t>(centre);
    back.added = pointer<scalar_t>(plus);
    const sgas::DepthwiseGradients<scalar_t> wanted{
        pointers<scalar_t>(to_inputs), pointers<scalar_t>(to_weights), crossed.data_ptr<scalar_t>(), sums.data_ptr<scalar_t>()};
    sgas::depthwise_backward(bank.given<scalar_t>(), back, wanted);
  });
  return {to_inputs, to_weights, crossed, sums};
}

// A mixture as the operators are given it, checked.
struct Mixed {
  Mixed(const Tensor& like, at::TensorList planes, at::IntArrayRef slot_of, at::TensorList linear,
        const Tensor& coefficients, int64_t slots)
      : like(like), planes(packed(planes)), linear(packed(linear)),
        coefficients(coefficients.contiguous()), slot_of(slot_of.begin(), slot_of.end()), slots(slots) {
    TORCH_CHECK(planes.size() == slot_of.size(), "there are ", planes.size(), " planes and ", slot_of.size(), " slots");
    size_of(like, 1);
    check_kind(like, planes);
    check_kind(like, linear);
    for (const Tensor& plane : planes) check_shape(plane, like.sizes(), "a plane");
    for (const Tensor& image : linear) check_shape(image, like.sizes(), "a linear part");
    for (int64_t slot : slot_of) TORCH_CHECK(slot >= 0 && slot < slots, "a slot is ", slot, " of ", slots);
    check_shape(coefficients, {slots, static_cast<int64_t>(linear.size()), like.size(3)}, "coefficients");
  }

  template <class T>
  sgas::Mixture<T> given() const {
    sgas::Mixture<T> mixture;
    mixture.images = like.size(0);
    mixture.pixels = like.size(1) * like.size(2);
    mixture.channels = like.size(3);
    mixture.slots = static_cast<int>(slots);
    mixture.linear = readable<T>(linear);
    mixture.coefficients = coefficients.const_data_ptr<T>();
    mixture.planes = readable<T>(planes);
    mixture.slot_of = slot_of;
    return mixture;
  }

  Tensor like;
  Tensors planes, linear;
  Tensor coefficients;
  std::vector<int> slot_of;
  int64_t slots;
};

Tensors mixture(at::TensorList before, at::IntArrayRef before_slots, at::TensorList planes, at::IntArrayRef slot_of,
                at::TensorList matrices, at::IntArrayRef first_rows, at::TensorList linear,
                const Tensor& coefficients, const Tensor& bias) {
  TORCH_CHECK(planes.size() + linear.size() > 0, "there is nothing to mix");
  const Tensor like = planes.empty() ? linear[0] : planes[0];
  const int64_t slots = bias.size(0), channels = like.size(3), branches = planes.size();
  const Mixed mixed(like, planes, slot_of, linear, coefficients, slots);
  const Tensors through = packed(matrices);
  const Tensor shift = bias.contiguous();
  TORCH_CHECK(matrices.size() == planes.size() && first_rows.size() == planes.size(), "there are ",
              matrices.size(), " matrices and ", first_rows.size(), " first rows for ", branches, " planes");
  check_kind(like, through);
  for (int64_t b = 0; b < branches; ++b) {
    check_shape(through[b], {through[b].size(0), channels}, "a matrix");
    TORCH_CHECK(first_rows[b] >= 0 && first_rows[b] + through[b].size(0) <= channels, "a matrix has rows beyond ", channels);
  }
  check_shape(shift, {slots, channels}, "bias");
  Tensors starts(slots, at::empty({0}, like.options())), outs;
  TORCH_CHECK(before.size() == before_slots.size(), "there are ", before.size(), " images before and ", before_slots.size(), " slots");
  for (std::size_t i = 0; i < before.size(); ++i) {
    check_shape(before[i], like.sizes(), "what was before");
    TORCH_CHECK(before_slots[i] >= 0 && before_slots[i] < slots, "a slot is ", before_slots[i], " of ", slots);
    starts[before_slots[i]] = before[i].contiguous();
  }
  for (int64_t slot = 0; slot < slots; ++slot) outs.push_back(at::empty(like.sizes(), like.options()));
  check_kind(like, starts);
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "mixture", [&] {
    sgas::Mixture<scalar_t> given = mixed.given<scalar_t>();
    given.before = readable<scalar_t>(starts);
    for (int64_t b = 0; b < branches; ++b)
      given.matrices.push_back({through[b].const_data_ptr<scalar_t>(), first_rows[b], through[b].size(0)});
    given.bias = shift.const_data_ptr<scalar_t>();
    sgas::mixture(given, pointers<scalar_t>(outs));
  });
  return outs;
}

std::tuple<Tensors, Tensor, Tensor, Tensor> mixture_backward(
    at::TensorList gradients, at::TensorList planes, at::IntArrayRef slot_of, const Tensor& centres,
    at::TensorList linear, const Tensor& linear_centres, const Tensor& coefficients) {
  const Tensors from = packed(gradients);
  const Tensor like = from.at(0), middle = centres.contiguous(), linear_middle = linear_centres.contiguous();
  const int64_t slots = from.size(), channels = like.size(3), branches = planes.size(), num = linear.size();
  const Mixed mixed(like, planes, slot_of, linear, coefficients, slots);
  check_kind(like, from);
  check_shape(middle, {branches, channels}, "centres");
  check_shape(linear_middle, {num, channels}, "linear centres");
  const auto options = like.options();
  Tensor crossed = at::empty({branches, channels, channels}, options);
  Tensor linear_crossed = at::empty({slots, num, channels}, options), sums = at::empty({slots, channels}, options);
  Tensors outs;
  for (int64_t q = 0; q < num; ++q) outs.push_back(at::empty(like.sizes(), options));
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "mixture_backward", [&] {
    const sgas::MixtureGradients<scalar_t> wanted{
        middle.const_data_ptr<scalar_t>(), linear_middle.const_data_ptr<scalar_t>(), pointers<scalar_t>(outs),
        crossed.data_ptr<scalar_t>(), linear_crossed.data_ptr<scalar_t>(), sums.data_ptr<scalar_t>()};
    sgas::mixture_backward(mixed.given<scalar_t>(), readable<scalar_t>(from), wanted);
  });
  return {outs, crossed, linear_crossed, sums};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pool(const Tensor& x, int64_t stride, bool moments) {
  const sgas::Size size = size_of(x, stride);
  check_kind(x, {});
  const Tensor from = x.contiguous();
  Tensor largest = at::empty({size.images, size.out_height(), size.out_width(), size.channels}, x.options());
  Tensor average = at::empty_like(largest), mean = at::empty({moments ? 2 : 0, size.channels}, x.options());
  Tensor variance = at::empty_like(mean);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "pool", [&] {
    scalar_t* means = moments ? mean.data_ptr<scalar_t>() : nullptr;
    sgas::pool(size, from.const_data_ptr<scalar_t>(), largest.data_ptr<scalar_t>(),
               average.data_ptr<scalar_t>(), means, variance.data_ptr<scalar_t>());
  });
  return {largest, average, mean, variance};
}

Tensor pool_backward(const Tensor& x, const Tensor& largest, const Tensor& average,
                     const Tensor& largest_gradient, const Tensor& average_gradient,
                     const Tensor& slopes, const Tensor& constants, const Maybe& added, int64_t stride) {
  const sgas::Size size = size_of(x, stride);
  const Tensors all = packed(at::TensorList({x, largest, average, largest_gradient, average_gradient, slopes, constants}));
  check_kind(x, all);
  for (int i = 1; i < 5; ++i)
    if (all[i].dim() != 1 || all[i].numel()) check_shape(all[i], {size.images, size.out_height(), size.out_width(), size.channels}, "a pooled image");
  for (int i = 5; i < 7; ++i) check_shape(all[i], {2, size.channels}, "slopes or constants");
  const Maybe plus = packed(added);
  if (plus) check_shape(*plus, x.sizes(), "what is added");
  Tensor gradient = at::empty(x.sizes(), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "pool_backward", [&] {
    const std::vector<const scalar_t*> p = readable<scalar_t>(all);
    sgas::pool_backward(size, sgas::PoolBackward<scalar_t>{p[0], p[1], p[2], p[3], p[4], p[5], p[6], pointer<scalar_t>(plus)},
                        gradient.data_ptr<scalar_t>());
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY(sgas_cnn, m) {
  m.def(
      "depthwise(Tensor[] inputs, Tensor? matrices, Tensor? shifts, Tensor[] weights, "
      "int[] dilations, int[] offsets, int stride, bool moments) -> (Tensor[], Tensor, Tensor)");
  m.def(
      "depthwise_backward(Tensor[] gradients, int[] pulled_gradients, int[] pulled_planes, "
      "Tensor pulled_matrices, Tensor[] planes, Tensor? slopes, Tensor? constants, Tensor[] inputs, "
      "Tensor? matrices, Tensor? shifts, Tensor? centres, Tensor[] weights, int[] dilations, "
      "int[] offsets, int stride, Tensor? added, bool wants_inputs, bool[] wants_weights) "
      "-> (Tensor[], Tensor[], Tensor, Tensor)");
  m.def(
      "mixture(Tensor[] before, int[] before_slots, Tensor[] planes, int[] slot_of, Tensor[] matrices, int[] first_rows, "
      "Tensor[] linear, Tensor coefficients, Tensor bias) -> Tensor[]");
  m.def(
      "mixture_backward(Tensor[] gradients, Tensor[] planes, int[] slot_of, Tensor centres, "
      "Tensor[] linear, Tensor linear_centres, Tensor coefficients) "
      "-> (Tensor[], Tensor, Tensor, Tensor)");
  m.def("pool(Tensor x, int stride, bool moments) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "pool_backward(Tensor x, Tensor largest, Tensor average, Tensor largest_gradient, "
      "Tensor average_gradient, Tensor slopes, Tensor constants, Tensor? added, int stride) -> Tensor");
}

TORCH_LIBRARY_IMPL(sgas_cnn, CPU, m) {
  m.impl("depthwise", &depthwise);
  m.impl("depthwise_backward", &depthwise_backward);
  m.impl("mixture", &mixture);
  m.impl("mixture_backward", &mixture_backward);
  m.impl("pool", &pool);
  m.impl("pool_backward", &pool_backward);
}
