// projection.cpp as operators of torch, in the namespace sgas_cnn.
#include "arguments.h"
#include "kernels.h"

namespace {

using namespace sgas::operators;

template <class T>
sgas::Projection<T> given(const Tensor& x, const Tensor& weight) {
  return {x.size(0), x.size(1) * x.size(2), x.size(3), weight.size(0), x.const_data_ptr<T>(), weight.const_data_ptr<T>()};
}

void check(const Tensor& x, const Tensor& weight) {
  check_images(x);
  check_kind(x, {weight});
  SGAS_CHECK(weight.size(0) > 0, "a pointwise weight gives no channel");
  check_shape(weight, {weight.size(0), x.size(3), 1, 1}, "a pointwise weight");
}

std::tuple<Tensor, Tensor, Tensor> projection(const Tensor& x, const Tensor& weight, const Maybe& bias, bool moments) {
  check(x, weight);
  const Maybe shift = packed(bias);
  if (shift) check_kind(x, {*shift});
  if (shift) check_shape(*shift, {weight.size(0)}, "a bias");
  const Tensor image = x.contiguous(), through = weight.contiguous();
  const int64_t channels = weight.size(0);
  Tensor output = empty({x.size(0), x.size(1), x.size(2), channels}, x.options());
  Tensor mean = empty({moments ? 1 : 0, channels}, x.options()), variance = empty(mean.sizes(), mean.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "projection", [&] {
    sgas::Moments<scalar_t> found{nullptr, nullptr};
    if (moments) found = {mean.data_ptr<scalar_t>(), variance.data_ptr<scalar_t>()};
    auto arguments = given<scalar_t>(image, through);
    arguments.bias = pointer<scalar_t>(shift);
    sgas::projection(arguments, output.data_ptr<scalar_t>(), found);
  });
  return {output, mean, variance};
}

std::tuple<Tensor, Tensor> projection_backward(const Tensor& gradient, const Tensor& factors, const Tensor& output,
                                               const Maybe& slopes, const Maybe& constants, const Tensor& x,
                                               const Tensor& weight, bool wants_x, bool wants_weight) {
  check(x, weight);
  const int64_t channels = weight.size(0);
  const Tensor image = x.contiguous(), through = weight.contiguous();
  const Tensors pair = packed(List<Tensor>({gradient, output}));
  const Tensor factor = factors.contiguous();
  const Maybe slope = packed(slopes), constant = packed(constants);
  check_kind(x, pair);
  for (const Tensor& tensor : pair) check_shape(tensor, {x.size(0), x.size(1), x.size(2), channels}, "a gradient or output");
  for (const Maybe& row : {Maybe(factor), slope, constant}) {
    if (row) check_shape(*row, {1, channels}, "factors, slopes or constants");
    if (row) check_kind(x, {*row});
  }
  Tensor to_x = wants_x ? empty(x.sizes(), x.options()) : empty({0}, x.options());
  Tensor to_weight = wants_weight ? empty(weight.sizes(), x.options()) : empty({0}, x.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "projection_backward", [&] {
    const sgas::ProjectionBackward<scalar_t> back{
        pair[0].const_data_ptr<scalar_t>(), factor.const_data_ptr<scalar_t>(), pair[1].const_data_ptr<scalar_t>(),
        pointer<scalar_t>(slope), pointer<scalar_t>(constant)};
    sgas::projection_backward(given<scalar_t>(image, through), back, wants_x ? to_x.data_ptr<scalar_t>() : nullptr,
                              wants_weight ? to_weight.data_ptr<scalar_t>() : nullptr);
  });
  return {to_x, to_weight};
}

}  // namespace

SGAS_OPERATORS(sgas_cnn, m) {
  m.add<&projection>("projection(Tensor x, Tensor weight, Tensor? bias, bool moments) -> (Tensor, Tensor, Tensor)");
  m.add<&projection_backward>(
      "projection_backward(Tensor gradient, Tensor factors, Tensor output, Tensor? slopes, Tensor? constants, "
      "Tensor x, Tensor weight, bool wants_x, bool wants_weight) -> (Tensor, Tensor)");
}

