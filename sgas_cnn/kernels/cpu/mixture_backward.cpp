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
        linear_centres_(padded_rows(wanted.linear_centres, linear_, channels_)) {}

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

  void some_pixels(Worker& mine, long first, long count) {
    constexpr int L = LANES<T>;
    for (long c = 0; c < channels_; c += L) {
      const int lanes = static_cast<int>(std::min<long>(L, channels_ - c));
      const long at = first * channels_ + c;
      for (long slot = 0; slot < given_.slots; ++slot)
        add_to<T>(mine.sums.get() + slot * width_ + c,
                  sum_pixels<PIXELS_OF_SUMS>(gradients_[slot] + at, channels_, count, lanes,
                                             [](Vec<T> v) { return v; }));
      for (long b = 0; b < parts_; ++b)
        add_to<T>(mine.crossed.get() + b * width_ + c,
                  product(gradients_[given_.slot_of[b]] + at, given_.parts[b] + at,
                          load(centres_.get() + b * width_ + c), count, lanes));
      for (long q = 0; q < linear_; ++q) {
        const Vec<T> centre = load(linear_centres_.get() + q * width_ + c);
        for (long slot = 0; slot < given_.slots; ++slot)
          add_to<T>(mine.linear.get() + (slot * linear_ + q) * width_ + c,
                    product(gradients_[slot] + at, given_.linear[q] + at, centre, count, lanes));
        if (wanted_.linear[q]) to_linear(q, at, c, count, lanes);
      }
    }
  }

  // Sum of gradient * (image - centre).
  Vec<T> product(const T* gradient, const T* image, Vec<T> centre, long count, int lanes) const {
    Vec<T> sums[4] = {};
    long p = 0;
    if (lanes == LANES<T>) {
      for (; p + 4 <= count; p += 4) {
#pragma GCC unroll 4
        for (long i = 0; i < 4; ++i) {
          ask_for(image + (p + i + PIXELS_OF_SUMS) * channels_);
          sums[i] += load(gradient + (p + i) * channels_) * (load(image + (p + i) * channels_) - centre);
        }
      }
    }
    for (; p < count; ++p)
      sums[0] += load(gradient + p * channels_, lanes) * (load(image + p * channels_, lanes) - centre);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
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
