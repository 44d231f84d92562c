// Dense 3 x 3 convolutions of R(x) by all candidates, and the moments of what comes out; and their
// gradients by the state and the weights.
//
//   y = W * R(x);  z = factor * g + slope * y + constant, the gradient of y;
//   dx = [x > 0] (W' * z),  dW = sum z u'.
//
// Some rows of tiles (winograd.h) at a time, of one image or of several, which never leave the cache.
#include <memory>

#include "cross.h"
#include "kernels.h"
#include "moments.h"
#include "padded.h"
#include "pointwise.h"
#include "threads.h"
#include "winograd.h"

namespace sgas {
namespace {

// The transformed weights of all convolutions, by plane.
template <class T>
struct Planes {
  Planes(const Dense<T>& given, bool transposed)
      : matrix_(given.size.channels * blocks_of<T>(given.size.channels) * LANES<T>),
        memory_(static_cast<long>(given.weights.size()) * PLANES * matrix_) {
    for (std::size_t i = 0; i < given.weights.size(); ++i)
      transform_weight(given.weights[i], given.size.channels, transposed, memory_.get() + i * PLANES * matrix_);
  }
  const T* at(long i, int t) const { return memory_.get() + (i * PLANES + t) * matrix_; }

 private:
  const long matrix_;
  Buffer<T> memory_;
};

// use(image, row of its tiles, first tile) for rows [first, first + count) of the tiles of all images.
template <class Use>
void for_rows(const Grid& grid, long first, long count, const Use& use) {
  for (long r = 0; r < count; ++r) use((first + r) / grid.rows, (first + r) % grid.rows, r * grid.columns);
}

// use(first, count) for all rows of the tiles of some images, some at a time.
template <class Use>
void for_strips(const Grid& grid, long first_image, long last_image, const Use& use) {
  const long last = last_image * grid.rows;
  for (long r = first_image * grid.rows; r < last; r += grid.at_once) use(r, std::min(grid.at_once, last - r));
}

template <class T>
class DenseGradient {
 public:
  DenseGradient(const Dense<T>& given, const SeparableBackward<T>& back, const DenseGradients<T>& wanted)
      : given_(given), back_(back), wanted_(wanted), size_(given.size), grid_(size_),
        channels_(size_.channels), num_(given.weights.size()), width_(blocks_of<T>(channels_) * LANES<T>),
        image_(size_.height * size_.width * channels_), planes_(given, true),
        factors_(padded_rows(back.factors, num_, channels_)),
        slopes_(padded_rows(back.slopes, num_, channels_)),
        constants_(padded_rows(back.constants, num_, channels_)) {
    for (const T* weight : wanted.weights) {
      first_product_.push_back(num_products_);
      num_products_ += weight ? PLANES : 0;
    }
  }

  void run() {
    const long workers = num_workers(size_.images);
    std::vector<std::unique_ptr<Worker>> all(workers);
    share_images(size_.images, workers, [&](long worker, long first, long last) {
      all[worker] = std::make_unique<Worker>(*this);
      for_strips(grid_, first, last, [&](long row, long count) { some_rows(*all[worker], row, count); });
    });
    give_out(all);
  }

 private:
  struct Worker {
    explicit Worker(const DenseGradient& of)
        : transforms(of.size_), input(of.tiles(), of.width_), gradient(of.tiles(), of.width_),
          reached(of.tiles(), of.width_), z(2 * of.size_.width * of.width_),
          products(of.num_products_ * of.width_ * of.width_) {
      products.zero(of.num_products_ * of.width_ * of.width_);
    }
    Transforms<T> transforms;
    Tiles<T> input, gradient, reached;
    Buffer<T> z;
    Buffer<double> products;
  };

  long tiles() const { return grid_.at_once * grid_.columns; }

  void some_rows(Worker& mine, long first, long count) {
    if (num_products_) {
      for_rows(grid_, first, count, [&](long n, long i, long tile) {
        mine.transforms.from_input(given_.x + n * image_, i, mine.input, tile);
      });
    }
    for (long conv = 0; conv < num_; ++conv) {
      for_rows(grid_, first, count, [&](long n, long i, long tile) {
        gradient_of_output(conv, n * image_ + 2 * i * size_.width * channels_,
                           std::min(2L, size_.height - 2 * i) * size_.width, mine.z.get());
        mine.transforms.from_gradient(mine.z.get(), i, mine.gradient, tile);
      });
      through_weight(mine, conv, count * grid_.columns);
    }
    if (!wanted_.x) return;
    for_rows(grid_, first, count, [&](long n, long i, long tile) { hand_on(mine, n, i, tile); });
  }

  // z of some pixels, as [pixel][width].
  void gradient_of_output(long conv, long from, long count, T* to) const {
    const T* output = back_.slopes ? back_.outputs[conv] + from : nullptr;
    output_gradient(back_.gradients[conv] + from, output, factors_.get() + conv * width_,
                    back_.slopes ? slopes_.get() + conv * width_ : nullptr,
                    back_.constants ? constants_.get() + conv * width_ : nullptr, channels_, width_, count, to);
  }

  // Adds to dV, and to dU.
  void through_weight(Worker& mine, long conv, long tiles) {
    for (int t = 0; t < PLANES; ++t) {
      if (wanted_.x) {
        T* reached = mine.reached.plane(t);
        map_pixels(mine.gradient.plane(t), width_, channels_, planes_.at(conv, t), width_, tiles,
                   [reached, width = width_, adds = conv > 0](long tile, long block, Vec<T> value) {
                     T* to = reached + tile * width + block * LANES<T>;
                     store(to, adds ? load(to) + value : value);
                   });
      }
      if (wanted_.weights[conv])
        add_cross(mine.gradient.plane(t), width_, mine.input.plane(t), width_, tiles,
                  mine.products.get() + (first_product_[conv] + t) * width_ * width_);
    }
  }

  // dx = [x > 0] du + what is added.
  void hand_on(Worker& mine, long n, long i, long tile) {
    const T *x = given_.x + n * image_, *added = back_.added ? back_.added + n * image_ : nullptr;
    T* to = wanted_.x + n * image_;
    const long channels = channels_, columns = size_.width;
    auto give = [=](long h, long w, long c, auto lanes, Vec<T> value) {
      const long at = (h * columns + w) * channels + c;
      const Vec<T> plus = added ? load(added + at, lanes) : Vec<T>{};
      store(to + at, where_positive<T>(load(x + at, lanes), value) + plus, lanes);
    };
    mine.transforms.to_input(mine.reached, tile, i, give);
  }

  void give_out(const std::vector<std::unique_ptr<Worker>>& all) const {
    for (long conv = 0; conv < num_; ++conv) {
      for (long pair = 0; wanted_.weights[conv] && pair < channels_ * channels_; ++pair) {
        const long at = pair / channels_ * width_ + pair % channels_;
        double planes[PLANES] = {};
        for (const auto& worker : all) {
          for (int t = 0; t < PLANES; ++t)
            planes[t] += worker->products.get()[(first_product_[conv] + t) * width_ * width_ + at];
        }
        gradient_of_taps(planes, wanted_.weights[conv] + pair * TAPS);
      }
    }
  }

  const Dense<T>& given_;
  const SeparableBackward<T>& back_;
  const DenseGradients<T>& wanted_;
  const Size& size_;
  const Grid grid_;
  const long channels_, num_, width_, image_;
  const Planes<T> planes_;
  const Buffer<T> factors_, slopes_, constants_;
  std::vector<long> first_product_;
  long num_products_ = 0;
};

}  // namespace

template <class T>
void dense(const Dense<T>& given, const std::vector<T*>& outputs, Moments<T> moments) {
  const Size& size = given.size;
  const Grid grid(size);
  const long num = static_cast<long>(outputs.size()), channels = size.channels;
  const long width = blocks_of<T>(channels) * LANES<T>;
  const long pixels = size.height * size.width, image = pixels * channels;
  const Planes<T> planes(given, false);
  ImageMoments found(moments.mean ? num : 0, size.images, channels);
  share_images(size.images, num_workers(size.images), [&](long, long first, long last) {
    Transforms<T> transforms(size);
    Tiles<T> input(grid.at_once * grid.columns, width), output(grid.at_once * grid.columns, width);
    for_strips(grid, first, last, [&](long row, long count) {
      for_rows(grid, row, count, [&](long n, long i, long tile) {
        transforms.from_input(given.x + n * image, i, input, tile);
      });
      for (long conv = 0; conv < num; ++conv) {
        for (int t = 0; t < PLANES; ++t)
          map_pixels(input.plane(t), width, channels, planes.at(conv, t), width, count * grid.columns,
                     [to = output.plane(t), width](long tile, long block, Vec<T> value) {
                       store(to + tile * width + block * LANES<T>, value);
                     });
        for_rows(grid, row, count, [&](long n, long i, long tile) {
          T* out = outputs[conv] + n * image;
          transforms.to_output(output, tile, i, out);
          if (moments.mean && i + 1 == grid.rows) found.add(conv, n, out, pixels);
        });
      }
    });
  });
  for (long i = 0; moments.mean && i < num; ++i)
    found.give_out(i, pixels, moments.mean + i * channels, moments.variance + i * channels);
}

template <class T>
void dense_backward(const Dense<T>& given, const SeparableBackward<T>& back, const DenseGradients<T>& wanted) {
  DenseGradient<T>(given, back, wanted).run();
}

template void dense(const Dense<float>&, const std::vector<float*>&, Moments<float>);
template void dense(const Dense<double>&, const std::vector<double*>&, Moments<double>);
template void dense_backward(const Dense<float>&, const SeparableBackward<float>&, const DenseGradients<float>&);
template void dense_backward(const Dense<double>&, const SeparableBackward<double>&, const DenseGradients<double>&);

}  // namespace sgas
