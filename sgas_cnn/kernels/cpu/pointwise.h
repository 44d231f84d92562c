// Pointwise (1 x 1) convolutions of runs of pixels: products of their channels with a matrix.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "simd.h"

namespace sgas {

// J blocks of output channels of R pixels; the loaded matrix serves all R, the pixel all J.
template <class T, int R, int J, int C, class Take>
inline void map_tile(const T* pixels, long given_stride, long given_channels, const T* matrix,
                     long given_width, long pixel, long block, const Take& take) {
  constexpr int L = LANES<T>;
  const long stride = C ? C : given_stride, channels = C ? C : given_channels;
  const long width = C ? C : given_width;
  Vec<T> sum[R][J] = {};
  const T* from = pixels + pixel * stride;
#pragma GCC unroll 4
  for (long i = 0; i < channels; ++i) {
    Vec<T> column[J];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) column[j] = load(matrix + i * width + (block + j) * L);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T value = from[r * stride + i];
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) sum[r][j] += value * column[j];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) take(pixel + r, block + j, sum[r][j]);
  }
}

template <class T, int J, int C, class Take>
inline void map_block(const T* pixels, long stride, long channels, const T* matrix, long width,
                      long count, long block, const Take& take) {
  constexpr int R = TUNED<T> ? tile_rows<J>() : 4;
  long p = 0;
  for (; p + R <= count; p += R)
    map_tile<T, R, J, C>(pixels, stride, channels, matrix, width, p, block, take);
  for (; R > 4 && !C && p + 4 <= count; p += 4)
    map_tile<T, C ? 1 : 4, J, C>(pixels, stride, channels, matrix, width, p, block, take);
  for (; R % 4 == 2 && p + 2 <= count; p += 2)
    map_tile<T, R % 4 == 2 ? 2 : 1, J, C>(pixels, stride, channels, matrix, width, p, block, take);
  for (; p < count; ++p)
    map_tile<T, 1, J, C>(pixels, stride, channels, matrix, width, p, block, take);
}

// All of C channels to C: the compiler is told their number.
template <class T, int C, class Take>
inline void map_known(const T* pixels, const T* matrix, long count, const Take& take) {
  constexpr int blocks = C / LANES<T>, J = blocks == 1 ? 1 : 2;
  for (long block = 0; block < blocks; block += J)
    map_block<T, J, C>(pixels, C, C, matrix, C, count, block, take);
}

// take(pixel, block, vector) for the products of `count` pixels [pixel][stride] with the matrix
// [channels][width]; `width` is a multiple of L.
template <class T, class Take>
inline void map_pixels(const T* pixels, long stride, long channels, const T* matrix, long width,
                       long count, const Take& take) {
  const long blocks = width / LANES<T>;
  long block = 0;
  if constexpr (TUNED<T>) {
    if (stride == channels && channels == width) {  // a search's
      if constexpr (LANES<T> <= 8) {
        if (channels == 8) return map_known<T, 8>(pixels, matrix, count, take);
      }
      if (channels == 16) return map_known<T, 16>(pixels, matrix, count, take);
      if (channels == 32) return map_known<T, 32>(pixels, matrix, count, take);
      if (channels == 64) return map_known<T, 64>(pixels, matrix, count, take);
    }
    if (blocks > 1 && blocks % 2) {
      map_block<T, 3, 0>(pixels, stride, channels, matrix, width, count, block, take);
      block = 3;
    }
    for (; block + 2 <= blocks; block += 2)
      map_block<T, 2, 0>(pixels, stride, channels, matrix, width, count, block, take);
  }
  for (; block < blocks; ++block)
    map_block<T, 1, 0>(pixels, stride, channels, matrix, width, count, block, take);
}

// The gradient of outputs [pixel][channels] as [pixel][width]: factor * gradient + slope * output +
// constant, by rows that are `width` wide. Slopes and output, and constants, may be null.
template <class T>
void output_gradient(const T* gradient, const T* output, const T* factors, const T* slopes,
                     const T* constants, long channels, long width, long count, T* to) {
  constexpr int L = LANES<T>;
  for (long c = 0; c < width; c += L) {
    const int lanes = static_cast<int>(std::min<long>(L, channels - c));
    const Vec<T> factor = load(factors + c), constant = constants ? load(constants + c) : Vec<T>{};
    if (!slopes) {
      for (long p = 0; p < count; ++p)
        store(to + p * width + c, factor * load(gradient + p * channels + c, lanes) + constant);
      continue;
    }
    const Vec<T> slope = load(slopes + c);
    for (long p = 0; p < count; ++p) {
      const long at = p * channels + c;
      ask_for(gradient + at + PIXELS_AHEAD * channels);
      ask_for(output + at + PIXELS_AHEAD * channels);
      store(to + p * width + c,
            factor * load(gradient + at, lanes) + (slope * load(output + at, lanes) + constant));
    }
  }
}

// A pointwise weight as [C in][width] (`transposed`: as [C out][width]); zero rows are not given.
template <class T>
void pack_rows(const Rows<T>& from, long channels, bool transposed, T* to) {
  const long width = blocks_of<T>(channels) * LANES<T>;
  if (width != channels || from.rows != channels) std::fill(to, to + channels * width, T(0));
  constexpr long L = LANES<T>;
  T* const first = to + from.first_row * (transposed ? width : 1);
  for (long start = 0; start < from.rows; start += L) {  // some rows, so that a column is one vector
    const long rows = std::min(L, from.rows - start);
    const T* data = from.data + start * channels;
    if (transposed) {
      for (long r = 0; r < rows; ++r)
        std::copy_n(data + r * channels, channels, first + (start + r) * width);
    } else if (rows == L) {
      for (long c = 0; c < channels; ++c) {
        for (long r = 0; r < L; ++r) first[c * width + start + r] = data[r * channels + c];
      }
    } else {
      for (long c = 0; c < channels; ++c) {
        for (long r = 0; r < rows; ++r) first[c * width + start + r] = data[r * channels + c];
      }
    }
  }
}

}  // namespace sgas
