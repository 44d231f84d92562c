// Sums over pixels of the products of two sets of channels: a' b, and Gram matrices of channels.
#pragma once

#include <algorithm>

#include "simd.h"

namespace sgas {

// Pixels whose channels are taken at once: few enough for the cache, and for sums in float.
template <class T>
inline long chunk_of(long width) {
  return std::clamp(32768L / static_cast<long>(width * sizeof(T)), 32L, 256L);
}

// I rows and J blocks of columns.
template <class T, int I, int J>
inline void cross_tile(const T* a, const T* b, long width, long pixels, double* sums) {
  constexpr int L = LANES<T>;
  Vec<T> sum[I][J] = {};
  for (long p = 0; p < pixels; ++p) {
    Vec<T> column[J];
#pragma GCC unroll 2
    for (int j = 0; j < J; ++j) column[j] = load(b + p * width + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < I; ++i) {
      const T value = a[p * width + i];
#pragma GCC unroll 2
      for (int j = 0; j < J; ++j) sum[i][j] += value * column[j];
    }
  }
  for (int i = 0; i < I; ++i) {
    for (int j = 0; j < J; ++j) add_to<T>(sums + i * width + j * L, sum[i][j]);
  }
}

// sums[i][j] += a[p][i] * b[p][j] over pixels; all are `width` wide, a multiple of L. With `upper`
// entries below the diagonal may be left out.
template <class T>
inline void add_cross(const T* a, const T* b, long width, long pixels, bool upper, double* sums) {
  constexpr int L = LANES<T>;
  const long blocks = width / L;
  if (blocks == 1) {
    for (long i = 0; i < width; i += L) cross_tile<T, L, 1>(a + i, b, width, pixels, sums + i * width);
    return;
  }
  for (long i = 0; i < width; i += 8) {
    for (long block = upper ? i / L / 2 * 2 : 0; block < blocks; block += 2) {
      double* to = sums + i * width + block * L;
      if (block + 1 < blocks)
        cross_tile<T, 8, 2>(a + i, b + block * L, width, pixels, to);
      else
        cross_tile<T, 8, 1>(a + i, b + block * L, width, pixels, to);
    }
  }
}

// to [pixels][width] = from [pixels][channels] - shift [width] (or as it is), zero beyond.
template <class T>
inline void pack_pixels(const T* from, long channels, long pixels, const T* shift, long width,
                        T* to) {
  constexpr int L = LANES<T>;
  for (long c = 0; c < width; c += L) {
    const int lanes = static_cast<int>(std::min<long>(L, channels - c));
    const Vec<T> minus = shift ? load(shift + c) : Vec<T>{};
    if (lanes == L) {
      for (long p = 0; p < pixels; ++p) store(to + p * width + c, load(from + p * channels + c) - minus);
    } else {
      for (long p = 0; p < pixels; ++p)
        store(to + p * width + c, load(from + p * channels + c, lanes) - minus);
    }
  }
}

// Adds the moments of one image [pixels][channels]: a rounded mean [width], the sums of deviations
// from it, and to `sums` [width][width] (upper part) their products. Deviations from a mean near
// by keep their digits where |mean| is large beside them.
template <class T>
inline void add_moments(const T* image, long channels, long pixels, long width, T* scratch, T* mean,
                        double* off, double* sums) {
  constexpr int L = LANES<T>;
  for (long c = 0; c < width; c += L) {
    const int lanes = static_cast<int>(std::min<long>(L, channels - c));
    Vec<T> even = {}, odd = {};
    long p = 0;
    if (lanes == L) {
      for (; p + 2 <= pixels; p += 2) {
        even += load(image + p * channels + c);
        odd += load(image + (p + 1) * channels + c);
      }
    }
    for (; p < pixels; ++p) even += load(image + p * channels + c, lanes);
    store(mean + c, (even + odd) / static_cast<T>(pixels));
    for (int i = 0; i < L; ++i) off[c + i] = 0;
  }
  const long chunk = chunk_of<T>(width);
  for (long p = 0; p < pixels; p += chunk) {
    const long count = std::min(chunk, pixels - p);
    pack_pixels(image + p * channels, channels, count, mean, width, scratch);
    add_cross(scratch, scratch, width, count, true, sums);
    for (long c = 0; c < width; c += L) {
      Vec<T> sum = {};
      for (long i = 0; i < count; ++i) sum += load(scratch + i * width + c);
      add_to<T>(off + c, sum);
    }
  }
}

}  // namespace sgas
