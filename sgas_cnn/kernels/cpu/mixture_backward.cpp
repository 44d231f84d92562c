// What the gradients of the mixture's outputs give without its planes being made again.
//
//   crossed[b] = sum_p g[e(b)] (plane[b] - centre[b])',  sums[e] = sum_p g[e],
//   linear_crossed[e][q] = sum_p g[e] * (linear[q] - centre[q]),
//   linear gradient[q] = sum_e coefficient[e][q] * g[e].
//
// The gradient of a plane is M' g: depthwise_backward makes it where it is used.
#include <memory>

#include "cross.h"
#include "kernels.h"
#include "padded.h"
#include "threads.h"

namespace sgas {
namespace {

template <class T>
class MixtureBackward {
 public:
  MixtureBackward(const Mixture<T>& given, const std::vector<const T*>& gradients,
                  const MixtureGradients<T>& wanted)
      : given_(given), gradients_(gradients), wanted_(wanted), channels_(given.channels),
        width_(blocks_of<T>(channels_) * LANES<T>), branches_(given.planes.size()),
        linear_(given.linear.size()), chunk_(std::max(32L, chunk_of<T>(width_) / 2)),
        coefficients_(given.slots * linear_ * width_), centres_(branches_ * width_),
        linear_centres_(linear_ * width_) {
    pack_matrix(given.coefficients, given.slots * linear_, channels_, false, coefficients_.get());
    pack_matrix(wanted.centres, branches_, channels_, false, centres_.get());
    pack_matrix(wanted.linear_centres, linear_, channels_, false, linear_centres_.get());
  }

  void run() {
    const long workers = num_workers(given_.images);
    std::vector<std::unique_ptr<Worker>> all(workers);
    share_images(given_.images, workers, [&](long worker, long first, long last) {
      all[worker] = std::make_unique<Worker>(*this);
      for (long n = first; n < last; ++n) {
        for (long p = 0; p < given_.pixels; p += chunk_)
          one_chunk(*all[worker], n * given_.pixels + p, std::min(chunk_, given_.pixels - p));
      }
    });
    give_out(all);
  }

 private:
  struct Worker {
    explicit Worker(const MixtureBackward& of)
        : crossed(of.branches_ * of.width_ * of.width_),
          linear(of.given_.slots * of.linear_ * of.width_), sums(of.given_.slots * of.width_),
          gradients(of.given_.slots * of.chunk_ * of.width_), plane(of.chunk_ * of.width_) {
      crossed.zero(of.branches_ * of.width_ * of.width_);
      linear.zero(of.given_.slots * of.linear_ * of.width_);
      sums.zero(of.given_.slots * of.width_);
    }
    Buffer<double> crossed, linear, sums;
    Buffer<T> gradients, plane;
  };

  void one_chunk(Worker& mine, long first, long count) {
    constexpr int L = LANES<T>;
    for (long slot = 0; slot < given_.slots; ++slot) {
      T* packed = mine.gradients.get() + slot * chunk_ * width_;
      pack_pixels<T>(gradients_[slot] + first * channels_, channels_, count, nullptr, width_, packed);
      for (long c = 0; c < width_; c += L) {
        Vec<T> sum = {};
        for (long p = 0; p < count; ++p) sum += load(packed + p * width_ + c);
        add_to<T>(mine.sums.get() + slot * width_ + c, sum);
      }
    }
    for (long b = 0; b < branches_; ++b) {
      pack_pixels(given_.planes[b] + first * channels_, channels_, count, centres_.get() + b * width_,
                  width_, mine.plane.get());
      add_cross(mine.gradients.get() + given_.slot_of[b] * chunk_ * width_, mine.plane.get(), width_,
                count, false, mine.crossed.get() + b * width_ * width_);
    }
    for (long q = 0; q < linear_; ++q) one_linear(mine, q, first, count);
  }

  void one_linear(Worker& mine, long q, long first, long count) {
    constexpr int L = LANES<T>;
    pack_pixels(given_.linear[q] + first * channels_, channels_, count,
                linear_centres_.get() + q * width_, width_, mine.plane.get());
    for (long slot = 0; slot < given_.slots; ++slot) {
      const T* gradient = mine.gradients.get() + slot * chunk_ * width_;
      const T* factor = coefficients_.get() + (slot * linear_ + q) * width_;
      double* sums = mine.linear.get() + (slot * linear_ + q) * width_;
      for (long c = 0; c < width_; c += L) {
        const int lanes = static_cast<int>(std::min<long>(L, channels_ - c));
        const Vec<T> times = load(factor + c);
        Vec<T> sum = {};
        T* to = wanted_.linear[q] + first * channels_ + c;
        for (long p = 0; p < count; ++p) {
          const Vec<T> g = load(gradient + p * width_ + c);
          sum += g * load(mine.plane.get() + p * width_ + c);
          const Vec<T> before = slot ? load(to + p * channels_, lanes) : Vec<T>{};
          store(to + p * channels_, before + g * times, lanes);
        }
        add_to<T>(sums + c, sum);
      }
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
    write(given_.slots, &Worker::sums, wanted_.sums);
    write(given_.slots * linear_, &Worker::linear, wanted_.linear_crossed);
    for (long b = 0; b < branches_; ++b) {
      for (long r = 0; r < channels_; ++r) {
        for (long c = 0; c < channels_; ++c) {
          double sum = 0;
          for (auto& worker : all) sum += worker->crossed.get()[(b * width_ + r) * width_ + c];
          wanted_.crossed[(b * channels_ + r) * channels_ + c] = static_cast<T>(sum);
        }
      }
    }
  }

  const Mixture<T>& given_;
  const std::vector<const T*>& gradients_;
  const MixtureGradients<T>& wanted_;
  const long channels_, width_, branches_, linear_, chunk_;
  Buffer<T> coefficients_, centres_, linear_centres_;
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
