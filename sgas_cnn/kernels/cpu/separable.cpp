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
        convolve_image(given, bank, i, input, scratch.get(), [&](long at, long, int lanes, Vec<T> y) {
          store(out + at, y, lanes);
        });
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
