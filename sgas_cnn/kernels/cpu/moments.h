// Means and variances of the channels of many images, from those of each (Chan et al., 1983).
#pragma once

#include <algorithm>
#include <vector>

#include "simd.h"

namespace sgas {

// Sum of use(pixel's vector) over pixels. Four sums, so that no addition waits for the one before.
// Asks for pixels so many `ahead`, if any.
template <long ahead = 0, class T, class Use>
inline Vec<T> sum_pixels(const T* image, long stride, long pixels, int lanes, Use use) {
  Vec<T> sums[4] = {};
  long p = 0;
  if (lanes == LANES<T>) {
    for (; p + 4 <= pixels; p += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        if constexpr (ahead > 0) ask_for(image + (p + i + ahead) * stride);
        sums[i] += use(load(image + (p + i) * stride));
      }
    }
  }
  for (; p < pixels; ++p) sums[0] += use(load(image + p * stride, lanes));
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The mean of each image's pixels and the sum of squared deviations from it, for `sets` of images.
// Deviations from a mean near by keep their digits where |mean| is large beside them.
class ImageMoments {
 public:
  ImageMoments(long sets, long images, long channels)
      : images_(images), channels_(channels), means_(sets * images * channels),
        squares_(sets * images * channels) {}

  // The mean that is found first is rounded; the sum of deviations from it puts both right.
  template <class T>
  void add(long set, long n, const T* image, long pixels) {
    constexpr int L = LANES<T>;
    for (long c = 0; c < channels_; c += L) {
      const int lanes = static_cast<int>(std::min<long>(L, channels_ - c));
      const T* from = image + c;
      const Vec<T> middle = sum_pixels(from, channels_, pixels, lanes, [](Vec<T> v) { return v; }) /
                            static_cast<T>(pixels);
      Vec<T> sums[2] = {}, squares[2] = {};
      long p = 0;
      if (lanes == L) {
        for (; p + 2 <= pixels; p += 2) {
#pragma GCC unroll 2
          for (int i = 0; i < 2; ++i) {
            const Vec<T> apart = load(from + (p + i) * channels_) - middle;
            sums[i] += apart;
            squares[i] += apart * apart;
          }
        }
      }
      for (; p < pixels; ++p) {
        const Vec<T> apart = load(from + p * channels_, lanes) - middle;
        sums[0] += apart;
        squares[0] += apart * apart;
      }
      const Vec<T> sum = sums[0] + sums[1], square = squares[0] + squares[1];
      for (int i = 0; i < lanes; ++i) {
        const long at = (set * images_ + n) * channels_ + c + i;
        const double off = static_cast<double>(sum[i]) / static_cast<double>(pixels);
        means_[at] = middle[i] + off;
        squares_[at] = square[i] - off * sum[i];
      }
    }
  }

  // Mean and biased variance [C] of all images of a set.
  template <class T>
  void give_out(long set, long pixels, T* mean, T* variance) const {
    const double count = static_cast<double>(pixels), images = static_cast<double>(images_);
    for (long c = 0; c < channels_; ++c) {
      double middle = 0, sum = 0;
      for (long n = 0; n < images_; ++n) middle += means_[(set * images_ + n) * channels_ + c];
      middle = images_ ? middle / images : 0;
      for (long n = 0; n < images_; ++n) {
        const long at = (set * images_ + n) * channels_ + c;
        const double apart = means_[at] - middle;
        sum += squares_[at] + count * apart * apart;
      }
      mean[c] = static_cast<T>(middle);
      variance[c] = static_cast<T>(images_ ? sum / (count * images) : 0);
    }
  }

 private:
  const long images_, channels_;
  std::vector<double> means_, squares_;
};

}  // namespace sgas
