// Many channels at once. A kernel's body is written once, for a Block of channels; `over_channels`
// runs it on blocks of two registers, then of one, then on the single channels that are left, so
// that any number of channels will do. GCC's vector types were 3 to 7 times faster here than loops
// that the compiler has to vectorise itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace sgas {

constexpr int64_t ROWS_AHEAD = 16;  // that are asked for
// A Zen 4 keeps few requests of the first cache under way: by the second, sums of columns took a
// third less time.
#ifdef SGAS_ZEN
constexpr int PREFETCHED_INTO = 2;  // the second cache, as __builtin_prefetch counts
#else
constexpr int PREFETCHED_INTO = 3;
#endif

// From so many bytes on, a result will not be in the cache any more when it is read.
constexpr int64_t STREAMED_BYTES = 1 << 20;

constexpr int REGISTER_BYTES = 64;  // of AVX-512; the compiler splits it where registers are smaller

template <class T>
struct RegisterOf {
  typedef T type __attribute__((vector_size(REGISTER_BYTES)));
};

// A vector that begins with a cache line, so that no register's load takes two of them.
template <class T>
struct OnALine {
  using value_type = T;
  static constexpr std::align_val_t line{REGISTER_BYTES};

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
  using Wide = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  using Integer = typename std::conditional_t<
      single, std::common_type<Wide>, RegisterOf<Wide>>::type;

  // Less zero, and not plus: that leaves every number as it is, so that no instruction is spent.
  static V fill(T value) { return value - V{}; }

  // a · b + c in one rounding also of single numbers, where the compiler may choose to part them.
  static V multiply_add(V a, V b, V c) {
#ifdef __FMA__
    if constexpr (single) return std::fma(a, b, c);
#endif
    return a * b + c;
  }

  // a > b ? a : b, so that b is taken where one of them is not a number. One instruction and not
  // two, and the next maximum waits for that alone.
  static V larger(V a, V b) {
#ifdef __AVX512F__
    if constexpr (!single && sizeof(V) == REGISTER_BYTES && sizeof(T) == 4) {
      return reinterpret_cast<V>(
          _mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
    } else if constexpr (!single && sizeof(V) == REGISTER_BYTES) {
      return reinterpret_cast<V>(
          _mm512_max_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b)));
    }
#endif
    return a > b ? a : b;
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
    if constexpr (!single) {
      for (int u = 0; u < count; u++) __builtin_prefetch(from + u * lanes, 0, PREFETCHED_INTO);
    }
  }

  static void store(T* to, int number, V value) {
    std::memcpy(to + number * lanes, &value, sizeof value);
  }

  // Stores past the caches what is not read again soon: without it a line is first read from
  // memory. The thread has to call `finish_streams` before others may read.
  static void stream(T* to, int number, V value) {
#ifdef __AVX512F__
    if constexpr (sizeof(V) == REGISTER_BYTES) {
      T* at = to + number * lanes;
      if (reinterpret_cast<uintptr_t>(at) % REGISTER_BYTES == 0) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(at), reinterpret_cast<__m512i>(value));
        return;
      }
    }
#endif
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

  // Whether a lane of a mask is set.
  static bool any(Mask mask) {
    if constexpr (single) {
      return mask;
    } else {
      int64_t parts[sizeof(V) / sizeof(int64_t)], found = 0;
      std::memcpy(parts, &mask, sizeof parts);
      for (const int64_t part : parts) found |= part;
      return found != 0;
    }
  }

  // A bit for each lane of a mask of registers, the first lane's the lowest.
  static uint32_t bits(Mask mask) {
    uint32_t found = 0;
#ifdef __AVX512F__
    if constexpr (sizeof(V) == REGISTER_BYTES) {
      const auto lanes_of = reinterpret_cast<__m512i>(mask);
      if constexpr (sizeof(T) == 4) return _mm512_test_epi32_mask(lanes_of, lanes_of);
      else return _mm512_test_epi64_mask(lanes_of, lanes_of);
    }
#endif
    for (int lane = 0; lane < lanes; lane++) found |= static_cast<uint32_t>(mask[lane] != 0) << lane;
    return found;
  }

  // The sum of all lanes, in an order that is the processor's and always the same.
  static T total(V value) {
    if constexpr (single) {
      return value;
    } else {
#ifdef __AVX512F__
      if constexpr (sizeof(V) == REGISTER_BYTES && sizeof(T) == 4) {
        return _mm512_reduce_add_ps(reinterpret_cast<__m512>(value));
      } else if constexpr (sizeof(V) == REGISTER_BYTES) {
        return _mm512_reduce_add_pd(reinterpret_cast<__m512d>(value));
      }
#endif
      T sum = 0;
      for (int lane = 0; lane < lanes; lane++) sum += value[lane];
      return sum;
    }
  }
};

// Asks for memory as Block::prefetch does.
template <class T>
inline void prefetch_numbers(const T* from, int64_t count) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += line) __builtin_prefetch(from + i, 0, PREFETCHED_INTO);
}

inline void finish_streams() {
#ifdef __AVX512F__
  _mm_sfence();
#endif
}

// Calls body(block, first channel) until all channels have had their turn.
template <class T, class Body>
inline void over_channels(int64_t channels, Body&& body) {
  using Register = typename RegisterOf<T>::type;
  using Two = Block<T, Register, 2>;
  using One = Block<T, Register, 1>;
  int64_t c = 0;
  for (; c + Two::width <= channels; c += Two::width) body(Two{}, c);
  for (; c + One::width <= channels; c += One::width) body(One{}, c);
  for (; c < channels; c++) body(Block<T, T, 1>{}, c);
}

}  // namespace sgas
