// Products with small matrices, or with any where a library is slower, whose results go from
// registers to where they are used.
//
// A library's product writes all of its result before anything can read it; at 32 channels the
// memory takes longer than the arithmetic. Here `take` gets each register of the result as it is
// done: it may add it up, change it, and store it where it belongs.
#pragma once

#include "columns.h"

namespace sgas {

constexpr int64_t SMALL_NUMBERS = 1 << 14;  // of the small matrix; above, a library may be faster

enum Result { AS_IT_IS, AND_ADD, WITH_RELU };

// The sum of products into the rows of out; what is there may be added, or a ReLU taken.
template <class T, Result result, bool streamed = false>
void multiply(const std::vector<Factor<T>>& factors, int64_t first, int64_t last, View<T> out) {
  const int64_t columns = factors[0].right->columns;
  over_registers<T>(columns, [&](auto number, int64_t column, auto partial) {
    constexpr int count = decltype(number)::value;
    multiply_columns<T, count>(
        factors, first, last, column,
        [&](auto block, int64_t r, auto& found) __attribute__((always_inline)) {
          using B = decltype(block);
          T* row = out.row(r);
          if constexpr (result == WITH_RELU) {
            const auto zero = B::fill(0);
            for (int u = 0; u < count; u++) found[u] = B::larger(zero, found[u]);
          }
          if constexpr (result == AND_ADD) {
            if constexpr (partial.value) {
              T numbers[B::width];
              B::store(numbers, 0, found[0]);
              for (int64_t c = column; c < columns; c++) row[c] += numbers[c - column];
              return;
            } else {
              for (int u = 0; u < count; u++) found[u] += B::load(row + column, u);
            }
          }
          store_columns<streamed, partial.value>(block, row, column, columns, found);
        });
  });
}

// Calls body(first row, last row) for chunks of rows, in parallel.
template <class Body>
void over_chunks(int64_t num_rows, Body&& body) {
  const int64_t chunks = (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK;
  parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; chunk++) {
      const int64_t first = chunk * ROWS_OF_A_CHUNK;
      body(first, std::min(num_rows, first + ROWS_OF_A_CHUNK));
    }
    finish_streams();
  });
}

// `multiply` for all rows, in parallel.
template <class T, Result result>
void multiply_all(const std::vector<Factor<T>>& factors, int64_t num_rows, View<T> out) {
  over_chunks(num_rows, [&](int64_t first, int64_t last) {
    multiply<T, result>(factors, first, last, out);
  });
}

// out += leftᵀ · right over some rows of both; left has rows padded to whole registers as out has,
// and out is the transpose: `[columns of right, columns of left]`.
template <class T>
void add_transposed(const T* left, int64_t left_stride, View<const T> right, int64_t num_rows,
                    Padded<T>& out) {
  const auto block_of = [&](auto height, auto number, int64_t first, int64_t column) {
    constexpr int rows = decltype(height)::value, count = decltype(number)::value;
    add_block<T, rows, count>(left + column, left_stride, right.data + first, right.stride,
                              num_rows, out, first, column);
  };
  const auto columns_of = [&](auto number, int64_t column) {
    constexpr int rows = TUNED<T> ? tile_rows<decltype(number)::value>() : 4;
    int64_t first = 0;
    for (; first + rows <= out.rows; first += rows) {
      block_of(std::integral_constant<int, rows>{}, number, first, column);
    }
    for (; TUNED<T> && first + 2 <= out.rows; first += 2) {
      block_of(std::integral_constant<int, TUNED<T> ? 2 : 1>{}, number, first, column);
    }
    for (; first < out.rows; first++) {
      block_of(std::integral_constant<int, 1>{}, number, first, column);
    }
  };
  constexpr int64_t lanes = Whole<T>::lanes;
  int64_t column = 0;
  if constexpr (TUNED<T>) {
    for (; Here::registers >= 32 && column + 4 * lanes <= out.stride; column += 4 * lanes) {
      columns_of(std::integral_constant<int, 4>{}, column);
    }
    for (; column + 2 * lanes <= out.stride; column += 2 * lanes) {
      columns_of(std::integral_constant<int, 2>{}, column);
    }
  }
  for (; column < out.stride; column += lanes) columns_of(std::integral_constant<int, 1>{}, column);
}

}  // namespace sgas
