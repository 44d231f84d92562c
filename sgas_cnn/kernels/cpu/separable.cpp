// Separable convolutions of one state by all candidates, and the moments of what comes out.
//
//   u = R(x), or R(scale * x + shift) for each;  y = W (taps * u);
//   mean = sum y / P,  variance = sum (y - mean)^2 / P  over P pixels.
//
// Image by image and some rows at a time, so that taps * u never leaves the cache.
#include "convolved.h"
#include "kernels.h"
#include "moments.h"
#include "padded.h"
#include "pointwise.h"
#include "threads.h"

namespace sgas {
namespace {

// One image of one output: y = W (taps * u).
template <class T>
void convolve_image(const Separable<T>& given, const Bank<T>& bank, long i, Padded<T>& input,
                    T* scratch, T* out) {
  constexpr int L = LANES<T>;
  const Size& size = given.size;
  const long channels = size.channels, width = bank.width, row = size.out_width();
  for (long h = 0; h < size.out_height(); h += bank.rows) {
    const long rows = std::min(bank.rows, size.out_height() - h);
    convolve_rows(given.taps[i], size, input, bank.taps(i), h, rows, scratch, width);
    T* to = out + h * row * channels;
    const long left = channels - (width - L);
    map_pixels(scratch, width, channels, bank.matrix(i), width, rows * row,
               [&](long pixel, long block, Vec<T> value) {
                 T* at = to + pixel * channels + block * L;
                 if (left == L || block + 1 < width / L)
                   store(at, value);
                 else
                   store(at, value, static_cast<int>(left));
               });
  }
}

}  // namespace

template <class T>
void separable(const Separable<T>& given, const std::vector<T*>& outputs, Moments<T> moments) {
  const Size& size = given.size;
  const long num = static_cast<long>(outputs.size()), channels = size.channels;
  const long in = size.height * size.width * channels, pixels = size.out_height() * size.out_width();
  const Bank<T> bank(given, false);
  ImageMoments found(moments.mean ? num : 0, size.images, channels);
  share_images(size.images, num_workers(size.images), [&](long, long first, long last) {
    Padded<T> input(size.height, size.width, channels, border_of(given.taps));
    Buffer<T> scratch(bank.rows * size.out_width() * bank.width);
    for (long n = first; n < last; ++n) {
      if (given.shared()) bank.fill_input(given, 0, n, input);
      for (long i = 0; i < num; ++i) {
        if (!given.shared()) bank.fill_input(given, i, n, input);
        T* out = outputs[i] + n * pixels * channels;
        convolve_image(given, bank, i, input, scratch.get(), out);
        if (moments.mean) found.add(i, n, out, pixels);
      }
    }
  });
  for (long i = 0; moments.mean && i < num; ++i)
    found.give_out(i, pixels, moments.mean + i * channels, moments.variance + i * channels);
}

template void separable(const Separable<float>&, const std::vector<float*>&, Moments<float>);
template void separable(const Separable<double>&, const std::vector<double*>&, Moments<double>);

}  // namespace sgas
