// Sums over pixels of the products of two sets of channels: a' b.
#pragma once

#include "simd.h"

namespace sgas {

// I rows and J blocks of columns.
template <class T, int I, int J>
inline void cross_tile(const T* a, long rows, const T* b, long width, long pixels, double* sums) {
  constexpr int L = LANES<T>;
  Vec<T> sum[I][J] = {};
  for (long p = 0; p < pixels; ++p) {
    Vec<T> column[J];
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) column[j] = load(b + p * width + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < I; ++i) {
      const T value = a[p * rows + i];
#pragma GCC unroll 2
      for (int j = 0; j < J; ++j) sum[i][j] += value * column[j];
    }
  }
  T numbers[I][J * L];  // the sums leave their registers here, whole, and not before
#pragma GCC unroll 16
  for (int i = 0; i < I; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) store(numbers[i] + j * L, sum[i][j]);
  }
  for (int i = 0; i < I; ++i) {
    for (int j = 0; j < J; ++j) add_to<T>(sums + i * width + j * L, load(numbers[i] + j * L));
  }
}

// sums[i][j] += a[p][i] * b[p][j] over pixels; a is `rows` wide, b `width`, both multiples of L.
template <class T>
inline void add_cross(const T* a, long rows, const T* b, long width, long pixels, double* sums) {
  constexpr int L = LANES<T>;
  const long blocks = width / L;
  // Rows come by the lanes of a vector, of which a tile's have to be a part.
  constexpr int most = Here::bytes >= 64 ? 8 : 4, I = L < most ? L : most;
  long block = 0;
  if constexpr (TUNED<T>) {
    if (blocks == 1) {
      for (long i = 0; i < rows; i += L)
        cross_tile<T, L, 1>(a + i, rows, b, width, pixels, sums + i * width);
      return;
    }
    for (; block + 2 <= blocks; block += 2) {
      for (long i = 0; i < rows; i += I)
        cross_tile<T, I, 2>(a + i, rows, b + block * L, width, pixels, sums + i * width + block * L);
    }
  }
  for (; block < blocks; ++block) {
    for (long i = 0; i < rows; i += I)
      cross_tile<T, I, 1>(a + i, rows, b + block * L, width, pixels, sums + i * width + block * L);
  }
}

}  // namespace sgas
