// Many channels at once. A kernel's body is written once, for a Block of channels; `over_channels`
// runs it on blocks of some registers, then of one, then on the single channels that are left, so
// that any number of channels will do. GCC's vector types were 3 to 7 times faster here than loops
// that the compiler has to vectorise itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace sgas {

constexpr int64_t ROWS_AHEAD = 16;  // that are asked for

// From so many bytes on, a result will not be in the cache any more when it is read.
constexpr int64_t STREAMED_BYTES = 1 << 20;

// A vector that begins with a cache line, so that no register's load takes two of them.
template <class T>
struct OnALine {
  using value_type = T;
  static constexpr std::align_val_t line{LINE};

  OnALine() = default;
  template <class Other>
  OnALine(const OnALine<Other>&) {}

  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
  void deallocate(T* at, size_t) { ::operator delete(at, line); }
  bool operator==(const OnALine&) const { return true; }
  bool operator!=(const OnALine&) const { return false; }
};
template <class T>
using Numbers = std::vector<T, OnALine<T>>;

// Asks for the lines that some numbers stand in.
template <class T>
inline void prefetch_numbers(const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += LINE / sizeof(T)) prefetch(from + i);
}

// `count` values of type V, each a register of numbers T or a single one.
template <class T, class V, int count_>
struct Block {
  using Value = V;
  using Mask = decltype(V{} > V{});
  static constexpr bool single = std::is_same_v<T, V>;
  static constexpr int count = count_;
  static constexpr int lanes = sizeof(V) / sizeof(T);
  static constexpr int width = count * lanes;
  // An integer for each lane, as wide as T: what a Mask selects between.
  using Wide = typename WideOf<T>::type;
  using Integer = std::conditional_t<single, Wide, Vector<Wide>>;

  static V fill(T value) {
    if constexpr (single) return value;
    else return sgas::fill(value);
  }

  // a · b + c in one rounding also of single numbers, where the compiler may choose to part them.
  static V multiply_add(V a, V b, V c) {
    if constexpr (single && FUSED) return std::fma(a, b, c);
    else return a * b + c;
  }

  // a > b ? a : b, so that b is taken where one of them is not a number. One instruction and not
  // two, and the next maximum waits for that alone.
  static V larger(V a, V b) {
    if constexpr (single) return a > b ? a : b;
    else return sgas::larger<T>(a, b);
  }

  static Integer fill_integer(int32_t value) { return Integer{} + static_cast<Wide>(value); }

  static V load(const T* from, int number) {
    V value;
    std::memcpy(&value, from + number * lanes, sizeof value);
    return value;
  }

  // Asks for what will be read some rows later. Where a core reads alone, the memory gave up to
  // twice as much by it as by the processor's own guesses.
  static void prefetch(const T* from) {
    if constexpr (!single) prefetch_numbers(from, width);
  }

  static void store(T* to, int number, V value) {
    std::memcpy(to + number * lanes, &value, sizeof value);
  }

  // Stores past the caches what is not read again soon: without it a line is first read from
  // memory. The thread has to call `finish_streams` before others may read.
  static void stream(T* to, int number, V value) {
    if constexpr (!single) {
      T* at = to + number * lanes;
      if (reinterpret_cast<uintptr_t>(at) % sizeof value == 0) return Does::stream<T>(at, value);
    }
    store(to, number, value);
  }

  // Integers in memory may be narrower (Small) than those of a register.
  template <class Small>
  static Integer load_integer(const Small* from, int number) {
    if constexpr (single) {
      return from[number];
    } else {
      Lanes<Small> value;
      std::memcpy(&value, from + number * lanes, sizeof value);
      return convert<Wide>(value);
    }
  }

  template <class Small>
  static void store_integer(Small* to, int number, Integer value) {
    if constexpr (single) {
      to[number] = static_cast<Small>(value);
    } else {
      const Lanes<Small> small = convert<Small>(value);
      std::memcpy(to + number * lanes, &small, sizeof small);
    }
  }

  // As many integers as there are lanes, of any type.
  template <class I>
  struct LanesOf {
    typedef I type __attribute__((vector_size(lanes * sizeof(I))));
  };
  template <class I>
  using Lanes = typename LanesOf<I>::type;

  // The integers in another type. One doubling or halving at a time: GCC has instructions for
  // these, and takes wider steps lane by lane.
  template <class To, class From>
  static Lanes<To> convert(From value) {
    constexpr int from = sizeof(value) / lanes, to = sizeof(To);
    if constexpr (from < to / 2) {
      using Next = std::conditional_t<from == 1, uint16_t, int32_t>;
      return convert<To>(__builtin_convertvector(value, Lanes<Next>));
    } else if constexpr (from > to * 2) {
      using Next = std::conditional_t<from == 8, int32_t, uint16_t>;
      return convert<To>(__builtin_convertvector(value, Lanes<Next>));
    } else {
      return __builtin_convertvector(value, Lanes<To>);
    }
  }

  // A bit for each lane of a mask of registers, the first lane's the lowest.
  static uint32_t bits(Mask mask) {
    if constexpr (single) return mask;
    else return Does::bits<T>(mask);
  }

  // The sum of all lanes, in an order that is the processor's and always the same.
  static T total(V value) {
    if constexpr (single) return value;
    else return Does::total<T>(value);
  }
};

inline void finish_streams() { Does::finish_streams(); }

// Registers of a block for bodies that keep few of them for each of its own: 128 bytes where there
// are as many, so that a walk over edges serves many channels.
constexpr int WIDE = Here::bytes >= 64 ? 2 : 4;

// Calls body(block, first channel) until all channels have had their turn.
template <class T, int most = 2, class Body>
inline void over_channels(int64_t channels, Body&& body) {
  using Most = Block<T, Vector<T>, most>;
  using Two = Block<T, Vector<T>, 2>;
  using One = Block<T, Vector<T>, 1>;
  int64_t c = 0;
  if constexpr (TUNED<T>) {
    for (; c + Most::width <= channels; c += Most::width) body(Most{}, c);
    for (; most > 2 && c + Two::width <= channels; c += Two::width) body(Two{}, c);
  }
  for (; c + One::width <= channels; c += One::width) body(One{}, c);
  for (; c < channels; c++) body(Block<T, T, 1>{}, c);
}

}  // namespace sgas
