// Sums over the rows of a matrix, column by column: in T over a few rows, in double over all.
//
// Rows go in chunks of fixed size, whose sums are added in order: the result is the same for any
// number of threads.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "rows.h"
#include "tiles.h"

namespace sgas {

constexpr int64_t ROWS_AT_ONCE = 2 * tile_rows<2>();  // summed in T
constexpr int64_t ROWS_OF_A_CHUNK = 256;

template <class T>
View<const T> reading(const Tensor& x) {
  return {x.const_data_ptr<T>(), x.stride(0)};
}

template <class T>
View<T> writing(const Tensor& x) {
  return {x.mutable_data_ptr<T>(), x.stride(0)};
}

inline void check_dense_rows(const Tensor& matrix, const char* name) {
  TORCH_CHECK(matrix.dim() == 2 && (matrix.size(1) <= 1 || matrix.stride(1) == 1), name,
              " has to be a matrix with dense rows");
}

// The two sums `[2, columns]` of what visit(block, rows, column) adds up for a few rows: it is
// called with a block of channels, the first and last row and the block's first column, and two
// arrays of registers to add to.
template <class T, class Visit>
Tensor two_column_sums(int64_t num_rows, int64_t columns, const Tensor& like, Visit&& visit) {
  const int64_t chunks = std::max<int64_t>(1, (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK);
  Tensor partial = at::zeros({chunks, 2, columns}, like.options().dtype(at::kDouble));
  double* sums = partial.mutable_data_ptr<double>();
  const int64_t grain = std::max<int64_t>(1, grain_of(columns) / ROWS_OF_A_CHUNK);
  at::parallel_for(0, chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; chunk++) {
      double* first = sums + chunk * 2 * columns;
      const int64_t last_row = std::min(num_rows, (chunk + 1) * ROWS_OF_A_CHUNK);
      for (int64_t row = chunk * ROWS_OF_A_CHUNK; row < last_row; row += ROWS_AT_ONCE) {
        const int64_t stop = std::min(last_row, row + ROWS_AT_ONCE);
        over_channels<T>(columns, [&](auto block, int64_t c) {
          using B = decltype(block);
          typename B::Value one[B::count] = {}, two[B::count] = {};
          visit(block, row, stop, c, one, two);
          T numbers[2][B::width];
          for (int u = 0; u < B::count; u++) {
            B::store(numbers[0], u, one[u]);
            B::store(numbers[1], u, two[u]);
          }
          for (int i = 0; i < B::width; i++) {
            first[c + i] += numbers[0][i];
            first[columns + c + i] += numbers[1][i];
          }
        });
      }
    }
    finish_streams();
  });
  for (int64_t chunk = 1; chunk < chunks; chunk++) {
    for (int64_t i = 0; i < 2 * columns; i++) sums[i] += sums[chunk * 2 * columns + i];
  }
  return partial.select(0, 0);
}

}  // namespace sgas
