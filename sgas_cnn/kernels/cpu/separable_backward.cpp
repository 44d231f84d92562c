// The gradients of separable.cpp, by the states, the taps and the pointwise weights.
//
//   z = factor * g + slope * y + constant, the gradient of y;  dW = sum z (taps * u)';
//   dF = W' z, the gradient of F = taps * u;  du = taps' * dF,  dtaps = sum u * dF;
//   dx = [x > 0] du;
//   where u = R(scale * x + shift): dv = [u > 0] du is given out instead, with sum dv (x - centre)
//   and sum dv, from which the caller finds what reaches x, scale and shift.
//
// Image by image and some rows at a time; z and F are made again and never leave the cache.
#include <memory>

#include "convolved.h"
#include "cross.h"
#include "kernels.h"
#include "padded.h"
#include "pointwise.h"
#include "taps.h"
#include "threads.h"

namespace sgas {
namespace {

template <class T>
class Backward {
 public:
  Backward(const Separable<T>& given, const SeparableBackward<T>& back,
           const SeparableGradients<T>& wanted)
      : given_(given), back_(back), wanted_(wanted), size_(given.size), channels_(size_.channels),
        num_(given.taps.size()), bank_(given, true), width_(bank_.width),
        border_(border_of(given.taps)), mapped_(!given.shared()),
        wants_input_(mapped_ || !wanted.inputs.empty()),
        factors_(padded_rows(back.factors, num_, channels_)),
        slopes_(padded_rows(back.slopes, num_, channels_)),
        constants_(padded_rows(back.constants, num_, channels_)),
        centres_(padded_rows(back.centres, num_, channels_)),
        returning_(Bank<T>::pack_all_taps(given, size_.stride == 1)) {
    for (long i = 0; i < num_; ++i) {
      const int taps = given.taps[i].kernel * given.taps[i].kernel;
      first_tap_.push_back(num_taps_);
      first_product_.push_back(num_products_);
      num_taps_ += wanted.weights[i] ? taps : 0;
      num_products_ += wanted.pointwise[i] ? 1 : 0;
    }
    // u is needed to sum up gradients of weights; without, the sign of what went in is enough.
    wants_weights_ = num_taps_ + num_products_ > 0;
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
          taps(of.num_taps_ * of.width_), products(of.num_products_ * of.width_ * of.width_),
          sums(of.mapped_ ? of.num_ * of.width_ : 0), crossed(of.mapped_ ? of.num_ * of.width_ : 0),
          outer(of.strip() * of.width_), inner(of.strip() * of.width_) {
      taps.zero(of.num_taps_ * of.width_);
      products.zero(of.num_products_ * of.width_ * of.width_);
      if (of.mapped_) sums.zero(of.num_ * of.width_);
      if (of.mapped_) crossed.zero(of.num_ * of.width_);
    }
    Padded<T> input, reached, gradient;
    Buffer<T> taps;
    Buffer<double> products, sums, crossed;
    Buffer<T> outer, inner;  // z and F of some rows
  };

  // Whether the taps of convolution i leave pixels as they are, and dF is du.
  bool as_they_are(long i) const { return !given_.weights[i] && size_.stride == 1; }

  long strip() const { return bank_.rows * size_.out_width(); }

  void one_image(Worker& mine, long n) {
    if (!mapped_) {
      mine.reached.clear();
      if (wants_weights_) bank_.fill_input(given_, 0, n, mine.input);
    }
    for (long i = 0; i < num_; ++i) {
      if (mapped_) mine.reached.clear();
      if (mapped_ && (wanted_.weights[i] || wanted_.pointwise[i]))
        bank_.fill_input(given_, i, n, mine.input);
      for (long h = 0; h < size_.out_height(); h += bank_.rows)
        some_rows(mine, i, n, h, std::min(bank_.rows, size_.out_height() - h));
      if (!as_they_are(i)) through_taps(mine, i);
      if (mapped_) hand_on_mapped(mine, i, n);
    }
    if (!mapped_ && wants_input_) hand_on(mine, n);
  }

  // dF of some rows, and what they add to dW.
  void some_rows(Worker& mine, long i, long n, long first, long rows) {
    constexpr int L = LANES<T>;
    const long columns = size_.out_width(), count = rows * columns;
    const long from = (n * size_.out_height() + first) * columns * channels_;
    gradient_of_output(i, from, count, mine.outer.get());
    const bool adds = as_they_are(i);
    Padded<T>& into = adds ? mine.reached : mine.gradient;
    for (long h = 0; h < rows && (wants_input_ || !adds); ++h) {
      T* to = into.at(0, first + h, 0);
      map_pixels(mine.outer.get() + h * columns * width_, width_, channels_, bank_.matrix(i),
                 width_, columns, [to, adds, block = into.block](long pixel, long b, Vec<T> value) {
                   T* const at = to + b * block + pixel * L;
                   store(at, adds ? load(at) + value : value);
                 });
    }
    if (!wanted_.pointwise[i]) return;
    convolve_rows(given_.taps[i], size_, mine.input, bank_.taps(i), first, rows,
                  mine.inner.get(), width_);
    add_cross(mine.outer.get(), width_, mine.inner.get(), width_, count,
              mine.products.get() + first_product_[i] * width_ * width_);
  }

  // z of some pixels, as [pixel][width].
  void gradient_of_output(long i, long from, long count, T* to) const {
    const T* output = back_.slopes ? back_.outputs[i] + from : nullptr;
    output_gradient(back_.gradients[i] + from, output, factors_.get() + i * width_,
                    back_.slopes ? slopes_.get() + i * width_ : nullptr,
                    back_.constants ? constants_.get() + i * width_ : nullptr, channels_, width_, count, to);
  }

  void through_taps(Worker& mine, long i) {
    constexpr int L = LANES<T>;
    const Taps& taps = given_.taps[i];
    const long count = taps.kernel * taps.kernel, start = start_of(taps);
    const bool wants_taps = wanted_.weights[i] != nullptr;
    for (long b = 0; b < mine.gradient.blocks; ++b) {
      const T* weights = returning_.get() + bank_.first_tap(i) + b * count * L;
      T* sums = mine.taps.get() + first_tap_[i] * width_ + b * count * L;
      with_constants(taps.kernel, taps.dilation, size_.stride, [&](auto k, auto d, auto s) {
        if (wants_input_) {
          if constexpr (s == 1) {
            const long from = -taps.offset - taps.dilation * (taps.kernel / 2);
            convolve<T, k, d, 1, true>(mine.gradient.at(b, from, from), mine.gradient.row, weights,
                                       mine.reached.at(b, 0, 0), mine.reached.row, L, size_.height,
                                       size_.width);
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
    const T *x = given_.inputs[0] + n * in, *added = back_.added ? back_.added + n * in : nullptr;
    for_rows([&](long b, int lanes, long h, long from) {
      const T* reached = mine.reached.at(b, h, 0);
      for (long w = 0; w < size_.width; ++w) {
        const long at = from + w * channels_;
        const Vec<T> plus = added ? load(added + at, lanes) : Vec<T>{};
        const Vec<T> value = where_positive<T>(load(x + at, lanes), load(reached + w * LANES<T>));
        store(wanted_.inputs[0] + n * in + at, value + plus, lanes);
      }
    });
  }

  // dv = [u > 0] du, and its sums with the input.
  void hand_on_mapped(Worker& mine, long i, long n) {
    constexpr int L = LANES<T>;
    const long in = size_.height * size_.width * channels_;
    const T* x = given_.inputs[i] + n * in;
    T* out = wanted_.inputs[i] + n * in;
    for_rows([&](long b, int lanes, long h, long from) {
      const long at = i * width_ + b * L;
      const Vec<T> scale = load(bank_.scales.get() + at), shift = load(bank_.shifts.get() + at);
      const Vec<T> centre = back_.centres ? load(centres_.get() + at) : Vec<T>{};
      const T* reached = mine.reached.at(b, h, 0);
      Vec<T> sum = {}, cross = {};
      for (long w = 0; w < size_.width; ++w) {
        const Vec<T> given = load(x + from + w * channels_, lanes);
        const Vec<T> value = where_positive<T>(scale * given + shift, load(reached + w * L));
        store(out + from + w * channels_, value, lanes);
        sum += value;
        cross += value * (given - centre);
      }
      add_to<T>(mine.sums.get() + at, sum);
      add_to<T>(mine.crossed.get() + at, cross);
    });
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
    auto total = [&](auto part, long at) {
      double sum = 0;
      for (auto& worker : all) sum += ((*worker).*part).get()[at];
      return static_cast<T>(sum);
    };
    std::vector<double> row(channels_);
    for (long i = 0; i < num_; ++i) {
      const long taps = given_.taps[i].kernel * given_.taps[i].kernel;
      for (long c = 0; wanted_.weights[i] && c < channels_; ++c) {
        const long at = first_tap_[i] * width_ + c / L * taps * L + c % L;
        for (long t = 0; t < taps; ++t) {
          double sum = all[0]->taps.get()[at + t * L];
          for (std::size_t w = 1; w < all.size(); ++w) sum += all[w]->taps.get()[at + t * L];
          wanted_.weights[i][c * taps + t] = static_cast<T>(sum);
        }
      }
      const Rows<T>& rows = given_.pointwise[i];
      for (long r = 0; wanted_.pointwise[i] && r < rows.rows; ++r) {
        const long at = (first_product_[i] * width_ + rows.first_row + r) * width_;
        std::copy_n(all[0]->products.get() + at, channels_, row.begin());
        for (std::size_t w = 1; w < all.size(); ++w) {
          for (long c = 0; c < channels_; ++c) row[c] += all[w]->products.get()[at + c];
        }
        std::copy(row.begin(), row.end(), wanted_.pointwise[i] + r * channels_);
      }
      for (long c = 0; mapped_ && c < channels_; ++c) {
        wanted_.sums[i * channels_ + c] = total(&Worker::sums, i * width_ + c);
        wanted_.crossed[i * channels_ + c] = total(&Worker::crossed, i * width_ + c);
      }
    }
  }

  const Separable<T>& given_;
  const SeparableBackward<T>& back_;
  const SeparableGradients<T>& wanted_;
  const Size& size_;
  const long channels_, num_;
  const Bank<T> bank_;
  const long width_, border_;
  const bool mapped_, wants_input_;
  const Buffer<T> factors_, slopes_, constants_, centres_;
  const Buffer<T> returning_;  // taps as du takes them
  std::vector<long> first_tap_, first_product_;
  long num_taps_ = 0, num_products_ = 0;
  bool wants_weights_ = false;
};

}  // namespace

template <class T>
void separable_backward(const Separable<T>& given, const SeparableBackward<T>& back,
                        const SeparableGradients<T>& wanted) {
  Backward<T>(given, back, wanted).run();
}

template void separable_backward(const Separable<float>&, const SeparableBackward<float>&,
                                 const SeparableGradients<float>&);
template void separable_backward(const Separable<double>&, const SeparableBackward<double>&,
                                 const SeparableGradients<double>&);

}  // namespace sgas
