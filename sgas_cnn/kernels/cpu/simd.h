// Vectors of 64 bytes (one AVX-512 register, two of AVX2, four of NEON) and how they meet memory.
// L stands for the lanes of a vector: 16 of float, 8 of double.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace sgas {

template <class T>
struct Simd;
template <>
struct Simd<float> {
  typedef float Type __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct Simd<double> {
  typedef double Type __attribute__((vector_size(64), aligned(8), may_alias));
};

template <class T>
using Vec = typename Simd<T>::Type;

template <class T>
constexpr int LANES = 64 / sizeof(T);

template <class T>
inline long blocks_of(long channels) {
  return (channels + LANES<T> - 1) / LANES<T>;
}

template <class T>
inline Vec<T> load(const T* from) {
  return *reinterpret_cast<const Vec<T>*>(from);
}

template <class T>
inline void store(T* to, Vec<T> value) {
  *reinterpret_cast<Vec<T>*>(to) = value;
}

// The first `lanes` of a vector; the others are zero.
template <class T>
inline Vec<T> load(const T* from, int lanes) {
  if (lanes >= LANES<T>) return load(from);
#ifdef __AVX512F__  // what a mask leaves out is neither read nor written
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1), from);
  else
    return (Vec<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << lanes) - 1), from);
#else
  Vec<T> value = {};
  for (int i = 0; i < lanes; ++i) value[i] = from[i];
  return value;
#endif
}

template <class T>
inline void store(T* to, Vec<T> value, int lanes) {
  if (lanes >= LANES<T>) {
    store(to, value);
    return;
  }
#ifdef __AVX512F__
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << lanes) - 1), (__m512)value);
  else
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << lanes) - 1), (__m512d)value);
#else
  for (int i = 0; i < lanes; ++i) to[i] = value[i];
#endif
}

constexpr long PIXELS_AHEAD = 64;  // that are asked for

// Asks for what is read some pixels later. A kernel that reads many images by turns is ahead of what
// the processor follows by itself; so is each turn of a page.
template <class T>
inline void ask_for(const T* later) {
  __builtin_prefetch(later, 0, 2);
}

// As torch's: a number that is none stays none.
template <class T>
inline Vec<T> relu(Vec<T> value) {
  const Vec<T> zero = {};
  return value < zero ? zero : value;
}

template <class T>
inline Vec<T> where_positive(Vec<T> input, Vec<T> gradient) {
  const Vec<T> zero = {};
  return input <= zero ? zero : gradient;
}

// Sums are kept in double, so that their error does not grow with the number of images.
template <class T>
inline void add_to(double* sums, Vec<T> value) {
  constexpr int D = LANES<double>;
  typedef T Part __attribute__((vector_size(D * sizeof(T))));
  typedef double Wide __attribute__((vector_size(D * sizeof(double))));
  for (int i = 0; i < LANES<T>; i += D) {
    Part part;
    std::memcpy(&part, reinterpret_cast<const T*>(&value) + i, sizeof(part));
    const Wide wide = __builtin_convertvector(part, Wide);
    store(sums + i, load(sums + i) + wide);
  }
}

// Memory that begins at a vector's boundary; not initialised.
template <class T>
class Buffer {
 public:
  explicit Buffer(long size) {
    const std::size_t bytes = (size * sizeof(T) + 127) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
  }
  T* get() { return data_.get(); }
  const T* get() const { return data_.get(); }
  void zero(long size) { std::memset(data_.get(), 0, size * sizeof(T)); }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace sgas
