// Pointwise (1 x 1) convolutions of runs of pixels: sums of products of channels with matrices.
#pragma once

#include "simd.h"

namespace sgas {

// Pixels `data` [pixel][stride] and the matrix [channels][width] that their channels go through.
template <class T>
struct Term {
  const T* data;
  long stride;
  long channels;
  const T* matrix;
};

// J blocks of output channels of R pixels; the loaded matrix serves all R, the pixel all J.
template <class T, int R, int J, class Take>
inline void map_tile(const Term<T>* terms, int count, const T* bias, long width, long pixel,
                     long block, const Take& take) {
  constexpr int L = LANES<T>;
  Vec<T> sum[R][J];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) sum[r][j] = bias ? load(bias + (block + j) * L) : Vec<T>{};
  }
  for (int t = 0; t < count; ++t) {
    const Term<T>& term = terms[t];
    const T* from = term.data + pixel * term.stride;
    const T* matrix = term.matrix + block * L;
    for (long i = 0; i < term.channels; ++i) {
      Vec<T> column[J];
#pragma GCC unroll 2
      for (int j = 0; j < J; ++j) column[j] = load(matrix + i * width + j * L);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T value = from[r * term.stride + i];
#pragma GCC unroll 2
        for (int j = 0; j < J; ++j) sum[r][j] += value * column[j];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) take(pixel + r, block + j, sum[r][j]);
  }
}

template <class T, int J, class Take>
inline void map_block(const Term<T>* terms, int count, const T* bias, long width, long first,
                      long last, long block, const Take& take) {
  long p = first;
  for (; p + 8 <= last; p += 8) map_tile<T, 8, J>(terms, count, bias, width, p, block, take);
  for (; p + 4 <= last; p += 4) map_tile<T, 4, J>(terms, count, bias, width, p, block, take);
  for (; p < last; ++p) map_tile<T, 1, J>(terms, count, bias, width, p, block, take);
}

// take(pixel, block, vector) for bias + the sum of all terms; `width` is a multiple of L.
template <class T, class Take>
inline void map_pixels(const Term<T>* terms, int count, const T* bias, long width, long first,
                       long last, const Take& take) {
  const long blocks = width / LANES<T>;
  long block = 0;
  for (; block + 2 <= blocks; block += 2)
    map_block<T, 2>(terms, count, bias, width, first, last, block, take);
  if (block < blocks) map_block<T, 1>(terms, count, bias, width, first, last, block, take);
}

}  // namespace sgas
