// Matrix products by tiles of rows, whose results are used while they are in the cache.
#pragma once


#include "columns.h"

namespace sgas {

constexpr int64_t TILE_NUMBERS = 1 << 16;  // for each thread: a quarter of a megabyte of float32

// Calls body(first row, number of rows) tile by tile, for matrices of so many columns.
template <class Body>
void over_tiles(int64_t num_rows, int64_t columns, Body&& body) {
  const int64_t numbers = TILE_NUMBERS * std::min(get_num_threads(), 16);
  const int64_t size = std::max<int64_t>(numbers / std::max<int64_t>(columns, 1) / 64 * 64, 128);
  for (int64_t first = 0; first < num_rows; first += size) {
    body(first, std::min(size, num_rows - first));
  }
}

// out = a · b, or out += a · b.
inline void product(const Tensor& out, const Tensor& a, const Tensor& b, bool add) {
  if (add) {
    add_product(out, a, b);
  } else {
    write_product(out, a, b);
  }
}

// Adds a row of numbers to all rows of a matrix.
inline void add_row(const Tensor& to, const Tensor& row) {
  const Tensor dense = row.contiguous();
  SGAS_FLOATING_TYPES(to.scalar_type(), "add_row", [&] {
    const auto rows = writing<scalar_t>(to);
    const scalar_t* from = dense.const_data_ptr<scalar_t>();
    const int64_t columns = to.size(1);
    parallel_for(0, to.size(0), grain_of(columns), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        for (int64_t c = 0; c < columns; c++) rows.row(r)[c] += from[c];
      }
    });
  });
}

// The columns of a weight `[D, C·inputs]` that belong to one of its inputs.
inline Tensor part_of(const Tensor& weight, size_t number, size_t inputs) {
  const int64_t width = weight.size(1) / static_cast<int64_t>(inputs);
  return weight.narrow(1, static_cast<int64_t>(number) * width, width);
}

}  // namespace sgas
