// What kernels of images do with vectors. L stands for the lanes of one.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "vectors.h"

namespace sgas {

template <class T>
using Vec = Vector<T>;

template <class T>
inline long blocks_of(long channels) {
  return (channels + LANES<T> - 1) / LANES<T>;
}

// use(c, lanes) for blocks of channels; whole ones have their lanes as a constant.
template <class T, class Use>
void for_blocks(long channels, const Use& use) {
  constexpr int L = LANES<T>;
  long c = 0;
  for (; c + L <= channels; c += L) use(c, std::integral_constant<int, L>{});
  if (c < channels) use(c, static_cast<int>(channels - c));
}

constexpr long PIXELS_AHEAD = 64;  // that are asked for

// Asks for what is read some pixels later. A kernel that reads many images by turns is ahead of what
// the processor follows by itself; so is each turn of a page.
template <class T>
inline void ask_for(const T* later) {
  prefetch<2>(later);
}

// As torch's: a number that is none stays none.
template <class T>
inline Vec<T> relu(Vec<T> value) {
  return larger<T>(Vec<T>{}, value);
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
  for (int i = 0; i < LANES<T>; i += D) {
    Part part;
    std::memcpy(&part, reinterpret_cast<const T*>(&value) + i, sizeof(part));
    if constexpr (sizeof(part) >= 16) {
      store(sums + i, load(sums + i) + __builtin_convertvector(part, Vector<double>));
    } else {  // less than a register, which compilers take apart
      for (int d = 0; d < D; ++d) sums[i + d] += part[d];
    }
  }
}

// Memory that begins with a cache line; not initialised.
template <class T>
class Buffer {
 public:
  explicit Buffer(long size) {
    const std::size_t bytes = (size * sizeof(T) + 2 * LINE - 1) / LINE * LINE;
    data_.reset(static_cast<T*>(std::aligned_alloc(LINE, bytes)));
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
