// Depthwise convolutions of one image and one block of L channels: K x K taps, dilation D, stride S.
// The input is padded with zeros; weights are [K * K][L]. `row` is the distance of two rows.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "simd.h"

namespace sgas {

// Outputs of a row that are summed at once; compilers load ahead what their products take.
constexpr int OUTPUTS = FUSED ? 8 : 2;
template <class T>
constexpr int OUTPUTS_OF = TUNED<T> ? OUTPUTS : 2;

// R outputs of a row at once. At stride 1 a row of inputs is held while all its taps are taken, where
// there are registers for it beside the sums.
template <class T, int K, int D, int S, int R>
inline void gather_taps(const T* in, long row, const T* weight, Vec<T>* sum) {
  constexpr int L = LANES<T>;
  constexpr int reached = D * (K - 1) + R;
  constexpr int HELD = S == 1 && reached <= 16 && reached + R < Here::registers ? reached : 0;
  for (int kh = 0; kh < K; ++kh) {
    const T* from = in + kh * D * row;
    Vec<T> held[HELD + 1];
#pragma GCC unroll 16
    for (int i = 0; i < HELD; ++i) held[i] = load(from + i * L);
#pragma GCC unroll 7
    for (int kw = 0; kw < K; ++kw) {
      const Vec<T> tap = load(weight + (kh * K + kw) * L);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        sum[r] += tap * (HELD ? held[(r + kw * D) % (HELD + 1)] : load(from + (r * S + kw * D) * L));
    }
  }
}

// out[h][w] = sum of taps, or += with ADD. `pixel` is the distance of two pixels of the output.
template <class T, int K, int D, int S, bool ADD, int R>
inline void convolve_run(const T* in, long row, const T* weight, T* out, long pixel) {
  Vec<T> sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sum[r] = ADD ? load(out + r * pixel) : Vec<T>{};
  gather_taps<T, K, D, S, R>(in, row, weight, sum);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store(out + r * pixel, sum[r]);
}

template <class T, int K, int D, int S, bool ADD>
void convolve(const T* in, long row, const T* weight, T* out, long out_row, long pixel,
              long height, long width) {
  constexpr int L = LANES<T>;
  for (long h = 0; h < height; ++h) {
    const T* from = in + h * S * row;
    T* to = out + h * out_row;
    long w = 0;
    for (; w + OUTPUTS_OF<T> <= width; w += OUTPUTS_OF<T>)
      convolve_run<T, K, D, S, ADD, OUTPUTS_OF<T>>(from + w * S * L, row, weight, to + w * pixel, pixel);
    for (; OUTPUTS_OF<T> > 4 && w + 4 <= width; w += 4)
      convolve_run<T, K, D, S, ADD, (OUTPUTS_OF<T> > 4 ? 4 : 1)>(from + w * S * L, row, weight, to + w * pixel, pixel);
    for (; w < width; ++w)
      convolve_run<T, K, D, S, ADD, 1>(from + w * S * L, row, weight, to + w * pixel, pixel);
  }
}

// The transpose of convolve, for strides above 1: each gradient is spread over its taps.
template <class T, int K, int D, int S>
void spread(const T* gradient, long gradient_row, const T* weight, T* out, long row, long height,
            long width) {
  constexpr int L = LANES<T>;
  for (long h = 0; h < height; ++h) {
    for (int kh = 0; kh < K; ++kh) {
      T* to = out + (h * S + kh * D) * row;
      for (long w = 0; w < width; ++w) {
        const Vec<T> g = load(gradient + h * gradient_row + w * L);
#pragma GCC unroll 7
        for (int kw = 0; kw < K; ++kw) {
          T* at = to + (w * S + kw * D) * L;
          store(at, load(at) + g * load(weight + (kh * K + kw) * L));
        }
      }
    }
  }
}

// Sums a tap, so that fewer additions wait for the one before: two, where there are registers.
template <int K>
constexpr int SUMS = 2 * K + (FUSED ? 1 : 8) <= Here::registers ? 2 : 1;

// Adds to the sums of one row of taps the products of R gradients and the inputs they reach.
template <class T, int K, int D, int S, int R>
inline void add_products(const T* in, const T* gradient, Vec<T> (&sum)[SUMS<K>][K]) {
  constexpr int L = LANES<T>, reached = D * (K - 1) + R;
  constexpr int HELD = S == 1 && reached + SUMS<K> * K + (FUSED ? 1 : 3) <= Here::registers ? reached : 0;
  Vec<T> held[HELD + 1];
#pragma GCC unroll 16
  for (int i = 0; i < HELD; ++i) held[i] = load(in + i * L);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const Vec<T> g = load(gradient + r * L);
#pragma GCC unroll 7
    for (int kw = 0; kw < K; ++kw)
      sum[r % SUMS<K>][kw] += g * (HELD ? held[(r + kw * D) % (HELD + 1)] : load(in + (r * S + kw * D) * L));
  }
}

// sums[tap] += sum over pixels of gradient * input: the gradient of the weight. Some rows at a time,
// which stay in the cache while each row of taps is taken.
template <class T, int K, int D, int S>
void sum_taps(const T* in, long row, const T* gradient, long gradient_row, T* sums, long height,
              long width) {
  constexpr int L = LANES<T>;
  const long rows = std::max(1L, 64 / std::max(1L, width));
  for (long first = 0; first < height; first += rows) {
    const long last = std::min(height, first + rows);
    for (int kh = 0; kh < K; ++kh) {
      Vec<T> sum[SUMS<K>][K];
#pragma GCC unroll 7
      for (int kw = 0; kw < K; ++kw) {
        sum[0][kw] = load(sums + (kh * K + kw) * L);
        sum[SUMS<K> - 1][kw] = SUMS<K> == 1 ? sum[0][kw] : Vec<T>{};
      }
      for (long h = first; h < last; ++h) {
        const T *from = in + (h * S + kh * D) * row, *g = gradient + h * gradient_row;
        long w = 0;
        for (; FUSED && TUNED<T> && w + 4 <= width; w += 4)
          add_products<T, K, D, S, FUSED && TUNED<T> ? 4 : 1>(from + w * S * L, g + w * L, sum);
        for (; w < width; ++w) add_products<T, K, D, S, 1>(from + w * S * L, g + w * L, sum);
      }
#pragma GCC unroll 7
      for (int kw = 0; kw < K; ++kw) {
        const Vec<T> total = SUMS<K> == 1 ? sum[0][kw] : sum[0][kw] + sum[SUMS<K> - 1][kw];
        store(sums + (kh * K + kw) * L, total);
      }
    }
  }
}

template <int N>
using Constant = std::integral_constant<int, N>;

template <int K, class Call>
void with_constants(int dilation, int stride, Call call) {
  if (dilation == 1 && stride == 1) return call(Constant<K>{}, Constant<1>{}, Constant<1>{});
  if (dilation == 1) return call(Constant<K>{}, Constant<1>{}, Constant<2>{});
  if (stride == 1) return call(Constant<K>{}, Constant<2>{}, Constant<1>{});
  return call(Constant<K>{}, Constant<2>{}, Constant<2>{});
}

// Calls call(K, D, S) with the numbers as types; operators.cpp admits no others.
template <class Call>
void with_constants(int kernel, int dilation, int stride, Call call) {
  switch (kernel) {
    case 1:
      return with_constants<1>(1, stride, call);
    case 3:
      return with_constants<3>(dilation, stride, call);
    case 5:
      return with_constants<5>(dilation, stride, call);
    case 7:
      return with_constants<7>(dilation, stride, call);
  }
  throw std::logic_error("no such kernel size");
}

}  // namespace sgas
