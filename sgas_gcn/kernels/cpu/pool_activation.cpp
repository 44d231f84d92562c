// What a batch norm over all points followed by a maximum and a mean over each cloud needs of
// a = leaky ReLU(x): for every cloud the extremum by sign, and which point had it, Σa and Σa².
//
// Neither a nor its norm is stored. The way back is in pools.h.


#include "pools.h"

namespace sgas {
namespace {

template <class T>
void visit_tile(const Matrix<T>& x, int64_t start, int64_t first, int64_t last, int64_t channel,
                int64_t channels, T slope, const T* sign, const Pool<T>& pool) {
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    Pooling<T, B> found(pool, c, slope, sign + channel);
    for (int64_t i = first; i < last; i++) {
      const T* row = x.row(start + i) + channel + c;
      B::prefetch(row + ROWS_AHEAD * x.stride);
      for (int u = 0; u < B::count; u++) found.add(u, B::load(row, u), B::fill_integer(i));
    }
    found.store(pool, c);
  });
}

template <class T>
void pool_clouds(const Matrix<T>& x, int64_t clouds, int64_t size, int64_t channels, T slope,
                 const T* sign, const Pool<T>& pool) {
  const int64_t chunks = (channels + CHANNELS_AT_ONCE - 1) / CHANNELS_AT_ONCE;
  parallel_for(0, clouds * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      const int64_t cloud = part / chunks, channel = part % chunks * CHANNELS_AT_ONCE;
      const int64_t count = std::min(CHANNELS_AT_ONCE, channels - channel);
      const int64_t at = cloud * channels + channel;
      const Pool<T> own{pool.extremum + at, pool.point + at, pool.total + at, pool.squares + at};
      std::fill_n(own.extremum, count, -std::numeric_limits<T>::infinity());
      std::fill_n(own.point, count, 0);
      for (int64_t first = 0; first < size; first += POINTS_AT_ONCE) {
        visit_tile(x, cloud * size, first, std::min(size, first + POINTS_AT_ONCE), channel, count, slope,
                   sign, own);
      }
      for (int64_t c = 0; c < count; c++) own.extremum[c] *= sign[channel + c];
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> pool_activation(const Tensor& given,
                                                           const Tensor& given_sign,
                                                           int64_t clouds, double slope) {
  SGAS_CHECK(given.dim() == 2 && clouds > 0 && given.size(0) % clouds == 0 && given.size(0) > 0,
              clouds, " clouds of equal size do not fit ", given.sizes());
  const Tensor x = with_dense_rows(given), sign = given_sign.to(x.scalar_type()).contiguous();
  const int64_t channels = x.size(1), size = x.size(0) / clouds;
  SGAS_CHECK(sign.numel() == channels, "there have to be as many signs as channels");
  Tensor extremum = empty({clouds, channels}, x.options());
  Tensor points = empty({clouds, channels}, x.options().dtype(kInt));
  Tensor total = zeros({clouds, channels}, x.options().dtype(kDouble));
  Tensor squares = zeros({clouds, channels}, total.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "pool_activation", [&] {
    const Pool<scalar_t> pool{
        extremum.mutable_data_ptr<scalar_t>(), points.mutable_data_ptr<int32_t>(),
        total.mutable_data_ptr<double>(), squares.mutable_data_ptr<double>()};
    pool_clouds<scalar_t>(Matrix<scalar_t>(x), clouds, size, channels, slope,
                          sign.const_data_ptr<scalar_t>(), pool);
  });
  return {extremum, points, total, squares};
}

Tensor pool_activation_backward(const Tensor& grad_extremum, const Tensor& grad_total,
                                const Tensor& grad_squares, const Tensor& given,
                                const Tensor& points, double slope) {
  const Tensor x = with_dense_rows(given);
  const SpreadTensors tensors(grad_extremum, grad_total, grad_squares, points, x);
  Tensor grad_x = empty(x.sizes(), x.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "pool_activation_backward", [&] {
    const auto spread = tensors.of<scalar_t>(x, slope);
    const Matrix<scalar_t> values(x);
    scalar_t* out = grad_x.mutable_data_ptr<scalar_t>();
    parallel_for(0, x.size(0), grain_of(x.size(1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        spread.template row<true>(i, values.row(i), values.row(i + 1), out + i * x.size(1));
      }
      finish_streams();
    });
  });
  return grad_x;
}

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&pool_activation>(
      "pool_activation(Tensor x, Tensor sign, int clouds, float slope) -> (Tensor extremum, "
      "Tensor points, Tensor total, Tensor squares)");
  m.add<&pool_activation_backward>(
      "pool_activation_backward(Tensor grad_extremum, Tensor grad_total, Tensor grad_squares, "
      "Tensor x, Tensor points, float slope) -> Tensor");
}

}  // namespace sgas
