// Separable convolutions of an image: weights in the order of vectors, taps * u, W (taps * u).
#pragma once

#include <vector>

#include "kernels.h"
#include "padded.h"
#include "pointwise.h"
#include "taps.h"

namespace sgas {

// Rows of an image that are taken at once: few enough for the cache, and for sums in float.
template <class T>
inline long rows_at_once(const Size& size, long width) {
  const long pixels = std::clamp(16384L / static_cast<long>(width * sizeof(T)), 32L, 256L);
  return std::clamp(pixels / std::max(1L, size.out_width()), 1L, std::max(1L, size.out_height()));
}

// What all workers read of separable convolutions; `transposed` as a pointwise backward reads it.
template <class T>
struct Bank {
  Bank(const Separable<T>& given, bool transposed)
      : width(blocks_of<T>(given.size.channels) * LANES<T>),
        rows(rows_at_once<T>(given.size, width)),
        scales(padded_rows(given.scales, given.taps.size(), given.size.channels)),
        shifts(padded_rows(given.shifts, given.taps.size(), given.size.channels)),
        weights_(pack_all_taps(given, false)),
        matrices_(given.taps.size() * given.size.channels * width), matrix_(given.size.channels * width) {
    long taps = 0;
    for (std::size_t i = 0; i < given.taps.size(); ++i) {
      first_tap_.push_back(taps);
      taps += given.taps[i].kernel * given.taps[i].kernel;
      pack_rows(given.pointwise[i], given.size.channels, transposed, matrices_.get() + i * matrix_);
    }
  }

  // The taps of all convolutions, one behind the other.
  static Buffer<T> pack_all_taps(const Separable<T>& given, bool flipped) {
    const long channels = given.size.channels, width = blocks_of<T>(channels) * LANES<T>;
    long total = 0;
    for (const Taps& taps : given.taps) total += taps.kernel * taps.kernel;
    Buffer<T> all(total * width);
    T* to = all.get();
    for (std::size_t i = 0; i < given.taps.size(); ++i) {
      const int taps = given.taps[i].kernel * given.taps[i].kernel;
      pack_taps(given.weights[i], channels, taps, flipped, to);
      to += taps * width;
    }
    return all;
  }

  // Where the taps of a convolution stand among all, and they, and its pointwise weight.
  long first_tap(long i) const { return first_tap_[i] * width; }
  const T* taps(long i) const { return weights_.get() + first_tap(i); }
  const T* matrix(long i) const { return matrices_.get() + i * matrix_; }

  // u of image n: R(x), or R(scale * x + shift) of convolution i.
  void fill_input(const Separable<T>& given, long i, long n, Padded<T>& input) const {
    constexpr int L = LANES<T>;
    const long channels = given.size.channels;
    const T* image = given.inputs[i] + n * given.size.height * given.size.width * channels;
    if (given.shared()) {
      input.fill(image, channels, [](Vec<T> value, long) { return relu<T>(value); });
      return;
    }
    const T *scale = scales.get() + i * width, *shift = shifts.get() + i * width;
    input.fill(image, channels, [&](Vec<T> value, long b) {
      return relu<T>(load(scale + b * L) * value + load(shift + b * L));
    });
  }

  const long width, rows;
  const Buffer<T> scales, shifts;

 private:
  const Buffer<T> weights_;
  Buffer<T> matrices_;
  const long matrix_;
  std::vector<long> first_tap_;
};

// Rows [first, first + rows) of taps * u, as pixels [width].
template <class T>
void convolve_rows(const Taps& taps, const Size& size, Padded<T>& input, const T* weights,
                   long first, long rows, T* to, long width) {
  constexpr int L = LANES<T>;
  const long start = start_of(taps), at = first * size.stride + start;
  const int count = taps.kernel * taps.kernel;
  for (long b = 0; b < input.blocks; ++b) {
    with_constants(taps.kernel, taps.dilation, size.stride, [&](auto k, auto d, auto s) {
      convolve<T, k, d, s, false>(input.at(b, at, start), input.row, weights + b * count * L,
                                  to + b * L, size.out_width() * width, width, rows,
                                  size.out_width());
    });
  }
}

// One image of W (taps * u) of convolution i: take(at, block, lanes, y) for vectors of L channels, of
// which `lanes` are there, `at` places from the start of the image [H][W][C].
template <class T, class Take>
void convolve_image(const Separable<T>& given, const Bank<T>& bank, long i, Padded<T>& input,
                    T* scratch, const Take& take) {
  constexpr int L = LANES<T>;
  const Size& size = given.size;
  const long channels = size.channels, width = bank.width, row = size.out_width();
  const long last = width / L - 1;
  const int left = static_cast<int>(channels - last * L);
  for (long h = 0; h < size.out_height(); h += bank.rows) {
    const long rows = std::min(bank.rows, size.out_height() - h);
    convolve_rows(given.taps[i], size, input, bank.taps(i), h, rows, scratch, width);
    map_pixels(scratch, width, channels, bank.matrix(i), width, rows * row,
               [&](long pixel, long block, Vec<T> y) {
                 take((h * row + pixel) * channels + block * L, block, block < last ? L : left, y);
               });
  }
}

}  // namespace sgas
