// Vectors as wide as a register of the processor that is compiled for, and all that kernels have to
// know of it. Both families' kernels are written once, for any Machine; no other file asks for one.
//
// A wider vector than a register would be taken apart by the compiler, its sums kept in memory; a
// tile of more sums than there are registers likewise.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sgas {

// A register's bytes, and how many of them there are.
template <int bytes_, int registers_>
struct Machine {
  static constexpr int bytes = bytes_, registers = registers_;
};
using Avx512 = Machine<64, 32>;
using Avx2 = Machine<32, 16>;
using Neon = Machine<16, 32>;
using Sse = Machine<16, 16>;

#if defined(__AVX512F__) && defined(__AVX512DQ__)
using Here = Avx512;
#elif defined(__AVX2__) && defined(__FMA__)
using Here = Avx2;
#elif defined(__aarch64__)
using Here = Neon;
#else
using Here = Sse;
#endif

// Of AMD's processors as `sgas.native` tells of them: products by these kernels are then faster than
// a library's for any matrix.
#ifdef SGAS_AMD
constexpr bool AMD = true;
#else
constexpr bool AMD = false;
#endif

// Whether a multiplication and an addition are one instruction with one rounding.
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool FUSED = true;
#else
constexpr bool FUSED = false;
#endif

template <class T, int bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};
template <class T, int bytes = Here::bytes>
using Vector = typename VectorOf<T, bytes>::type;

// How many numbers a register holds.
template <class T>
constexpr int LANES = Here::bytes / sizeof(T);

// Whether T has code of its own for many sizes. Searches compute in float32; by float64 they are
// checked, and it goes through small tiles alone, or it would take compilers as long again.
template <class T>
constexpr bool TUNED = sizeof(T) == 4;

// Rows of a tile of sums that is `columns` registers wide. Beside the sums, a register for each
// column and one for the number that multiplies them are in use, and without an instruction for both
// operations the products'; what compilers load ahead takes the rest.
template <int columns, class M = Here>
constexpr int tile_rows() {
  static_assert(columns >= 1 && columns <= 4);
  constexpr int many[] = {16, 8, 8, 4}, some[] = {12, 6, 4, 2}, few[] = {8, 4, 2, 2};
  constexpr int rows = M::bytes >= 64 ? many[columns - 1] : FUSED ? some[columns - 1] : few[columns - 1];
  static_assert((rows + 1) * columns + 1 <= M::registers);
  return rows;
}

// Integers as wide as T: what a comparison of vectors of T gives.
template <class T>
struct WideOf;
template <>
struct WideOf<float> {
  using type = int32_t;
};
template <>
struct WideOf<double> {
  using type = int64_t;
};

// What a processor does by an instruction of its own, for any that has none.
template <int bytes>
struct Portable {
  template <class T>
  using V = Vector<T, bytes>;
  template <class T>
  using Mask = Vector<typename WideOf<T>::type, bytes>;
  template <class T>
  static constexpr int lanes = bytes / sizeof(T);

  // a > b ? a : b, so that b is taken where one of them is not a number.
  template <class T>
  static V<T> larger(V<T> a, V<T> b) {
    return a > b ? a : b;
  }

  // The first `count` numbers, fewer than a register's; the others are zero and not read.
  template <class T>
  static V<T> load_first(const T* from, int count) {
    V<T> value = {};
    for (int i = 0; i < lanes<T> - 1; i++) {
      if (i < count) value[i] = from[i];
    }
    return value;
  }

  template <class T>
  static void store_first(T* to, V<T> value, int count) {
    for (int i = 0; i < lanes<T> - 1; i++) {
      if (i < count) to[i] = value[i];
    }
  }

  // Past the caches, where the processor can; `to` begins a register's line.
  template <class T>
  static void stream(T* to, V<T> value) {
    std::memcpy(to, &value, sizeof value);
  }
  static void finish_streams() {}

  // A bit for each lane that is set, the first lane's the lowest.
  template <class T>
  static uint32_t bits(Mask<T> mask) {
    uint32_t found = 0;
    for (int i = 0; i < lanes<T>; i++) found |= static_cast<uint32_t>(mask[i] != 0) << i;
    return found;
  }

  // The sum of all lanes, in an order that is always the same.
  template <class T>
  static T total(V<T> value) {
    T sum = 0;
    for (int i = 0; i < lanes<T>; i++) sum += value[i];
    return sum;
  }
};

template <int bytes>
struct Instructions : Portable<bytes> {};

#if defined(__AVX512F__)
template <>
struct Instructions<64> : Portable<64> {
  template <class T>
  static V<T> larger(V<T> a, V<T> b) {
    if constexpr (sizeof(T) == 4) return (V<T>)_mm512_max_ps((__m512)a, (__m512)b);
    else return (V<T>)_mm512_max_pd((__m512d)a, (__m512d)b);
  }
  template <class T>
  static V<T> load_first(const T* from, int count) {
    const uint32_t mask = (1u << count) - 1;
    if constexpr (sizeof(T) == 4) return (V<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
    else return (V<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), from);
  }
  template <class T>
  static void store_first(T* to, V<T> value, int count) {
    const uint32_t mask = (1u << count) - 1;
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), (__m512)value);
    else _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), (__m512d)value);
  }
  template <class T>
  static void stream(T* to, V<T> value) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)value);
  }
  static void finish_streams() { _mm_sfence(); }
  template <class T>
  static uint32_t bits(Mask<T> mask) {
    if constexpr (sizeof(T) == 4) return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
    else return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask);
  }
  template <class T>
  static T total(V<T> value) {
    if constexpr (sizeof(T) == 4) return _mm512_reduce_add_ps((__m512)value);
    else return _mm512_reduce_add_pd((__m512d)value);
  }
};
#endif

#if defined(__AVX2__)
template <>
struct Instructions<32> : Portable<32> {
  template <class T>
  static V<T> larger(V<T> a, V<T> b) {
    if constexpr (sizeof(T) == 4) return (V<T>)_mm256_max_ps((__m256)a, (__m256)b);
    else return (V<T>)_mm256_max_pd((__m256d)a, (__m256d)b);
  }
  // Lanes are taken where the highest bit is set.
  template <class T>
  static __m256i first(int count) {
    if constexpr (sizeof(T) == 4) {
      return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    } else {
      return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
    }
  }
  template <class T>
  static V<T> load_first(const T* from, int count) {
    if constexpr (sizeof(T) == 4) return (V<T>)_mm256_maskload_ps(from, first<T>(count));
    else return (V<T>)_mm256_maskload_pd(from, first<T>(count));
  }
  template <class T>
  static void store_first(T* to, V<T> value, int count) {
    if constexpr (sizeof(T) == 4) _mm256_maskstore_ps(to, first<T>(count), (__m256)value);
    else _mm256_maskstore_pd(to, first<T>(count), (__m256d)value);
  }
  template <class T>
  static void stream(T* to, V<T> value) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)value);
  }
  static void finish_streams() { _mm_sfence(); }
  template <class T>
  static uint32_t bits(Mask<T> mask) {
    if constexpr (sizeof(T) == 4) return _mm256_movemask_ps((__m256)mask);
    else return _mm256_movemask_pd((__m256d)mask);
  }
  template <class T>
  static T total(V<T> value) {
    if constexpr (sizeof(T) == 4) {
      __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)value), _mm256_extractf128_ps((__m256)value, 1));
      half = _mm_add_ps(half, _mm_movehl_ps(half, half));
      return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    } else {
      const __m128d half = _mm_add_pd(_mm256_castpd256_pd128((__m256d)value), _mm256_extractf128_pd((__m256d)value, 1));
      return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
    }
  }
};
#endif

#if defined(__x86_64__)
template <>
struct Instructions<16> : Portable<16> {
  template <class T>
  static V<T> larger(V<T> a, V<T> b) {
    if constexpr (sizeof(T) == 4) return (V<T>)_mm_max_ps((__m128)a, (__m128)b);
    else return (V<T>)_mm_max_pd((__m128d)a, (__m128d)b);
  }
  template <class T>
  static void stream(T* to, V<T> value) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)value);
  }
  static void finish_streams() { _mm_sfence(); }
  template <class T>
  static uint32_t bits(Mask<T> mask) {
    if constexpr (sizeof(T) == 4) return _mm_movemask_ps((__m128)mask);
    else return _mm_movemask_pd((__m128d)mask);
  }
};
#endif

using Does = Instructions<Here::bytes>;

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline void store(T* to, Vector<T> value) {
  std::memcpy(to, &value, sizeof value);
}

// The first `count` numbers of a vector; the others are zero.
template <class T>
inline Vector<T> load(const T* from, int count) {
  return count >= LANES<T> ? load(from) : Does::load_first<T>(from, count);
}

template <class T>
inline void store(T* to, Vector<T> value, int count) {
  if (count >= LANES<T>) store(to, value);
  else Does::store_first<T>(to, value, count);
}

template <class T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
  return Does::larger<T>(a, b);
}

// A number in all lanes. Less zero, and not plus: that leaves every number as it is, so that no
// instruction is spent.
template <class T>
inline Vector<T> fill(T value) {
  return value - Vector<T>{};
}

// Asks a cache for a line, as __builtin_prefetch counts them: 3 is the first, 2 the second. A Zen 4
// keeps few requests of the first under way: by the second, sums of columns took a third less time.
constexpr int LINE = 64;  // bytes
template <int cache = AMD ? 2 : 3>
inline void prefetch(const void* later) {
  __builtin_prefetch(later, 0, cache);
}

}  // namespace sgas
