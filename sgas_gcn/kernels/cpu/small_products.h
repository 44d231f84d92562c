// Products with small matrices, or with any where a library is slower, whose results go from
// registers to where they are used.
//
// A library's product writes all of its result before anything can read it; at 32 channels the
// memory takes longer than the arithmetic. Here `take` gets each register of the result as it is
// done: it may add it up, change it, and store it where it belongs.
#pragma once

#include <vector>

#include "columns.h"

namespace sgas {

constexpr int64_t SMALL_NUMBERS = 1 << 14;  // of the small matrix; above, a library may be faster
constexpr int ROWS_OF_A_BLOCK = 8;

template <class T>
using Whole = Block<T, typename RegisterOf<T>::type, 1>;

// A matrix in panels of two registers' columns, each of them row after row, so that a product reads
// what stands together. The last panel may be one register wide; missing columns are zeros.
template <class T>
struct Padded {
  static constexpr int64_t width = 2 * Whole<T>::lanes;  // of a panel

  int64_t rows, columns, stride;  // stride: the columns with those that are missing
  Numbers<T> numbers;

  Padded(int64_t rows, int64_t columns)
      : rows(rows),
        columns(columns),
        stride((columns + Whole<T>::lanes - 1) / Whole<T>::lanes * Whole<T>::lanes),
        numbers(rows * stride) {}

  explicit Padded(const Tensor& from) : Padded(from.size(0), from.size(1)) {
    const T* at = from.const_data_ptr<T>();
    const int64_t down = from.stride(0), along = from.stride(1);
    for (int64_t c = 0; c < columns; c += width) {  // what a panel takes may lie in columns
      const int64_t number = std::min(width, columns - c), far = step(c);
      T* panel = place(0, c);
      const auto fill = [&](int64_t r, int64_t i) {
        panel[r * far + i] = at[r * down + (c + i) * along];
      };
      if (down < along) {
        for (int64_t i = 0; i < number; i++) {
          for (int64_t r = 0; r < rows; r++) fill(r, i);
        }
      } else {
        for (int64_t r = 0; r < rows; r++) {
          for (int64_t i = 0; i < number; i++) fill(r, i);
        }
      }
    }
  }

  // How far the rows of a column's panel stand apart.
  int64_t step(int64_t column) const { return std::min(width, stride - first_of(column)); }

  const T* place(int64_t row, int64_t column) const {
    const int64_t first = first_of(column);
    return numbers.data() + first * rows + row * step(column) + column - first;
  }
  T* place(int64_t row, int64_t column) {
    return const_cast<T*>(static_cast<const Padded*>(this)->place(row, column));
  }

 private:
  static int64_t first_of(int64_t column) { return column / width * width; }
};

template <class T>
struct Factor {
  View<const T> left;
  const Padded<T>* right;
};

template <class T, int rows, int count, class Take>
inline void multiply_block(const std::vector<Factor<T>>& factors, int64_t row, int64_t column,
                           Take&& take) {
  using B = Block<T, typename RegisterOf<T>::type, count>;
  typename B::Value sum[rows][count] = {};
  for (const auto& factor : factors) {
    const T* left[rows];
    for (int r = 0; r < rows; r++) left[r] = factor.left.row(row + r);
    const T* right = factor.right->place(0, column);
    const int64_t depth = factor.right->rows, step = factor.right->step(column);
    for (int64_t k = 0; k < depth; k++, right += step) {
      typename B::Value other[count];
      for (int u = 0; u < count; u++) other[u] = B::load(right, u);
#pragma GCC unroll 8
      for (int r = 0; r < rows; r++) {
        const auto own = B::fill(left[r][k]);
        for (int u = 0; u < count; u++) sum[r][u] += own * other[u];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) take(B{}, row + r, sum[r]);
}

// Calls take(block, row, registers) for the sum of products left · right, from one row to another,
// for some columns.
template <class T, int count, class Take>
inline void multiply_columns(const std::vector<Factor<T>>& factors, int64_t row, int64_t stop,
                             int64_t column, Take&& take) {
  for (; row + ROWS_OF_A_BLOCK <= stop; row += ROWS_OF_A_BLOCK) {
    multiply_block<T, ROWS_OF_A_BLOCK, count>(factors, row, column, take);
  }
  for (; row < stop; row++) multiply_block<T, 1, count>(factors, row, column, take);
}

// Calls body(number of registers, first column, whether some are padding) for all columns of
// padded rows; the first and the last as constants.
template <class T, class Body>
inline void over_registers(int64_t columns, Body&& body) {
  constexpr int64_t lanes = Whole<T>::lanes;
  int64_t column = 0;
  for (; column + 2 * lanes <= columns; column += 2 * lanes) {
    body(std::integral_constant<int, 2>{}, column, std::false_type{});
  }
  for (; column + lanes <= columns; column += lanes) {
    body(std::integral_constant<int, 1>{}, column, std::false_type{});
  }
  if (column < columns) body(std::integral_constant<int, 1>{}, column, std::true_type{});
}

// Stores registers, of which the last may be padding after some column.
template <bool streamed, bool partial, class T, class B>
inline void store_columns(B, T* row, int64_t column, int64_t columns,
                          const typename B::Value* values) {
  if constexpr (partial) {
    T numbers[B::lanes];
    B::store(numbers, 0, values[0]);
    for (int64_t c = column; c < columns; c++) row[c] = numbers[c - column];
  } else {
    for (int u = 0; u < B::count; u++) {
      if constexpr (streamed) {
        B::stream(row + column, u, values[u]);
      } else {
        B::store(row + column, u, values[u]);
      }
    }
  }
}

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
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
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
    using B = Block<T, typename RegisterOf<T>::type, count>;
    const auto place = [&](int r, int u) {
      return out.place(first + r, column + u * B::lanes);
    };
    typename B::Value sum[rows][count];
    for (int r = 0; r < rows; r++) {
      for (int u = 0; u < count; u++) sum[r][u] = B::load(place(r, u), 0);
    }
    for (int64_t i = 0; i < num_rows; i++) {
      typename B::Value other[count];
      for (int u = 0; u < count; u++) other[u] = B::load(left + i * left_stride + column, u);
      const T* numbers = right.row(i) + first;
#pragma GCC unroll 8
      for (int r = 0; r < rows; r++) {
        const auto own = B::fill(numbers[r]);
        for (int u = 0; u < count; u++) sum[r][u] += own * other[u];
      }
    }
    for (int r = 0; r < rows; r++) {
      for (int u = 0; u < count; u++) B::store(place(r, u), 0, sum[r][u]);
    }
  };
  // Sixteen registers of sums at a time, where there are so many.
  const auto columns_of = [&](auto number, int64_t column) {
    constexpr int rows = 16 / decltype(number)::value;
    int64_t first = 0;
    for (; first + rows <= out.rows; first += rows) {
      block_of(std::integral_constant<int, rows>{}, number, first, column);
    }
    for (; first + 2 <= out.rows; first += 2) {
      block_of(std::integral_constant<int, 2>{}, number, first, column);
    }
    for (; first < out.rows; first++) {
      block_of(std::integral_constant<int, 1>{}, number, first, column);
    }
  };
  constexpr int64_t lanes = Whole<T>::lanes;
  int64_t column = 0;
  for (; column + 4 * lanes <= out.stride; column += 4 * lanes) {
    columns_of(std::integral_constant<int, 4>{}, column);
  }
  for (; column + 2 * lanes <= out.stride; column += 2 * lanes) {
    columns_of(std::integral_constant<int, 2>{}, column);
  }
  if (column < out.stride) columns_of(std::integral_constant<int, 1>{}, column);
}

}  // namespace sgas
