// The mixture of all candidates of each edge: norm and softmax weight of each in one factor.
//
//   out[e] = before[e] + bias[e] + sum_q coefficient[e][q] * linear[q] + sum_b factor[b] * part[b]
//
// over the parts b of slot e. Some pixels at a time, so that `linear` is read once for all slots.
#include "kernels.h"
#include "padded.h"
#include "simd.h"
#include "threads.h"

namespace sgas {
namespace {

constexpr long AT_ONCE = 64;  // pixels

template <class T>
struct Scaled {
  const T *image, *factor;
};

// R pixels of a block of channels.
template <class T, int R>
inline void mix_pixels(const std::vector<Scaled<T>>& terms, const T* before, Vec<T> bias, long at,
                       long channels, long c, int lanes, T* out) {
  Vec<T> sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sum[r] = before ? load(before + at + r * channels, lanes) + bias : bias;
  for (const Scaled<T>& term : terms) {
    const Vec<T> factor = load(term.factor + c);
    const T* from = term.image + at;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      ask_for(from + (r + AT_ONCE) * channels);
      sum[r] += factor * load(from + r * channels, lanes);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store(out + at + r * channels, sum[r], lanes);
}

}  // namespace

template <class T>
void mixture(const Mixture<T>& given, const std::vector<T*>& outs) {
  constexpr int L = LANES<T>;
  const long channels = given.channels, width = blocks_of<T>(channels) * L;
  const long num_parts = given.parts.size(), num_linear = given.linear.size();
  const Buffer<T> factors = padded_rows(given.factors, num_parts, channels);
  const Buffer<T> coefficients = padded_rows(given.coefficients, given.slots * num_linear, channels);
  const Buffer<T> bias = padded_rows(given.bias, given.slots, channels);
  std::vector<std::vector<Scaled<T>>> terms(given.slots);
  for (long slot = 0; slot < given.slots; ++slot) {
    for (long q = 0; q < num_linear; ++q)
      terms[slot].push_back({given.linear[q], coefficients.get() + (slot * num_linear + q) * width});
  }
  for (long b = 0; b < num_parts; ++b)
    terms[given.slot_of[b]].push_back({given.parts[b], factors.get() + b * width});
  share_images(given.images, num_workers(given.images), [&](long, long first, long last) {
    for (long start = first * given.pixels; start < last * given.pixels; start += AT_ONCE) {
      const long stop = std::min(start + AT_ONCE, last * given.pixels);
      for (long slot = 0; slot < given.slots; ++slot) {
        for (long c = 0; c < channels; c += L) {
          const int lanes = static_cast<int>(std::min<long>(L, channels - c));
          const Vec<T> constant = load(bias.get() + slot * width + c);
          auto mix = [&](auto number, long p) {
            mix_pixels<T, number>(terms[slot], given.before[slot], constant, p * channels + c,
                                  channels, c, lanes, outs[slot]);
          };
          long p = start;
          for (; p + 8 <= stop; p += 8) mix(std::integral_constant<int, 8>{}, p);
          for (; p < stop; ++p) mix(std::integral_constant<int, 1>{}, p);
        }
      }
    }
  });
}

template void mixture(const Mixture<float>&, const std::vector<float*>&);
template void mixture(const Mixture<double>&, const std::vector<double*>&);

}  // namespace sgas
