// Sums over the rows of a matrix, column by column: in T over a few rows, in double over all.
//
// Rows go in chunks of fixed size, whose sums are added in order: the result is the same for any
// number of threads.
#pragma once


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
  SGAS_CHECK(matrix.dim() == 2 && (matrix.size(1) <= 1 || matrix.stride(1) == 1), name,
              " has to be a matrix with dense rows");
}

// What a visitor adds up for a few rows: two sums as they are; or Σ(v − r) and Σ(v − r)² of numbers v
// (SQUARES), or Σ g and Σ g (v − r) (PRODUCTS), for references r, which are near v. Of these Σv, Σv² and
// Σ g v are made in double: where |mean| is large beside the deviation, squares in T lose all of it.
enum Sums { AS_ADDED, SQUARES, PRODUCTS };

// The two sums of a few rows' numbers, added to `first` and `second`.
template <Sums kind, class T>
inline void add_sums(int64_t rows, int64_t columns, const T* one, const T* two, const T* reference,
                     double* first, double* second) {
  for (int64_t i = 0; i < columns; i++) {
    const double r = kind == AS_ADDED ? 0 : static_cast<double>(reference[i]);
    const double sum = kind == SQUARES ? one[i] + r * static_cast<double>(rows) : one[i];
    first[i] += sum;
    second[i] += kind == SQUARES ? two[i] + r * (one[i] + sum) : two[i] + r * one[i];
  }
}

// The two sums `[2, columns]` of what visit(block, rows, column) adds up for a few rows: it is
// called with a block of channels, the first and last row and the block's first column, two arrays
// of registers to add to, and one for the references.
template <class T, Sums kind, class Visit>
Tensor two_column_sums(int64_t num_rows, int64_t columns, const Tensor& like, Visit&& visit) {
  const int64_t chunks = std::max<int64_t>(1, (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK);
  Tensor partial = zeros({chunks, 2, columns}, like.options().dtype(kDouble));
  double* sums = partial.mutable_data_ptr<double>();
  const int64_t grain = std::max<int64_t>(1, grain_of(columns) / ROWS_OF_A_CHUNK);
  parallel_for(0, chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; chunk++) {
      double* first = sums + chunk * 2 * columns;
      const int64_t last_row = std::min(num_rows, (chunk + 1) * ROWS_OF_A_CHUNK);
      for (int64_t row = chunk * ROWS_OF_A_CHUNK; row < last_row; row += ROWS_AT_ONCE) {
        const int64_t stop = std::min(last_row, row + ROWS_AT_ONCE);
        over_channels<T>(columns, [&](auto block, int64_t c) {
          using B = decltype(block);
          typename B::Value one[B::count] = {}, two[B::count] = {}, reference[B::count] = {};
          visit(block, row, stop, c, one, two, reference);
          T numbers[3][B::width];
          for (int u = 0; u < B::count; u++) {
            B::store(numbers[0], u, one[u]);
            B::store(numbers[1], u, two[u]);
            B::store(numbers[2], u, reference[u]);
          }
          add_sums<kind>(stop - row, B::width, numbers[0], numbers[1], numbers[2], first + c,
                         first + columns + c);
        });
      }
    }
    finish_streams();
  });
  for (int64_t chunk = 1; chunk < chunks; chunk++) {
    for (int64_t i = 0; i < 2 * columns; i++) sums[i] += sums[chunk * 2 * columns + i];
  }
  return partial[0];
}

}  // namespace sgas
