// A linear map of inputs side by side, and of a = leaky ReLU(W x) what a batch norm with a maximum
// and a mean over clouds needs: the product's registers are pooled as they are done. See
// pool_activation.cpp.
//
// Backward, the gradient before the ReLU is made for some rows and used while it is in the cache.
// Where a library is to multiply, these are three steps.


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
      using B = Block<T, Vector<T>, count>;
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
void pool_mapped(List<Tensor> inputs, const Tensor& weight, const Tensor& sign, int64_t size,
                 T slope, Tensor y, int64_t stride, const Pool<T>& pool) {
  std::vector<Padded<T>> maps;
  std::vector<Factor<T>> factors;
  maps.reserve(inputs.size());
  int64_t first = 0;
  for (const Tensor& x : inputs) {
    maps.emplace_back(weight.narrow(1, first, x.size(1)).t());
    factors.push_back({reading<T>(x), &maps.back()});
    first += x.size(1);
  }
  const int64_t channels = weight.size(0), clouds = y.size(0) / size;
  const int64_t chunks = (channels + CHANNELS_AT_ONCE - 1) / CHANNELS_AT_ONCE;
  const bool streamed = static_cast<int64_t>(y.nbytes()) >= STREAMED_BYTES;
  const T* signs = sign.const_data_ptr<T>();
  const auto to = writing<T>(y);
  parallel_for(0, clouds * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      const int64_t cloud = part / chunks, channel = part % chunks * CHANNELS_AT_ONCE;
      const int64_t count = std::min(CHANNELS_AT_ONCE, channels - channel);
      const int64_t at = cloud * stride + channel;
      const Pool<T> own{pool.extremum + at, pool.point + at, pool.total + at, pool.squares + at};
      const auto run = TUNED<T> && streamed ? pool_products<TUNED<T>, T> : pool_products<false, T>;
      run(factors, cloud * size, size, channel, count, to, slope, signs, own);
      for (int64_t c = 0; c < count; c++) own.extremum[c] *= signs[channel + c];
    }
    finish_streams();
  });
}

// The inputs with dense rows; they have to be of one length and fit the weight.
std::vector<Tensor> checked(List<Tensor> given, const Tensor& weight) {
  std::vector<Tensor> inputs;
  int64_t width = 0;
  for (const Tensor& x : given) {
    SGAS_CHECK(x.dim() == 2 && x.size(0) == given[0].size(0), "inputs differ in length: ",
                x.sizes(), " and ", given[0].sizes());
    inputs.push_back(with_dense_rows(x));
    width += x.size(1);
  }
  SGAS_CHECK(!inputs.empty() && weight.dim() == 2 && weight.size(1) == width, "weight ",
              weight.sizes(), " does not fit ", width, " columns of inputs");
  return inputs;
}

Tensor side_by_side(const std::vector<Tensor>& inputs) {
  int64_t width = 0;
  for (const Tensor& x : inputs) width += x.size(1);
  Tensor all = empty({inputs[0].size(0), width}, inputs[0].options());
  int64_t first = 0;
  for (const Tensor& x : inputs) {
    all.narrow(1, first, x.size(1)).copy_(x);
    first += x.size(1);
  }
  return all;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> linear_pool(List<Tensor> given,
                                                               const Tensor& weight,
                                                               const Tensor& sign, int64_t clouds,
                                                               double slope) {
  const auto inputs = checked(given, weight);
  const int64_t rows = inputs[0].size(0), channels = weight.size(0);
  SGAS_CHECK(clouds > 0 && rows % clouds == 0 && rows > 0, clouds,
              " clouds of equal size do not fit ", rows, " points");
  SGAS_CHECK(sign.numel() == channels, sign.numel(), " signs do not fit weight ", weight.sizes());
  if (!by_registers(weight, rows)) {
    const Tensor y = product_of(side_by_side(inputs), weight.t());
    return std::tuple_cat(std::make_tuple(y), pool_activation(y, sign, clouds, slope));
  }
  const int64_t stride = Padded<float>(0, channels).stride;  // no less than double's
  const auto options = weight.options();
  Tensor y = empty({rows, channels}, options);
  ask_for_huge_pages(y);
  Tensor signs = zeros({stride}, options);
  signs.narrow(0, 0, channels).copy_(sign);
  Tensor extremum = full({clouds, stride}, -INFINITY, options);
  Tensor points = zeros({clouds, stride}, options.dtype(kInt));
  Tensor total = zeros({clouds, stride}, options.dtype(kDouble));
  Tensor squares = zeros({clouds, stride}, total.options());
  SGAS_FLOATING_TYPES(y.scalar_type(), "linear_pool", [&] {
    const Pool<scalar_t> pool{
        extremum.mutable_data_ptr<scalar_t>(), points.mutable_data_ptr<int32_t>(),
        total.mutable_data_ptr<double>(), squares.mutable_data_ptr<double>()};
    pool_mapped<scalar_t>(inputs, weight, signs, rows / clouds, static_cast<scalar_t>(slope), y,
                          stride, pool);
  });
  const auto cut = [&](const Tensor& found) { return found.narrow(1, 0, channels).contiguous(); };
  return {y, cut(extremum), cut(points), cut(total), cut(squares)};
}

// The gradients of the inputs and of the weight; what is not wanted has no row.
std::tuple<std::vector<Tensor>, Tensor> linear_pool_backward(
    const Tensor& grad_extremum, const Tensor& grad_total, const Tensor& grad_squares,
    List<Tensor> given, const Tensor& weight, const Tensor& given_y, const Tensor& points,
    double slope, const Bools& of_inputs, bool of_weight) {
  const auto inputs = checked(given, weight);
  const Tensor y = with_dense_rows(given_y);
  const int64_t rows = inputs[0].size(0);
  SGAS_CHECK(y.size(0) == rows && y.size(1) == weight.size(0) && of_inputs.size() == inputs.size(),
              "what linear_pool gave has to come back as it was");
  std::vector<Tensor> found, wanted;
  for (size_t i = 0; i < inputs.size(); i++) {
    found.push_back(empty({of_inputs[i] ? rows : 0, inputs[i].size(1)}, y.options()));
    wanted.push_back(of_inputs[i] ? found[i] : Tensor());
  }
  if (!by_registers(weight, rows)) {
    const Tensor grad =
        pool_activation_backward(grad_extremum, grad_total, grad_squares, y, points, slope);
    int64_t first = 0;
    for (Tensor& each : found) {
      if (each.size(0)) write_product(each, grad, weight.narrow(1, first, each.size(1)));
      first += each.size(1);
    }
    return {found, of_weight ? product_of(grad.t(), side_by_side(inputs))
                             : empty({0, weight.size(1)}, y.options())};
  }
  const SpreadTensors tensors(grad_extremum, grad_total, grad_squares, points, y);
  Tensor grad_weight = zeros({of_weight ? weight.size(0) : 0, weight.size(1)}, y.options());
  SGAS_FLOATING_TYPES(y.scalar_type(), "linear_pool_backward", [&] {
    Linear<scalar_t> linear(inputs, weight, wanted);
    linear.fresh = true;
    const auto spread = tensors.of<scalar_t>(y, slope);
    const auto values = reading<scalar_t>(y);
    linear_backward(linear, rows, grad_weight,
                    [&](int64_t, int64_t first, int64_t last, scalar_t* out) {
                      for (int64_t i = first; i < last; i++) {
                        spread.template row<false>(i, values.row(i), values.row(i + 1),
                                                   out + (i - first) * linear.stride);
                      }
                      return out;
                    });
  });
  return {found, grad_weight};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&linear_pool>(
      "linear_pool(Tensor[] inputs, Tensor weight, Tensor sign, int clouds, float slope) -> "
      "(Tensor y, Tensor extremum, Tensor points, Tensor total, Tensor squares)");
  m.add<&linear_pool_backward>(
      "linear_pool_backward(Tensor grad_extremum, Tensor grad_total, Tensor grad_squares, "
      "Tensor[] inputs, Tensor weight, Tensor y, Tensor points, float slope, bool[] of_inputs, "
      "bool of_weight) -> (Tensor[] grad_inputs, Tensor grad_weight)");
}

}  // namespace sgas
