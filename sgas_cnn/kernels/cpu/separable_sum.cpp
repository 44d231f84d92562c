// Separable convolutions at inference, summed as they are made: no image of their own is written.
//
//   out[e] = before[e] + bias[e] + sum_i factor[i] * W_i (taps_i * u_i)  over the convolutions i of e
//
// u as in separable.cpp. Image by image, so that an image of a sum stays in the cache.
#include "convolved.h"
#include "kernels.h"
#include "padded.h"
#include "pointwise.h"
#include "threads.h"

namespace sgas {

template <class T>
void separable_sum(const Separable<T>& given, const SeparableSum<T>& sum, const std::vector<T*>& outs) {
  constexpr int L = LANES<T>;
  const Size& size = given.size;
  const long num = given.taps.size(), channels = size.channels;
  const long image = size.out_height() * size.out_width() * channels;
  const Bank<T> bank(given, false);
  const Buffer<T> factors = padded_rows(sum.factors, num, channels);
  const Buffer<T> bias = padded_rows(sum.bias, outs.size(), channels);
  share_images(size.images, num_workers(size.images), [&](long, long first, long last) {
    Padded<T> input(size.height, size.width, channels, border_of(given.taps));
    Buffer<T> scratch(bank.rows * size.out_width() * bank.width);
    for (long n = first; n < last; ++n) {
      std::vector<bool> started(outs.size(), false);
      if (given.shared()) bank.fill_input(given, 0, n, input);
      for (long i = 0; i < num; ++i) {
        if (!given.shared()) bank.fill_input(given, i, n, input);
        const long slot = sum.slot_of[i];
        T* out = outs[slot] + n * image;
        const T* before = started[slot] ? out : sum.before[slot] ? sum.before[slot] + n * image : nullptr;
        const T *shift = started[slot] ? nullptr : bias.get() + slot * bank.width;
        const T* factor = factors.get() + i * bank.width;
        convolve_image(given, bank, i, input, scratch.get(), [&](long at, long block, int lanes, Vec<T> y) {
          y = y * load(factor + block * L);
          if (shift) y += load(shift + block * L);
          if (before) y += load(before + at, lanes);
          store(out + at, y, lanes);
        });
        started[slot] = true;
      }
    }
  });
}

template void separable_sum(const Separable<float>&, const SeparableSum<float>&, const std::vector<float*>&);
template void separable_sum(const Separable<double>&, const SeparableSum<double>&,
                            const std::vector<double*>&);

}  // namespace sgas
