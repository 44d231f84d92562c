// A pointwise convolution of R(x) that changes the number of channels, its moments and gradients.
//
//   y = W R(x) + bias;  z = factor * g + slope * y + constant, the gradient of y;
//   dx = [x > 0] W' z,  dW = sum z R(x)'.
//
// Image by image and some pixels at a time: R(x) and z never leave the cache.
#include <memory>

#include "cross.h"
#include "kernels.h"
#include "moments.h"
#include "padded.h"
#include "pointwise.h"
#include "threads.h"

namespace sgas {
namespace {

// How many pixels of R(x) take so many bytes. On the way back more, since their sums in registers are
// added to those in memory once.
template <class T>
long pixels_at_once(long width, long bytes) {
  return std::clamp(bytes / static_cast<long>(width * sizeof(T)), 16L, 256L);
}

// R(x) of some pixels [channels], as [pixel][width].
template <class T>
void rectify(const T* x, long channels, long width, long count, T* to) {
  constexpr int L = LANES<T>;
  for (long p = 0; p < count; ++p) {
    for (long c = 0; c < width; c += L) {
      const int lanes = static_cast<int>(std::min<long>(L, channels - c));
      store(to + p * width + c, relu<T>(load(x + p * channels + c, lanes)));
    }
  }
}

// A vector of L channels of a pixel [channels], of which the last may be fewer.
template <class T>
void store_block(T* pixel, long channels, long block, Vec<T> value) {
  const long c = block * LANES<T>;
  store(pixel + c, value, static_cast<int>(std::min<long>(LANES<T>, channels - c)));
}

}  // namespace

template <class T>
void projection(const Projection<T>& given, T* output, Moments<T> moments) {
  const long in = given.in_channels, channels = given.channels, pixels = given.pixels;
  const long in_width = blocks_of<T>(in) * LANES<T>, width = blocks_of<T>(channels) * LANES<T>;
  const long at_once = pixels_at_once<T>(in_width, 16384);
  Buffer<T> matrix(in * width);
  matrix.zero(in * width);
  for (long r = 0; r < channels; ++r) {
    for (long c = 0; c < in; ++c) matrix.get()[c * width + r] = given.weight[r * in + c];
  }
  const Buffer<T> bias = padded_rows(given.bias, 1, channels);
  ImageMoments found(moments.mean ? 1 : 0, given.images, channels);
  share_images(given.images, num_workers(given.images), [&](long, long first, long last) {
    Buffer<T> scratch(at_once * in_width);
    for (long n = first; n < last; ++n) {
      for (long p = 0; p < pixels; p += at_once) {
        const long count = std::min(at_once, pixels - p), from = n * pixels + p;
        rectify(given.x + from * in, in, in_width, count, scratch.get());
        T* to = output + from * channels;
        map_pixels(scratch.get(), in_width, in, matrix.get(), width, count,
                   [&](long pixel, long block, Vec<T> value) {
                     if (given.bias) value += load(bias.get() + block * LANES<T>);
                     store_block(to + pixel * channels, channels, block, value);
                   });
      }
      if (moments.mean) found.add(0, n, output + n * pixels * channels, pixels);
    }
  });
  if (moments.mean) found.give_out(0, pixels, moments.mean, moments.variance);
}

template <class T>
void projection_backward(const Projection<T>& given, const ProjectionBackward<T>& back, T* to_x,
                         T* to_weight) {
  const long in = given.in_channels, channels = given.channels, pixels = given.pixels;
  const long in_width = blocks_of<T>(in) * LANES<T>, width = blocks_of<T>(channels) * LANES<T>;
  const long at_once = pixels_at_once<T>(in_width, 65536), workers = num_workers(given.images);
  const Buffer<T> matrix = padded_rows(given.weight, channels, in);
  const Buffer<T> factors = padded_rows(back.factors, 1, channels);
  const Buffer<T> slopes = padded_rows(back.slopes, 1, channels);
  const Buffer<T> constants = padded_rows(back.constants, 1, channels);
  std::vector<std::unique_ptr<Buffer<double>>> sums(workers);
  share_images(given.images, workers, [&](long worker, long first, long last) {
    Buffer<T> z(at_once * width), rectified(at_once * in_width);
    sums[worker] = std::make_unique<Buffer<double>>(to_weight ? width * in_width : 0);
    if (to_weight) sums[worker]->zero(width * in_width);
    for (long p = first * pixels; p < last * pixels; p += at_once) {
      const long count = std::min(at_once, last * pixels - p);
      const T* x = given.x + p * in;
      output_gradient(back.gradient + p * channels, back.slopes ? back.output + p * channels : nullptr,
                      factors.get(), back.slopes ? slopes.get() : nullptr,
                      back.constants ? constants.get() : nullptr, channels, width, count, z.get());
      if (to_x)
        map_pixels(z.get(), width, channels, matrix.get(), in_width, count,
                   [&](long pixel, long block, Vec<T> value) {
                     const long c = block * LANES<T>, at = pixel * in + c;
                     const int lanes = static_cast<int>(std::min<long>(LANES<T>, in - c));
                     store(to_x + p * in + at, where_positive<T>(load(x + at, lanes), value), lanes);
                   });
      if (!to_weight) continue;
      rectify(x, in, in_width, count, rectified.get());
      add_cross(z.get(), width, rectified.get(), in_width, count, sums[worker]->get());
    }
  });
  for (long r = 0; to_weight && r < channels; ++r) {
    for (long c = 0; c < in; ++c) {
      double sum = 0;
      for (auto& worker : sums) sum += worker->get()[r * in_width + c];
      to_weight[r * in + c] = static_cast<T>(sum);
    }
  }
}

template void projection(const Projection<float>&, float*, Moments<float>);
template void projection(const Projection<double>&, double*, Moments<double>);
template void projection_backward(const Projection<float>&, const ProjectionBackward<float>&, float*,
                                  float*);
template void projection_backward(const Projection<double>&, const ProjectionBackward<double>&,
                                  double*, double*);

}  // namespace sgas
