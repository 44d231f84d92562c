// The gradients of depthwise.cpp, by the states and by the taps.
//
//   dplane = sum g A + plane S + constant  (A of each gradient g that reaches it, S symmetric);
//   du = taps' * dplane,  dtaps = sum u * dplane,  dx = [x > 0] du;
//   where u = R(M x + shift): dv = [u > 0] du is given out instead, with sum dv (x - centre)' and
//   sum dv, from which the caller finds what reaches M and x.
//
// Image by image; dplane and u exist for one image at a time.
#include "cross.h"
#include "kernels.h"
#include "padded.h"
#include "pointwise.h"
#include "taps.h"
#include "threads.h"

namespace sgas {
namespace {

template <class T>
std::vector<Buffer<T>> pack_matrices(const T* from, long count, long rows, long columns,
                                     bool transposed = false) {
  const long width = blocks_of<T>(columns) * LANES<T>;
  std::vector<Buffer<T>> packed;
  for (long i = 0; from && i < count; ++i) {
    packed.emplace_back(rows * width);
    pack_matrix(from + i * rows * columns, rows, columns, transposed, packed[i].get());
  }
  return packed;
}

template <class T>
class Backward {
 public:
  Backward(const Depthwise<T>& given, const DepthwiseBackward<T>& back,
           const DepthwiseGradients<T>& wanted)
      : given_(given), back_(back), wanted_(wanted), size_(given.size), channels_(size_.channels),
        planes_(given.taps.size()), width_(blocks_of<T>(channels_) * LANES<T>),
        border_(border_of(given.taps)), mapped_input_(!given.shared()),
        wants_input_(mapped_input_ || !wanted.inputs.empty()),
        slopes_(pack_matrices(back.slopes, planes_, channels_, channels_)),
        constants_(pack_matrices(back.constants, planes_, 1, channels_)),
        centres_(pack_matrices(back.centres, planes_, 1, channels_)),
        matrices_(pack_matrices(given.matrices, planes_, channels_, channels_, true)),
        shifts_(pack_matrices(given.shifts, planes_, 1, channels_)) {
    for (const Pulled<T>& pulled : back.pulled) {
      pulled_.emplace_back(channels_ * width_);
      pack_matrix(pulled.matrix, channels_, channels_, false, pulled_.back().get());
    }
    for (long i = 0; i < planes_; ++i) {
      const int taps = given.taps[i].kernel * given.taps[i].kernel;
      weights_.emplace_back(taps * width_);
      pack_taps(given.weights[i], channels_, taps, size_.stride == 1, weights_[i].get());
      first_tap_.push_back(num_taps_);
      num_taps_ += wanted.weights[i] ? taps : 0;
    }
  }

  void run() {
    const long workers = num_workers(size_.images);
    std::vector<std::unique_ptr<Worker>> all(workers);
    share_images(size_.images, workers, [&](long worker, long first, long last) {
      all[worker] = std::make_unique<Worker>(*this);
      for (long n = first; n < last; ++n) one_image(*all[worker], n);
    });
    give_out(all);
  }

 private:
  struct Worker {
    explicit Worker(const Backward& of)
        : input(of.size_.height, of.size_.width, of.channels_, of.border_),
          reached(of.size_.height, of.size_.width, of.channels_, of.border_),
          gradient(of.size_.out_height(), of.size_.out_width(), of.channels_, of.border_),
          taps(of.num_taps_ * of.width_), crossed(of.mapped_input_ ? of.planes_ * of.width_ * of.width_ : 0),
          sums(of.planes_ * of.width_), left(chunk_of<T>(of.width_) * of.width_),
          right(chunk_of<T>(of.width_) * of.width_) {
      taps.zero(of.num_taps_ * of.width_);
      if (of.mapped_input_) crossed.zero(of.planes_ * of.width_ * of.width_);
      sums.zero(of.planes_ * of.width_);
    }
    Padded<T> input, reached, gradient;
    Buffer<T> taps;
    Buffer<double> crossed, sums;
    Buffer<T> left, right;
  };

  void one_image(Worker& mine, long n) {
    const long in = size_.height * size_.width * channels_;
    if (!mapped_input_) {
      mine.reached.clear();
      mine.input.fill(given_.inputs[0] + n * in, channels_, relu<T>);
    }
    for (long i = 0; i < planes_; ++i) {
      if (mapped_input_) {
        mine.reached.clear();
        const Term<T> term{given_.inputs[i] + n * in, channels_, channels_, matrices_[i].get()};
        mine.input.fill_mapped(&term, 1, shifts_[i].get(), relu<T>);
      }
      pull(mine, i, n);
      one_plane(mine, i);
      if (mapped_input_) hand_on_mapped(mine, i, n);
    }
    if (!mapped_input_ && wants_input_) hand_on(mine, n);
  }

  // gradient = dplane of one image.
  void pull(Worker& mine, long plane, long n) {
    const long out = size_.out_height() * size_.out_width() * channels_;
    std::vector<Term<T>> terms;
    for (std::size_t t = 0; t < back_.pulled.size(); ++t) {
      if (back_.pulled[t].plane == plane)
        terms.push_back({back_.pulled[t].gradient + n * out, channels_, channels_, pulled_[t].get()});
    }
    if (back_.slopes)
      terms.push_back({back_.planes[plane] + n * out, channels_, channels_, slopes_[plane].get()});
    const T* constant = back_.constants ? constants_[plane].get() : nullptr;
    mine.gradient.fill_mapped(terms.data(), static_cast<int>(terms.size()), constant,
                              [](Vec<T> value) { return value; });
  }

  void one_plane(Worker& mine, long plane) {
    constexpr int L = LANES<T>;
    const Taps& taps = given_.taps[plane];
    const long count = taps.kernel * taps.kernel, start = start_of(taps);
    const bool wants_taps = wanted_.weights[plane] != nullptr;
    for (long b = 0; b < mine.input.blocks; ++b) {
      const T* weights = weights_[plane].get() + b * count * L;
      T* sums = mine.taps.get() + first_tap_[plane] * width_ + b * count * L;
      with_constants(taps.kernel, taps.dilation, size_.stride, [&](auto k, auto d, auto s) {
        if (wants_input_) {
          if constexpr (s == 1) {
            const long from = -taps.offset - taps.dilation * (taps.kernel / 2);
            convolve<T, k, d, 1, true>(mine.gradient.at(b, from, from), mine.gradient.row, weights,
                                       mine.reached.at(b, 0, 0), mine.reached.row, L, L,
                                       size_.height, size_.width);
          } else {
            spread<T, k, d, s>(mine.gradient.at(b, 0, 0), mine.gradient.row, weights,
                               mine.reached.at(b, start, start), mine.reached.row,
                               size_.out_height(), size_.out_width());
          }
        }
        if (wants_taps)
          sum_taps<T, k, d, s>(mine.input.at(b, start, start), mine.input.row,
                               mine.gradient.at(b, 0, 0), mine.gradient.row, sums,
                               size_.out_height(), size_.out_width());
      });
    }
  }

  // dx = [x > 0] du + what is added.
  void hand_on(Worker& mine, long n) {
    const long in = size_.height * size_.width * channels_;
    const T* added = back_.added ? back_.added + n * in : nullptr;
    for_rows([&](long b, int lanes, long h, long from) {
      const T* reached = mine.reached.at(b, h, 0);
      const T* input = mine.input.at(b, h, 0);
      for (long w = 0; w < size_.width; ++w) {
        const long at = from + w * channels_;
        const Vec<T> plus = added ? load(added + at, lanes) : Vec<T>{};
        store(wanted_.inputs[0] + n * in + at,
              where_positive<T>(load(input + w * LANES<T>), load(reached + w * LANES<T>)) + plus, lanes);
      }
    });
  }

  // dv = [u > 0] du, and its sums with the input.
  void hand_on_mapped(Worker& mine, long plane, long n) {
    const long pixels = size_.height * size_.width, in = pixels * channels_;
    T* out = wanted_.inputs[plane] + n * in;
    for_rows([&](long b, int lanes, long h, long from) {
      const T* reached = mine.reached.at(b, h, 0);
      const T* input = mine.input.at(b, h, 0);
      Vec<T> sum = {};
      for (long w = 0; w < size_.width; ++w) {
        const Vec<T> value =
            where_positive<T>(load(input + w * LANES<T>), load(reached + w * LANES<T>));
        store(out + from + w * channels_, value, lanes);
        sum += value;
      }
      add_to<T>(mine.sums.get() + plane * width_ + b * LANES<T>, sum);
    });
    const T* centre = back_.centres ? centres_[plane].get() : nullptr;
    const long chunk = chunk_of<T>(width_);
    for (long p = 0; p < pixels; p += chunk) {
      const long count = std::min(chunk, pixels - p);
      pack_pixels<T>(out + p * channels_, channels_, count, nullptr, width_, mine.left.get());
      pack_pixels<T>(given_.inputs[plane] + n * in + p * channels_, channels_, count, centre, width_,
                     mine.right.get());
      add_cross(mine.left.get(), mine.right.get(), width_, count, false,
                mine.crossed.get() + plane * width_ * width_);
    }
  }

  // use(block, lanes, row, where the row's first pixel stands in the image).
  template <class Use>
  void for_rows(Use use) {
    constexpr int L = LANES<T>;
    for (long b = 0; b * L < channels_; ++b) {
      const int lanes = static_cast<int>(std::min<long>(L, channels_ - b * L));
      for (long h = 0; h < size_.height; ++h) use(b, lanes, h, h * size_.width * channels_ + b * L);
    }
  }

  void give_out(std::vector<std::unique_ptr<Worker>>& all) {
    constexpr int L = LANES<T>;
    auto total = [&](auto part) {
      double sum = 0;
      for (auto& worker : all) sum += part(*worker);
      return static_cast<T>(sum);
    };
    for (long i = 0; i < planes_; ++i) {
      const long taps = given_.taps[i].kernel * given_.taps[i].kernel;
      for (long c = 0; wanted_.weights[i] && c < channels_; ++c) {
        for (long t = 0; t < taps; ++t) {
          const long at = first_tap_[i] * width_ + (c / L * taps + t) * L + c % L;
          wanted_.weights[i][c * taps + t] = total([&](Worker& w) { return w.taps.get()[at]; });
        }
      }
      for (long c = 0; mapped_input_ && c < channels_; ++c) {
        const long row = i * width_ + c;
        wanted_.sums[i * channels_ + c] = total([&](Worker& w) { return w.sums.get()[row]; });
        for (long j = 0; j < channels_; ++j)
          wanted_.crossed[(i * channels_ + c) * channels_ + j] =
              total([&](Worker& w) { return w.crossed.get()[row * width_ + j]; });
      }
    }
  }

  const Depthwise<T>& given_;
  const DepthwiseBackward<T>& back_;
  const DepthwiseGradients<T>& wanted_;
  const Size& size_;
  const long channels_, planes_, width_, border_;
  const bool mapped_input_, wants_input_;
  const std::vector<Buffer<T>> slopes_, constants_, centres_, matrices_, shifts_;
  std::vector<Buffer<T>> pulled_, weights_;
  std::vector<long> first_tap_;
  long num_taps_ = 0;
};

}  // namespace

template <class T>
void depthwise_backward(const Depthwise<T>& given, const DepthwiseBackward<T>& back,
                        const DepthwiseGradients<T>& wanted) {
  Backward<T>(given, back, wanted).run();
}

template void depthwise_backward(const Depthwise<float>&, const DepthwiseBackward<float>&,
                                 const DepthwiseGradients<float>&);
template void depthwise_backward(const Depthwise<double>&, const DepthwiseBackward<double>&,
                                 const DepthwiseGradients<double>&);

}  // namespace sgas
