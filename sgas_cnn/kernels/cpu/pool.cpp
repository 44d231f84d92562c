// Both poolings of 3 x 3 pixels (padding 1) at once, with their moments, and their gradients.
//
// The mean is over the pixels inside the image. Of equal pixels the first in the window takes the
// gradient of the largest.
#include <algorithm>
#include <limits>

#include "kernels.h"
#include "moments.h"
#include "simd.h"
#include "threads.h"

namespace sgas {
namespace {

// The pixels [first, last) of a window along one side.
struct Window {
  Window(long at, int stride, long side)
      : first(std::max(0L, at * stride - 1)), last(std::min(side, at * stride + 2)) {}
  const long first, last;
};

template <class T, class Use>
void for_windows(const Size& size, Use use) {
  for (long h = 0; h < size.out_height(); ++h) {
    const Window rows(h, size.stride, size.height);
    for (long w = 0; w < size.out_width(); ++w) {
      const Window columns(w, size.stride, size.width);
      const long count = (rows.last - rows.first) * (columns.last - columns.first);
      use(h * size.out_width() + w, rows, columns, T(1) / static_cast<T>(count));
    }
  }
}

// use(pixel) for the pixels of a window, in order; whole windows without loops.
template <class Use>
inline void for_pixels(Window rows, Window columns, long width, const Use& use) {
  if (rows.last - rows.first == 3 && columns.last - columns.first == 3) {
    const long first = rows.first * width + columns.first;
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) use(first + i / 3 * width + i % 3);
    return;
  }
  for (long h = rows.first; h < rows.last; ++h) {
    for (long w = columns.first; w < columns.last; ++w) use(h * width + w);
  }
}

template <class T, class Lanes>
void pool_image(const Size& size, const T* x, T* largest, T* average, long c, Lanes lanes) {
  const long channels = size.channels;
  if (!largest) {
    for_windows<T>(size, [&](long out, Window rows, Window columns, T share) {
      Vec<T> sum = {};
      for_pixels(rows, columns, size.width, [&](long pixel) { sum += load(x + pixel * channels + c, lanes); });
      store(average + out * channels + c, sum * share, lanes);
    });
    return;
  }
  const Vec<T> lowest = Vec<T>{} - std::numeric_limits<T>::infinity();
  for_windows<T>(size, [&](long out, Window rows, Window columns, T share) {
    Vec<T> top = lowest, sum = {};
    for_pixels(rows, columns, size.width, [&](long pixel) {
      const Vec<T> value = load(x + pixel * channels + c, lanes);
      top = (value > top) | (value != value) ? value : top;  // what is no number wins
      sum += value;
    });
    store(largest + out * channels + c, top, lanes);
    store(average + out * channels + c, sum * share, lanes);
  });
}

// Adds to the gradient `to` of image n what its windows give, for a block of channels.
template <class T, class Lanes>
void pool_block(const Size& size, const PoolBackward<T>& given, long n, long c, Lanes lanes, T* to) {
  const long channels = size.channels, out = size.out_height() * size.out_width() * channels;
  const T* x = given.x + n * size.height * size.width * channels + c;
  const Vec<T> zero = {};
  const Vec<T> slope = load(given.slopes + c, lanes), constant = load(given.constants + c, lanes);
  const Vec<T> mean_slope = load(given.slopes + channels + c, lanes);
  const Vec<T> mean_constant = load(given.constants + channels + c, lanes);
  for_windows<T>(size, [&](long pixel, Window rows, Window columns, T share) {
    const long at = n * out + pixel * channels + c;
    Vec<T> top = zero, left = zero, each = zero;
    if (given.largest_gradient) {
      top = load(given.largest + at, lanes);
      left = load(given.largest_gradient + at, lanes) + slope * top + constant;
    }
    if (given.average_gradient)
      each = (load(given.average_gradient + at, lanes) +
              mean_slope * load(given.average + at, lanes) + mean_constant) * share;
    if (!given.largest_gradient) {
      for_pixels(rows, columns, size.width, [&](long in) {
        T* reached = to + in * channels + c;
        store(reached, load(reached, lanes) + each, lanes);
      });
      return;
    }
    for_pixels(rows, columns, size.width, [&](long in) {
      T* reached = to + in * channels + c;
      const auto hit = load(x + in * channels, lanes) == top;
      store(reached, load(reached, lanes) + each + (hit ? left : zero), lanes);
      left = hit ? zero : left;
    });
  });
}

}  // namespace

template <class T>
void pool(const Size& size, const T* x, T* largest, T* average, Moments<T> moments) {
  const long channels = size.channels, pixels = size.out_height() * size.out_width();
  const long in = size.height * size.width * channels, out = pixels * channels;
  ImageMoments found(moments.mean ? 2 : 0, size.images, channels);
  share_images(size.images, num_workers(size.images), [&](long, long first, long last) {
    for (long n = first; n < last; ++n) {
      T* pooled[2] = {largest ? largest + n * out : nullptr, average + n * out};
      for_blocks<T>(channels, [&](long c, auto lanes) {
        pool_image(size, x + n * in, pooled[0], pooled[1], c, lanes);
      });
      for (long i = 0; moments.mean && i < 2; ++i) found.add(i, n, pooled[i], pixels);
    }
  });
  for (long i = 0; moments.mean && i < 2; ++i)
    found.give_out(i, pixels, moments.mean + i * channels, moments.variance + i * channels);
}

template <class T>
void pool_backward(const Size& size, const PoolBackward<T>& given, T* gradient) {
  const long channels = size.channels, in = size.height * size.width * channels;
  share_images(size.images, num_workers(size.images), [&](long, long first, long last) {
    for (long n = first; n < last; ++n) {
      T* to = gradient + n * in;
      if (given.added)
        std::memcpy(to, given.added + n * in, in * sizeof(T));
      else
        std::memset(to, 0, in * sizeof(T));
      for_blocks<T>(channels, [&](long c, auto lanes) { pool_block(size, given, n, c, lanes, to); });
    }
  });
}

template void pool(const Size&, const float*, float*, float*, Moments<float>);
template void pool(const Size&, const double*, double*, double*, Moments<double>);
template void pool_backward(const Size&, const PoolBackward<float>&, float*);
template void pool_backward(const Size&, const PoolBackward<double>&, double*);

}  // namespace sgas
