// What a batch norm over all points followed by a maximum and a mean over each cloud needs of
// a = leaky ReLU(x): for every cloud the extremum by sign, and which point had it, Σa and Σa².
//
// Neither a nor its norm is stored. Backward, with c1 = dL/dΣa, c2 = 2 dL/dΣa² and G the gradient
// of the extremum: dL/da = c1 + c2 a, and G on top at the point that was chosen.

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "lanes.h"
#include "rows.h"

namespace sgas {
namespace {

constexpr int64_t POINTS_AT_ONCE = 16;    // points that are added in T before they go to float64
constexpr int64_t CHANNELS_AT_ONCE = 256;  // channels of a cloud that a thread takes at a time

// Points first to last of a cloud, some channels: what was found goes on from what there is.
template <class T>
struct Pool {
  T* extremum;
  int32_t* point;
  double* total;
  double* squares;
};

template <class T>
void visit_tile(const Matrix<T>& x, int64_t start, int64_t first, int64_t last, int64_t channel,
                int64_t channels, T slope, const T* sign, const Pool<T>& pool) {
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    using Value = typename B::Value;
    const Value zero = B::fill(0), factor = B::fill(slope);
    Value signs[B::count], best[B::count], sum[B::count] = {}, square[B::count] = {};
    typename B::Integer chosen[B::count];
    for (int u = 0; u < B::count; u++) {
      signs[u] = B::load(sign + channel + c, u);
      best[u] = B::load(pool.extremum + c, u);
      chosen[u] = B::load_integer(pool.point + c, u);
    }
    for (int64_t i = first; i < last; i++) {
      const T* row = x.row(start + i) + channel + c;
      B::prefetch(row + ROWS_AHEAD * x.stride);
      const auto point = B::fill_integer(i);
      for (int u = 0; u < B::count; u++) {
        const Value value = B::load(row, u);
        const Value a = value > zero ? value : factor * value;
        sum[u] += a;
        square[u] += a * a;
        const Value signed_a = signs[u] * a;
        const auto wins = signed_a > best[u];
        best[u] = wins ? signed_a : best[u];
        chosen[u] = wins ? point : chosen[u];
      }
    }
    for (int u = 0; u < B::count; u++) {
      B::store(pool.extremum + c, u, best[u]);
      B::store_integer(pool.point + c, u, chosen[u]);
      T sums[2 * B::lanes];
      B::store(sums, 0, sum[u]);
      B::store(sums, 1, square[u]);
      for (int lane = 0; lane < B::lanes; lane++) {
        pool.total[c + u * B::lanes + lane] += sums[lane];
        pool.squares[c + u * B::lanes + lane] += sums[B::lanes + lane];
      }
    }
  });
}

template <class T>
void pool_clouds(const Matrix<T>& x, int64_t clouds, int64_t size, int64_t channels, T slope,
                 const T* sign, const Pool<T>& pool) {
  const int64_t chunks = (channels + CHANNELS_AT_ONCE - 1) / CHANNELS_AT_ONCE;
  at::parallel_for(0, clouds * chunks, 1, [&](int64_t begin, int64_t end) {
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

template <class T>
void spread(const Matrix<T>& x, int64_t clouds, int64_t size, int64_t channels, T slope,
            const T* grad, const T* constant, const T* factor, const int32_t* points, T* grad_x) {
  at::parallel_for(0, clouds * size, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t at = i / size * channels;
      const int32_t number = static_cast<int32_t>(i % size);
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        const auto zero = B::fill(0), leak = B::fill(slope);
        B::prefetch(x.row(i + 1) + c);
        const auto point = B::fill_integer(number);
        for (int u = 0; u < B::count; u++) {
          const auto value = B::load(x.row(i) + c, u);
          const auto a = value > zero ? value : leak * value;
          auto grad_a = B::load(constant + at + c, u) + B::load(factor + at + c, u) * a;
          const auto chosen = B::load_integer(points + at + c, u);
          grad_a += chosen == point ? B::load(grad + at + c, u) : zero;
          B::stream(grad_x + i * channels + c, u, value > zero ? grad_a : leak * grad_a);
        }
      });
    }
    finish_streams();
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pool_activation(const Tensor& given,
                                                           const Tensor& given_sign,
                                                           int64_t clouds, double slope) {
  TORCH_CHECK(given.dim() == 2 && clouds > 0 && given.size(0) % clouds == 0 && given.size(0) > 0,
              clouds, " clouds of equal size do not fit ", given.sizes());
  const Tensor x = with_dense_rows(given), sign = given_sign.to(x.scalar_type()).contiguous();
  const int64_t channels = x.size(1), size = x.size(0) / clouds;
  TORCH_CHECK(sign.numel() == channels, "there have to be as many signs as channels");
  Tensor extremum = at::empty({clouds, channels}, x.options());
  Tensor points = at::empty({clouds, channels}, x.options().dtype(at::kInt));
  Tensor total = at::zeros({clouds, channels}, x.options().dtype(at::kDouble));
  Tensor squares = at::zeros({clouds, channels}, total.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "pool_activation", [&] {
    const Pool<scalar_t> pool{
        extremum.mutable_data_ptr<scalar_t>(), points.mutable_data_ptr<int32_t>(),
        total.mutable_data_ptr<double>(), squares.mutable_data_ptr<double>()};
    pool_clouds<scalar_t>(Matrix<scalar_t>(x), clouds, size, channels, slope,
                          sign.const_data_ptr<scalar_t>(), pool);
  });
  return {extremum, points, total, squares};
}

Tensor pool_activation_backward(const Tensor& given_grad, const Tensor& grad_total,
                                const Tensor& grad_squares, const Tensor& given,
                                const Tensor& points, double slope) {
  const Tensor x = with_dense_rows(given), grad = given_grad.contiguous();
  const auto type = x.scalar_type();
  const Tensor constant = grad_total.to(type).contiguous();
  const Tensor factor = grad_squares.mul(2).to(type).contiguous();
  const int64_t clouds = points.size(0), channels = points.size(1);
  TORCH_CHECK(grad.sizes() == points.sizes() && constant.sizes() == points.sizes() &&
                  factor.sizes() == points.sizes() && points.is_contiguous() && x.size(1) == channels && x.size(0) % clouds == 0,
              "what pool_activation gave has to come back as it was");
  Tensor grad_x = at::empty(x.sizes(), x.options());
  AT_DISPATCH_FLOATING_TYPES(type, "pool_activation_backward", [&] {
    spread<scalar_t>(Matrix<scalar_t>(x), clouds, x.size(0) / clouds, channels, slope,
                     grad.const_data_ptr<scalar_t>(), constant.const_data_ptr<scalar_t>(),
                     factor.const_data_ptr<scalar_t>(), points.const_data_ptr<int32_t>(),
                     grad_x.mutable_data_ptr<scalar_t>());
  });
  return grad_x;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def(
      "pool_activation(Tensor x, Tensor sign, int clouds, float slope) -> (Tensor extremum, "
      "Tensor points, Tensor total, Tensor squares)");
  m.def(
      "pool_activation_backward(Tensor grad_extremum, Tensor grad_total, Tensor grad_squares, "
      "Tensor x, Tensor points, float slope) -> Tensor");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("pool_activation", pool_activation);
  m.impl("pool_activation_backward", pool_activation_backward);
}

}  // namespace sgas
