// Backward of a term over its length, row by row; the mathematics is in `kernels/torch_columns.py`.
#pragma once

#include "columns.h"

namespace sgas {

template <class T>
struct Edge {
  View<const T> grad, y;
  View<T> out;
  const T* slope;   // nullptr: z is y, after a ReLU
  const T* shift;
  T weight;
};

// One row of one edge; returns G · u with u = z / |z|.
template <class T>
T length_row(const Edge<T>& edge, int64_t row, int64_t channels, T inverse, T floor) {
  const T *g = edge.grad.row(row), *y = edge.y.row(row);
  T along = 0;
  const auto z_of = [&](auto block, int64_t c, int u) {
    using B = decltype(block);
    const auto value = B::load(y + c, u);
    if (edge.slope == nullptr) return value;
    return static_cast<typename B::Value>(B::load(edge.slope + c, u) * value +
                                          B::load(edge.shift + c, u));
  };
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    typename B::Value sum = {};
    B::prefetch(edge.grad.row(row + ROWS_AHEAD) + c);
    B::prefetch(edge.y.row(row + ROWS_AHEAD) + c);
    for (int u = 0; u < B::count; u++) sum += B::load(g + c, u) * z_of(block, c, u);
    along += B::total(sum);
  });
  along *= inverse;
  if (edge.out.data == nullptr) return along;
  T* out = edge.out.row(row);
  // A length below the floor does not depend on z.
  const T kept = inverse * floor < 1 ? along * inverse : 0, by = edge.weight * inverse;
  over_channels<T>(channels, [&](auto block, int64_t c) {
    using B = decltype(block);
    const auto zero = B::fill(0), times = B::fill(by), share = B::fill(kept);
    for (int u = 0; u < B::count; u++) {
      const auto z = z_of(block, c, u);
      const auto found = times * (B::load(g + c, u) - share * z);
      B::store(out + c, u, edge.slope != nullptr ? found : (z > zero ? found : zero));
    }
  });
  return along;
}

}  // namespace sgas
