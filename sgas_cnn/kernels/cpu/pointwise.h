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
template <class T, int R, int J, int C, class Take>
inline void map_tile(const Term<T>* terms, int count, const T* bias, long width, long pixel,
                     long block, const Take& take) {
  constexpr int L = LANES<T>;
  Vec<T> sum[R][J];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) sum[r][j] = bias ? load(bias + (block + j) * L) : Vec<T>{};
  }
  for (int t = 0; t < count; ++t) {
    const Term<T>& term = terms[t];
    const long stride = C ? C : term.stride, channels = C ? C : term.channels;
    const T* from = term.data + pixel * stride;
    const T* matrix = term.matrix + block * L;
#pragma GCC unroll 4
    for (long i = 0; i < channels; ++i) {
      Vec<T> column[J];
#pragma GCC unroll 2
      for (int j = 0; j < J; ++j) column[j] = load(matrix + i * width + j * L);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const T value = from[r * stride + i];
#pragma GCC unroll 2
        for (int j = 0; j < J; ++j) sum[r][j] += value * column[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) take(pixel + r, block + j, sum[r][j]);
  }
}

template <class T, int J, int C, class Take>
inline void map_block(const Term<T>* terms, int count, const T* bias, long width, long first,
                      long last, long block, const Take& take) {
  constexpr int R = J == 1 && C ? 16 : 8;
  long p = first;
  for (; p + R <= last; p += R) map_tile<T, R, J, C>(terms, count, bias, width, p, block, take);
  for (; p + 4 <= last; p += 4) map_tile<T, 4, J, C>(terms, count, bias, width, p, block, take);
  for (; p < last; ++p) map_tile<T, 1, J, C>(terms, count, bias, width, p, block, take);
}

template <class T, int C, class Take>
inline void map_blocks(const Term<T>* terms, int count, const T* bias, long width, long first,
                       long last, const Take& take) {
  const long blocks = width / LANES<T>;
  long block = 0;
  for (; block + 2 <= blocks; block += 2)
    map_block<T, 2, C>(terms, count, bias, width, first, last, block, take);
  if (block < blocks) map_block<T, 1, C>(terms, count, bias, width, first, last, block, take);
}

// take(pixel, block, vector) for bias + the sum of all terms; `width` is a multiple of L. For one,
// two and four full blocks of channels, a search's, the compiler is told their number.
template <class T, class Take>
inline void map_pixels(const Term<T>* terms, int count, const T* bias, long width, long first,
                       long last, const Take& take) {
  constexpr int L = LANES<T>;
  long channels = count ? terms[0].channels : 0;
  for (int t = 0; t < count; ++t) {
    if (terms[t].channels != channels || terms[t].stride != channels) channels = 0;
  }
  if (channels == L) return map_blocks<T, L>(terms, count, bias, width, first, last, take);
  if (channels == 2 * L) return map_blocks<T, 2 * L>(terms, count, bias, width, first, last, take);
  if (channels == 4 * L) return map_blocks<T, 4 * L>(terms, count, bias, width, first, last, take);
  map_blocks<T, 0>(terms, count, bias, width, first, last, take);
}

}  // namespace sgas
