// Products by tiles of registers: some rows by some registers of columns at a time. No torch here.
#pragma once

#include <algorithm>
#include <vector>

#include "lanes.h"

namespace sgas {

// The first number of a matrix and how far its rows stand apart.
template <class T>
struct View {
  T* data;
  int64_t stride;
  T* row(int64_t n) const { return data + n * stride; }
};

template <class T>
using Whole = Block<T, Vector<T>, 1>;

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

  // Of a torch tensor.
  template <class Matrix>
  explicit Padded(const Matrix& from) : Padded(from.size(0), from.size(1)) {
    const T* at = from.template const_data_ptr<T>();
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
  using B = Block<T, Vector<T>, count>;
  Vector<T> sum[rows][count] = {};
  for (const auto& factor : factors) {
    const T* left[rows];
    for (int r = 0; r < rows; r++) left[r] = factor.left.row(row + r);
    const T* right = factor.right->place(0, column);
    const int64_t depth = factor.right->rows, step = factor.right->step(column);
    for (int64_t k = 0; k < depth; k++, right += step) {
      Vector<T> other[count];
      for (int u = 0; u < count; u++) other[u] = B::load(right, u);
#pragma GCC unroll 16
      for (int r = 0; r < rows; r++) {
        const auto own = B::fill(left[r][k]);
        for (int u = 0; u < count; u++) sum[r][u] += own * other[u];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) take(B{}, row + r, sum[r]);
}

// Adds Σ_i right[i][r] · left[i][u] to some rows and registers of a Padded, from place (row, column).
template <class T, int rows, int count>
inline void add_block(const T* left, int64_t left_stride, const T* right, int64_t right_stride,
                      int64_t num_rows, Padded<T>& out, int64_t row, int64_t column) {
  using B = Block<T, Vector<T>, count>;
  constexpr int lanes = B::lanes, panels = (count + 1) / 2;
  T* panel[panels];
  for (int p = 0; p < panels; p++) panel[p] = out.place(row, column + p * out.width);
  const int64_t step = out.step(column);
  const auto place = [&](int r, int u) { return panel[u / 2] + r * step + u % 2 * lanes; };
  Vector<T> sum[rows][count];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) {
    for (int u = 0; u < count; u++) sum[r][u] = load(place(r, u));
  }
  for (int64_t i = 0; i < num_rows; i++, left += left_stride, right += right_stride) {
    Vector<T> other[count];
    for (int u = 0; u < count; u++) other[u] = B::load(left, u);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      const auto own = fill(right[r]);
      for (int u = 0; u < count; u++) sum[r][u] += own * other[u];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) {
    for (int u = 0; u < count; u++) store(place(r, u), sum[r][u]);
  }
}

// Calls take(block, row, registers) for the sum of products left · right, from one row to another,
// for some columns.
template <class T, int count, class Take>
inline void multiply_columns(const std::vector<Factor<T>>& factors, int64_t row, int64_t stop,
                             int64_t column, Take&& take) {
  constexpr int rows = TUNED<T> ? tile_rows<count>() : 4;
  for (; row + rows <= stop; row += rows) multiply_block<T, rows, count>(factors, row, column, take);
  for (; rows > 4 && row + 4 <= stop; row += 4) multiply_block<T, 4, count>(factors, row, column, take);
  for (; row < stop; row++) multiply_block<T, 1, count>(factors, row, column, take);
}

// Calls body(number of registers, first column, whether some are padding) for all columns of
// padded rows; the first and the last as constants.
template <class T, class Body>
inline void over_registers(int64_t columns, Body&& body) {
  constexpr int64_t lanes = Whole<T>::lanes;
  int64_t column = 0;
  if constexpr (TUNED<T>) {
    for (; column + 2 * lanes <= columns; column += 2 * lanes) {
      body(std::integral_constant<int, 2>{}, column, std::false_type{});
    }
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

}  // namespace sgas
