// Depthwise convolutions of all candidates on one state, and the moments of what comes out.
//
//   u = R(x), or R(M x + shift) for each plane;  plane = taps * u;
//   mean = sum plane / P,  covariance = sum (plane - mean)(plane - mean)' / P  over P pixels.
//
// Image by image, so that all that one image needs stays in the cache.
#include "cross.h"
#include "kernels.h"
#include "padded.h"
#include "pointwise.h"
#include "taps.h"
#include "threads.h"

namespace sgas {
namespace {

// What all workers read: weights in the order of the vectors.
template <class T>
struct Packed {
  explicit Packed(const Depthwise<T>& given) : width(blocks_of<T>(given.size.channels) * LANES<T>) {
    const long channels = given.size.channels;
    for (std::size_t i = 0; i < given.taps.size(); ++i) {
      const int taps = given.taps[i].kernel * given.taps[i].kernel;
      weights.emplace_back(taps * width);
      pack_taps(given.weights[i], channels, taps, false, weights[i].get());
      if (given.shared()) continue;
      matrices.emplace_back(channels * width);
      pack_matrix(given.matrices + i * channels * channels, channels, channels, true, matrices[i].get());
      shifts.emplace_back(width);
      pack_matrix(given.shifts + i * channels, 1, channels, false, shifts[i].get());
    }
  }
  const long width;
  std::vector<Buffer<T>> weights, matrices, shifts;
};

// One worker's moments of all planes; the means, and how far they are off, image by image.
template <class T>
struct Sums {
  Sums(long planes, long images, long width)
      : products(planes * width * width), means(planes * images * width),
        off(planes * images * width), scratch(chunk_of<T>(width) * width) {
    products.zero(planes * width * width);
  }
  Buffer<double> products;
  Buffer<T> means;
  Buffer<double> off;
  Buffer<T> scratch;
};

// The moments of a plane over all images from those of each (Chan et al., 1983).
template <class T>
void combine(const Size& size, long plane, long width, std::vector<std::unique_ptr<Sums<T>>>& all,
             Moments<T> moments) {
  const long channels = size.channels, images = size.images;
  const double pixels = static_cast<double>(size.out_height() * size.out_width());
  std::vector<double> mean(width, 0.0), products(width * width, 0.0);
  const long workers = static_cast<long>(all.size());
  auto for_images = [&](auto use) {
    for (long w = 0; w < workers; ++w) {
      const long first = w * images / workers, count = (w + 1) * images / workers - first;
      for (long n = 0; n < count; ++n) {
        const long at = (plane * count + n) * width;
        use(all[w]->means.get() + at, all[w]->off.get() + at);
      }
    }
  };
  for_images([&](const T* found, const double* off) {
    for (long c = 0; c < channels; ++c) mean[c] += (found[c] + off[c] / pixels) / static_cast<double>(images);
  });
  for (auto& worker : all) {
    const double* found = worker->products.get() + plane * width * width;
    for (long i = 0; i < width * width; ++i) products[i] += found[i];
  }
  std::vector<double> apart(width, 0.0);
  for_images([&](const T* found, const double* off) {
    for (long c = 0; c < channels; ++c) apart[c] = found[c] + off[c] / pixels - mean[c];
    for (long i = 0; i < channels; ++i) {
      const double left = pixels * apart[i], rounded = off[i] / pixels;
      for (long j = i; j < channels; ++j) products[i * width + j] += left * apart[j] - rounded * off[j];
    }
  });
  const double scale = images ? 1 / (pixels * images) : 0;
  for (long i = 0; i < channels; ++i) {
    moments.mean[plane * channels + i] = static_cast<T>(mean[i]);
    for (long j = i; j < channels; ++j) {
      const T value = static_cast<T>(products[i * width + j] * scale);
      moments.covariance[(plane * channels + i) * channels + j] = value;
      moments.covariance[(plane * channels + j) * channels + i] = value;
    }
  }
}

template <class T>
void convolve_plane(const Taps& taps, const Size& size, Padded<T>& input, const T* weights, T* out) {
  constexpr int L = LANES<T>;
  const long channels = size.channels, start = start_of(taps);
  for (long b = 0; b < input.blocks; ++b) {
    const int lanes = static_cast<int>(std::min<long>(L, channels - b * L));
    with_constants(taps.kernel, taps.dilation, size.stride, [&](auto k, auto d, auto s) {
      convolve<T, k, d, s, false>(input.at(b, start, start), input.row,
                                  weights + b * taps.kernel * taps.kernel * L, out + b * L,
                                  size.out_width() * channels, channels, lanes, size.out_height(),
                                  size.out_width());
    });
  }
}

}  // namespace

template <class T>
void depthwise(const Depthwise<T>& given, const std::vector<T*>& planes, Moments<T> moments) {
  const Size& size = given.size;
  const long num = static_cast<long>(planes.size()), channels = size.channels;
  const long in = size.height * size.width * channels, pixels = size.out_height() * size.out_width();
  const Packed<T> packed(given);
  const long width = packed.width, workers = num_workers(size.images);
  std::vector<std::unique_ptr<Sums<T>>> sums(workers);
  share_images(size.images, workers, [&](long worker, long first, long last) {
    Padded<T> input(size.height, size.width, channels, border_of(given.taps));
    if (moments.mean) sums[worker] = std::make_unique<Sums<T>>(num, last - first, width);
    for (long n = first; n < last; ++n) {
      if (given.shared()) input.fill(given.inputs[0] + n * in, channels, relu<T>);
      for (long i = 0; i < num; ++i) {
        if (!given.shared()) {
          const Term<T> term{given.inputs[i] + n * in, channels, channels, packed.matrices[i].get()};
          input.fill_mapped(&term, 1, packed.shifts[i].get(), relu<T>);
        }
        T* out = planes[i] + n * pixels * channels;
        convolve_plane(given.taps[i], size, input, packed.weights[i].get(), out);
        if (!moments.mean) continue;
        Sums<T>& mine = *sums[worker];
        const long at = (i * (last - first) + n - first) * width;
        add_moments(out, channels, pixels, width, mine.scratch.get(), mine.means.get() + at,
                    mine.off.get() + at, mine.products.get() + i * width * width);
      }
    }
  });
  if (!moments.mean) return;
  for (long i = 0; i < num; ++i) combine(size, i, width, sums, moments);
}

template void depthwise(const Depthwise<float>&, const std::vector<float*>&, Moments<float>);
template void depthwise(const Depthwise<double>&, const std::vector<double*>&, Moments<double>);

}  // namespace sgas
