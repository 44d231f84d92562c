// A linear map, and of a = leaky ReLU(W x) what a batch norm with a maximum and a mean over clouds
// needs: the product's registers are pooled as they are done. See pool_activation.cpp.
//
// Backward, the gradient before the ReLU is made for some rows and used while it is in the cache.
// Where a library is to multiply, these are three steps.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "linear_backward.h"
#include "pools.h"

namespace sgas {
namespace {

constexpr int64_t POINTS_OF_A_TILE = 64;  // of x: in the second cache, beside some columns of W

// Where fresh memory comes a page at a time, a layer's values of 117 MB took 60 ms of faults.
void ask_for_huge_pages(const Tensor& fresh) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t page = 2 << 20;
  const auto start = reinterpret_cast<uintptr_t>(fresh.data_ptr());
  const uintptr_t first = (start + page - 1) / page * page;
  const uintptr_t last = (start + fresh.nbytes()) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Some columns of one cloud: W x to y, and what is found of it.
template <bool streamed, class T>
void pool_products(const std::vector<Factor<T>>& factors, int64_t start, int64_t size,
                   int64_t channel, int64_t channels, View<T> y, T slope, const T* sign,
                   const Pool<T>& pool) {
  for (int64_t first = 0; first < size; first += POINTS_OF_A_TILE) {
    const int64_t last = std::min(size, first + POINTS_OF_A_TILE);
    over_registers<T>(channels, [&](auto number, int64_t c, auto partial) {
      constexpr int count = decltype(number)::value;
      using B = Block<T, typename RegisterOf<T>::type, count>;
      for (int64_t point = first; point < last; point += POINTS_AT_ONCE) {
        Pooling<T, B> found(pool, c, slope, sign + channel);
        multiply_columns<T, count>(
            factors, start + point, start + std::min(last, point + POINTS_AT_ONCE), channel + c,
            [&](auto block, int64_t row, auto& values) __attribute__((always_inline)) {
              const auto place = B::fill_integer(static_cast<int32_t>(row - start));
              for (int u = 0; u < count; u++) found.add(u, values[u], place);
              store_columns<streamed, partial.value>(block, y.row(row), channel + c,
                                                     channel + channels, values);
            });
        found.store(pool, c);
      }
    });
  }
}

template <class T>
void pool_mapped(const Tensor& x, const Tensor& weight, const Tensor& sign, int64_t size, T slope,
                 Tensor y, int64_t stride, const Pool<T>& pool) {
  const Padded<T> map(weight.t());
  const std::vector<Factor<T>> factors{{reading<T>(x), &map}};
  const int64_t channels = weight.size(0), clouds = x.size(0) / size;
  const int64_t chunks = (channels + CHANNELS_AT_ONCE - 1) / CHANNELS_AT_ONCE;
  const bool streamed = static_cast<int64_t>(y.nbytes()) >= STREAMED_BYTES;
  const T* signs = sign.const_data_ptr<T>();
  const auto to = writing<T>(y);
  at::parallel_for(0, clouds * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      const int64_t cloud = part / chunks, channel = part % chunks * CHANNELS_AT_ONCE;
      const int64_t count = std::min(CHANNELS_AT_ONCE, channels - channel);
      const int64_t at = cloud * stride + channel;
      const Pool<T> own{pool.extremum + at, pool.point + at, pool.total + at, pool.squares + at};
      const auto run = streamed ? pool_products<true, T> : pool_products<false, T>;
      run(factors, cloud * size, size, channel, count, to, slope, signs, own);
      for (int64_t c = 0; c < count; c++) own.extremum[c] *= signs[channel + c];
    }
    finish_streams();
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> linear_pool(const Tensor& given,
                                                               const Tensor& weight,
                                                               const Tensor& sign, int64_t clouds,
                                                               double slope) {
  TORCH_CHECK(given.dim() == 2 && clouds > 0 && given.size(0) % clouds == 0 && given.size(0) > 0,
              clouds, " clouds of equal size do not fit ", given.sizes());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == given.size(1) &&
                  sign.numel() == weight.size(0),
              "weight ", weight.sizes(), " and sign ", sign.sizes(), " do not fit ", given.sizes());
  const at::AutoDispatchBelowAutograd below;
  const Tensor x = with_dense_rows(given);
  if (!by_registers(weight, x.size(0))) {
    const Tensor y = at::mm(x, weight.t());
    return std::tuple_cat(std::make_tuple(y), pool_activation(y, sign, clouds, slope));
  }
  const int64_t channels = weight.size(0);
  const int64_t stride = Padded<float>(0, channels).stride;  // no less than double's
  Tensor y = at::empty({x.size(0), channels}, x.options());
  ask_for_huge_pages(y);
  Tensor signs = at::zeros({stride}, x.options());
  signs.narrow(0, 0, channels).copy_(sign);
  Tensor extremum = at::full({clouds, stride}, -INFINITY, x.options());
  Tensor points = at::zeros({clouds, stride}, x.options().dtype(at::kInt));
  Tensor total = at::zeros({clouds, stride}, x.options().dtype(at::kDouble));
  Tensor squares = at::zeros({clouds, stride}, total.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "linear_pool", [&] {
    const Pool<scalar_t> pool{
        extremum.mutable_data_ptr<scalar_t>(), points.mutable_data_ptr<int32_t>(),
        total.mutable_data_ptr<double>(), squares.mutable_data_ptr<double>()};
    pool_mapped<scalar_t>(x, weight, signs, x.size(0) / clouds, static_cast<scalar_t>(slope), y,
                          stride, pool);
  });
  const auto cut = [&](const Tensor& found) { return found.narrow(1, 0, channels).contiguous(); };
  return {y, cut(extremum), cut(points), cut(total), cut(squares)};
}

std::tuple<Tensor, Tensor> linear_pool_backward(const Tensor& grad_extremum,
                                                const Tensor& grad_total,
                                                const Tensor& grad_squares, const Tensor& given,
                                                const Tensor& weight, const Tensor& given_y,
                                                const Tensor& points, double slope, bool of_x,
                                                bool of_weight) {
  const at::AutoDispatchBelowAutograd below;
  const Tensor x = with_dense_rows(given), y = with_dense_rows(given_y);
  TORCH_CHECK(y.size(0) == x.size(0) && y.size(1) == weight.size(0),
              "what linear_pool gave has to come back as it was");
  if (!by_registers(weight, x.size(0))) {
    const Tensor grad =
        pool_activation_backward(grad_extremum, grad_total, grad_squares, y, points, slope);
    return {of_x ? at::mm(grad, weight) : at::empty({0, x.size(1)}, x.options()),
            of_weight ? at::mm(grad.t(), x) : at::empty({0, x.size(1)}, x.options())};
  }
  const SpreadTensors tensors(grad_extremum, grad_total, grad_squares, points, y);
  Tensor grad_x = at::empty({of_x ? x.size(0) : 0, x.size(1)}, x.options());
  Tensor grad_weight = at::zeros({of_weight ? weight.size(0) : 0, weight.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "linear_pool_backward", [&] {
    const std::vector<Tensor> inputs{x}, grads{grad_x};
    Linear<scalar_t> linear(inputs, weight, of_x ? at::TensorList(grads) : at::TensorList());
    linear.fresh = true;
    const auto spread = tensors.of<scalar_t>(y, slope);
    const auto values = reading<scalar_t>(y);
    linear_backward(linear, x.size(0), grad_weight,
                    [&](int64_t, int64_t first, int64_t last, scalar_t* out) {
                      for (int64_t i = first; i < last; i++) {
                        spread.template row<false>(i, values.row(i), values.row(i + 1),
                                                   out + (i - first) * linear.stride);
                      }
                      return out;
                    });
  });
  return {grad_x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def(
      "linear_pool(Tensor x, Tensor weight, Tensor sign, int clouds, float slope) -> (Tensor y, "
      "Tensor extremum, Tensor points, Tensor total, Tensor squares)");
  m.def(
      "linear_pool_backward(Tensor grad_extremum, Tensor grad_total, Tensor grad_squares, "
      "Tensor x, Tensor weight, Tensor y, Tensor points, float slope, bool of_x, "
      "bool of_weight) -> (Tensor grad_x, Tensor grad_weight)");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("linear_pool", linear_pool);
  m.impl("linear_pool_backward", linear_pool_backward);
}

}  // namespace sgas
