// The mixture of all candidates of each edge: pointwise convolution, norm and softmax weight in one.
//
//   out[e] = before[e] + bias[e] + sum_q coefficient[e][q] * linear[q] + sum_b M_b plane[b]
//
// over the branches b of slot e; norms and weights are folded into M, coefficients and bias.
#include "kernels.h"
#include "padded.h"
#include "pointwise.h"
#include "threads.h"

namespace sgas {

template <class T>
void mixture(const Mixture<T>& given, const std::vector<T*>& outs) {
  constexpr int L = LANES<T>;
  const long channels = given.channels, width = blocks_of<T>(channels) * L;
  const long size = given.pixels * channels, num_linear = given.linear.size();
  const long branches = given.planes.size();
  Buffer<T> matrices(branches * channels * width), bias(given.slots * width);
  Buffer<T> coefficients(given.slots * num_linear * width);
  matrices.zero(branches * channels * width);
  for (long b = 0; b < branches; ++b) {
    const Rows<T>& from = given.matrices[b];
    T* to = matrices.get() + b * channels * width + from.first_row;
    for (long r = 0; r < from.rows; ++r) {
      for (long c = 0; c < channels; ++c) to[c * width + r] = from.data[r * channels + c];
    }
  }
  pack_matrix(given.bias, given.slots, channels, false, bias.get());
  pack_matrix(given.coefficients, given.slots * num_linear, channels, false, coefficients.get());
  share_images(given.images, num_workers(given.images), [&](long, long first, long last) {
    for (long n = first; n < last; ++n) {
      for (int slot = 0; slot < given.slots; ++slot) {
        std::vector<Term<T>> terms;
        for (long b = 0; b < branches; ++b) {
          if (given.slot_of[b] == slot)
            terms.push_back({given.planes[b] + n * size, channels, channels,
                             matrices.get() + b * channels * width});
        }
        const T* before = given.before[slot] ? given.before[slot] + n * size : nullptr;
        const T* factors = coefficients.get() + slot * num_linear * width;
        T* out = outs[slot] + n * size;
        auto take = [&](long pixel, long block, Vec<T> value) {
          const long c = block * L, at = pixel * channels + c;
          const int lanes = static_cast<int>(std::min<long>(L, channels - c));
          if (before) value += load(before + at, lanes);
          for (long q = 0; q < num_linear; ++q)
            value += load(factors + q * width + c) * load(given.linear[q] + n * size + at, lanes);
          store(out + at, value, lanes);
        };
        map_pixels(terms.data(), static_cast<int>(terms.size()), bias.get() + slot * width, width, 0,
                   given.pixels, take);
      }
    }
  });
}

template void mixture(const Mixture<float>&, const std::vector<float*>&);
template void mixture(const Mixture<double>&, const std::vector<double*>&);

}  // namespace sgas
