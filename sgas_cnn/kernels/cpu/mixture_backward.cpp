// What the gradients of the mixture's outputs give, but for those of its parts.
//
//   crossed[b] = sum_p g[e(b)] * (part[b] - centre[b]),  sums[e] = sum_p g[e],
//   linear_crossed[e][q] = sum_p g[e] * (linear[q] - centre[q]),
//   linear gradient[q] = sum_e coefficient[e][q] * g[e].
//
// The gradient of a part is a multiple of g: separable_backward makes it where it is used.
#include <memory>

#include "kernels.h"
#include "moments.h"
#include "padded.h"
#include "threads.h"

namespace sgas {
namespace {

constexpr long PIXELS_OF_SUMS = 128;  // pixels

template <class T>
class MixtureBackward {
 public:
  MixtureBackward(const Mixture<T>& given, const std::vector<const T*>& gradients,
                  const MixtureGradients<T>& wanted)
      : given_(given), gradients_(gradients), wanted_(wanted), channels_(given.channels),
        width_(blocks_of<T>(channels_) * LANES<T>), parts_(given.parts.size()),
        linear_(given.linear.size()),
        coefficients_(padded_rows(given.coefficients, given.slots * linear_, channels_)),
        centres_(padded_rows(wanted.centres, parts_, channels_)),
        linear_centres_(padded_rows(wanted.linear_centres, linear_, channels_)), factors_(given.slots) {
    for (long b = 0; b < parts_; ++b)
      factors_[given.slot_of[b]].push_back({given.parts[b], centres_.get() + b * width_, &Worker::crossed, b * width_});
    for (long slot = 0; slot < given.slots; ++slot) {
      for (long q = 0; q < linear_; ++q)
        factors_[slot].push_back({given.linear[q], linear_centres_.get() + q * width_, &Worker::linear,
                                  (slot * linear_ + q) * width_});
    }
  }

  void run() {
    const long workers = num_workers(given_.images);
    std::vector<std::unique_ptr<Worker>> all(workers);
    share_images(given_.images, workers, [&](long worker, long first, long last) {
      all[worker] = std::make_unique<Worker>(*this);
      for (long p = first * given_.pixels; p < last * given_.pixels; p += PIXELS_OF_SUMS)
        some_pixels(*all[worker], p, std::min(PIXELS_OF_SUMS, last * given_.pixels - p));
    });
    give_out(all);
  }

 private:
  struct Worker {
    explicit Worker(const MixtureBackward& of)
        : crossed(of.parts_ * of.width_), linear(of.given_.slots * of.linear_ * of.width_),
          sums(of.given_.slots * of.width_) {
      crossed.zero(of.parts_ * of.width_);
      linear.zero(of.given_.slots * of.linear_ * of.width_);
      sums.zero(of.given_.slots * of.width_);
    }
    Buffer<double> crossed, linear, sums;
  };

  // An image that a slot's gradient is multiplied by, less its centre, and where the sum goes.
  struct Factor {
    const T *image, *centre;
    Buffer<double> Worker::*sums;
    long at;
  };

  void some_pixels(Worker& mine, long first, long count) {
    constexpr int L = LANES<T>;
    for (long c = 0; c < channels_; c += L) {
      const int lanes = static_cast<int>(std::min<long>(L, channels_ - c));
      const long at = first * channels_ + c;
      for (long slot = 0; slot < given_.slots; ++slot) {
        add_to<T>(mine.sums.get() + slot * width_ + c,
                  sum_pixels<PIXELS_OF_SUMS>(gradients_[slot] + at, channels_, count, lanes,
                                             [](Vec<T> v) { return v; }));
        const std::vector<Factor>& factors = factors_[slot];
        std::size_t k = 0;
        for (; k + 4 <= factors.size(); k += 4) products<4>(mine, &factors[k], gradients_[slot] + at, at, c, count, lanes);
        for (; k < factors.size(); ++k) products<1>(mine, &factors[k], gradients_[slot] + at, at, c, count, lanes);
      }
      for (long q = 0; q < linear_; ++q)
        if (wanted_.linear[q]) to_linear(q, at, c, count, lanes);
    }
  }

  // Sums of gradient * (image - centre), the gradient read once for all K images.
  template <int K>
  void products(Worker& mine, const Factor* factors, const T* gradient, long at, long c, long count, int lanes) const {
    constexpr int P = K > 1 ? 2 : 4;  // sums of each, so that no addition waits for the one before
    const long channels = channels_;
    Vec<T> sums[K][P] = {}, centre[K];
    const T* images[K];
    for (int k = 0; k < K; ++k) {
      images[k] = factors[k].image + at;
      centre[k] = load(factors[k].centre + c);
    }
    long p = 0;
    if (lanes == LANES<T>) {
      for (; p + P <= count; p += P) {
#pragma GCC unroll 4
        for (int i = 0; i < P; ++i) {
          const Vec<T> g = load(gradient + (p + i) * channels);
#pragma GCC unroll 4
          for (int k = 0; k < K; ++k) {
            const T* from = images[k] + (p + i) * channels;
            ask_for(from + PIXELS_OF_SUMS * channels);
            sums[k][i] += g * (load(from) - centre[k]);
          }
        }
      }
    }
    for (; p < count; ++p) {
      const Vec<T> g = load(gradient + p * channels, lanes);
      for (int k = 0; k < K; ++k) sums[k][0] += g * (load(images[k] + p * channels, lanes) - centre[k]);
    }
    for (int k = 0; k < K; ++k) {
      for (int i = 1; i < P; ++i) sums[k][0] += sums[k][i];
      add_to<T>((mine.*factors[k].sums).get() + factors[k].at + c, sums[k][0]);
    }
  }

  void to_linear(long q, long at, long c, long count, int lanes) {
    T* to = wanted_.linear[q] + at;
    for (long p = 0; p < count; ++p) {
      Vec<T> sum = {};
      for (long slot = 0; slot < given_.slots; ++slot)
        sum += load(coefficients_.get() + (slot * linear_ + q) * width_ + c) *
               load(gradients_[slot] + at + p * channels_, lanes);
      store(to + p * channels_, sum, lanes);
    }
  }

  void give_out(std::vector<std::unique_ptr<Worker>>& all) {
    auto write = [&](long rows, Buffer<double> Worker::*part, T* to) {
      for (long r = 0; r < rows; ++r) {
        for (long c = 0; c < channels_; ++c) {
          double sum = 0;
          for (auto& worker : all) sum += ((*worker).*part).get()[r * width_ + c];
          to[r * channels_ + c] = static_cast<T>(sum);
        }
      }
    };
    write(parts_, &Worker::crossed, wanted_.crossed);
    write(given_.slots, &Worker::sums, wanted_.sums);
    write(given_.slots * linear_, &Worker::linear, wanted_.linear_crossed);
  }

  const Mixture<T>& given_;
  const std::vector<const T*>& gradients_;
  const MixtureGradients<T>& wanted_;
  const long channels_, width_, parts_, linear_;
  const Buffer<T> coefficients_, centres_, linear_centres_;
  std::vector<std::vector<Factor>> factors_;  // by slot
};

}  // namespace

template <class T>
void mixture_backward(const Mixture<T>& given, const std::vector<const T*>& gradients,
                      const MixtureGradients<T>& wanted) {
  MixtureBackward<T>(given, gradients, wanted).run();
}

template void mixture_backward(const Mixture<float>&, const std::vector<const float*>&,
                               const MixtureGradients<float>&);
template void mixture_backward(const Mixture<double>&, const std::vector<const double*>&,
                               const MixtureGradients<double>&);

}  // namespace sgas
