// An image as the depthwise kernels read it: blocks of L channels, each padded with zeros.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "simd.h"

namespace sgas {

template <class T>
class Padded {
 public:
  Padded(long height, long width, long channels, long border)
      : height(height), width(width), border(border), row((width + 2 * border) * LANES<T>),
        block((height + 2 * border) * row), blocks(blocks_of<T>(channels)),
        memory_(blocks * block) {
    memory_.zero(blocks * block);
  }

  // Pixel (h, w) of a block; from -border on.
  T* at(long b, long h, long w) {
    return memory_.get() + b * block + (h + border) * row + (w + border) * LANES<T>;
  }

  void clear() { memory_.zero(blocks * block); }

  // Fills the inside with change(vector, block) of `image` [height][width][channels].
  template <class Change>
  void fill(const T* image, long channels, Change change) {
    constexpr int L = LANES<T>;
    for (long b = 0; b < blocks; ++b) {
      const int lanes = static_cast<int>(std::min<long>(L, channels - b * L));
      for (long h = 0; h < height; ++h) {
        const T* from = image + h * width * channels + b * L;
        T* to = at(b, h, 0);
        if (lanes == L) {
          for (long w = 0; w < width; ++w) {
            ask_for(from + (w + PIXELS_AHEAD) * channels);
            store(to + w * L, change(load(from + w * channels), b));
          }
        } else {
          for (long w = 0; w < width; ++w)
            store(to + w * L, change(load(from + w * channels, lanes), b));
        }
      }
    }
  }

  const long height, width, border, row, block, blocks;

 private:
  Buffer<T> memory_;
};

// `rows` of `columns` numbers, with zeros up to the next multiple of L; null gives none.
template <class T>
Buffer<T> padded_rows(const T* from, long rows, long columns) {
  const long width = blocks_of<T>(columns) * LANES<T>;
  Buffer<T> to(from ? rows * width : 0);
  for (long r = 0; from && r < rows; ++r) {
    std::copy(from + r * columns, from + (r + 1) * columns, to.get() + r * width);
    std::fill(to.get() + r * width + columns, to.get() + (r + 1) * width, T(0));
  }
  return to;
}

// Weights [C][K * K] as [block][K * K][L], the taps in reverse order where `flipped`.
template <class T>
void pack_taps(const T* from, long channels, int taps, bool flipped, T* to) {
  constexpr long L = LANES<T>;
  if (!from) return std::fill(to, to + blocks_of<T>(channels) * taps * L, T(1));
  for (long b = 0; b < channels; b += L) {
    const long lanes = std::min(L, channels - b);
    for (int t = 0; t < taps; ++t, to += L) {
      const T* tap = from + b * taps + (flipped ? taps - 1 - t : t);
      if (lanes == L) {
        for (long i = 0; i < L; ++i) to[i] = tap[i * taps];
      } else {
        for (long i = 0; i < L; ++i) to[i] = i < lanes ? tap[i * taps] : T(0);
      }
    }
  }
}

// How far the taps reach beyond the image.
inline long border_of(const std::vector<Taps>& all) {
  long border = 0;
  for (const Taps& taps : all)
    border = std::max<long>(border, taps.dilation * (taps.kernel / 2) + taps.offset);
  return border;
}

// The pixel of the padded input where the taps of output (0, 0) begin.
inline long start_of(const Taps& taps) { return taps.offset - taps.dilation * (taps.kernel / 2); }

}  // namespace sgas
