// The maximum and the sums over clouds of points, as they are found, and their way back.
//
// a = leaky ReLU(x). Backward, with c1 = dL/dΣa, c2 = 2 dL/dΣa² and G the gradient of the extremum:
// dL/da = c1 + c2 a, and G on top at the point that was chosen.
#pragma once

#include "columns.h"
#include "lanes.h"
#include "rows.h"

namespace sgas {

// Points that are added in T before they go to float64.
constexpr int64_t POINTS_AT_ONCE = 2 * tile_rows<2>();
constexpr int64_t CHANNELS_AT_ONCE = 256;  // channels of a cloud that a thread takes at a time

// What was found of a cloud's points so far, by channel.
template <class T>
struct Pool {
  T* extremum;
  int32_t* point;
  double* total;
  double* squares;
};

// A block's channels of a Pool in registers, while a few points are added.
template <class T, class B>
struct Pooling {
  using Value = typename B::Value;
  const Value zero = B::fill(0), factor;
  Value signs[B::count], best[B::count], sum[B::count] = {}, square[B::count] = {};
  Value reference[B::count] = {};  // the first that is added
  typename B::Integer chosen[B::count];
  int64_t added = 0;  // points

  Pooling(const Pool<T>& pool, int64_t c, T slope, const T* sign) : factor(B::fill(slope)) {
    for (int u = 0; u < B::count; u++) {
      signs[u] = B::load(sign + c, u);
      best[u] = B::load(pool.extremum + c, u);
      chosen[u] = B::load_integer(pool.point + c, u);
    }
  }

  void add(int number, Value value, typename B::Integer point) {
    const Value a = value > zero ? value : factor * value;
    if (added == 0) reference[number] = a;
    if (number == B::count - 1) added++;
    const Value apart = a - reference[number];
    sum[number] += apart;
    square[number] += apart * apart;
    const Value signed_a = signs[number] * a;
    const auto wins = signed_a > best[number];
    best[number] = B::larger(signed_a, best[number]);
    chosen[number] = wins ? point : chosen[number];
  }

  void store(const Pool<T>& pool, int64_t c) const {
    for (int u = 0; u < B::count; u++) {
      B::store(pool.extremum + c, u, best[u]);
      B::store_integer(pool.point + c, u, chosen[u]);
      T sums[3 * B::lanes];
      B::store(sums, 0, sum[u]);
      B::store(sums, 1, square[u]);
      B::store(sums, 2, reference[u]);
      const int64_t at = c + u * B::lanes;
      add_sums<SQUARES>(added, B::lanes, sums, sums + B::lanes, sums + 2 * B::lanes, pool.total + at,
                        pool.squares + at);
    }
  }
};

// Gradients of what a pooling found, `[clouds, channels]`, and where that was.
template <class T>
struct Spread {
  const T *extremum, *constant, *factor;
  const int32_t* points;
  int64_t size, channels;  // of a cloud
  T slope;

  // The gradient of point number i of all, whose values are `values`.
  template <bool streamed>
  void row(int64_t i, const T* values, const T* next_values, T* out) const {
    const int64_t at = i / size * channels;
    const int32_t number = static_cast<int32_t>(i % size);
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      const auto zero = B::fill(0), leak = B::fill(slope);
      B::prefetch(next_values + c);
      const auto point = B::fill_integer(number);
      for (int u = 0; u < B::count; u++) {
        const auto value = B::load(values + c, u);
        const auto a = value > zero ? value : leak * value;
        auto grad_a = B::load(constant + at + c, u) + B::load(factor + at + c, u) * a;
        const auto chosen = B::load_integer(points + at + c, u);
        grad_a += chosen == point ? B::load(extremum + at + c, u) : zero;
        const auto found = value > zero ? grad_a : leak * grad_a;
        if constexpr (streamed) {
          B::stream(out + c, u, found);
        } else {
          B::store(out + c, u, found);
        }
      }
    });
  }
};

// The gradients as the backward passes of poolings get them, in the type of the values.
struct SpreadTensors {
  Tensor extremum, constant, factor, points;

  SpreadTensors(const Tensor& of_extremum, const Tensor& of_total, const Tensor& of_squares,
                const Tensor& points, const Tensor& values)
      : extremum(of_extremum.contiguous()),
        constant(of_total.to(values.scalar_type()).contiguous()),
        factor(doubled(of_squares).to(values.scalar_type()).contiguous()),
        points(points) {
    const auto sizes = points.sizes();
    SGAS_CHECK(extremum.sizes() == sizes && constant.sizes() == sizes &&
                    factor.sizes() == sizes && points.is_contiguous() &&
                    values.size(1) == sizes[1] && values.size(0) % sizes[0] == 0,
                "what a pooling gave has to come back as it was");
  }

  template <class T>
  Spread<T> of(const Tensor& values, double slope) const {
    return {extremum.const_data_ptr<T>(), constant.const_data_ptr<T>(),
            factor.const_data_ptr<T>(),   points.const_data_ptr<int32_t>(),
            values.size(0) / points.size(0), points.size(1), static_cast<T>(slope)};
  }
};

// The operators of pool_activation.cpp.
std::tuple<Tensor, Tensor, Tensor, Tensor> pool_activation(const Tensor& x, const Tensor& sign,
                                                           int64_t clouds, double slope);
Tensor pool_activation_backward(const Tensor& grad_extremum, const Tensor& grad_total,
                                const Tensor& grad_squares, const Tensor& x, const Tensor& points,
                                double slope);

}  // namespace sgas
