// Dense 3 x 3 convolutions of stride 1 as 16 products of matrices: F(2 x 2, 3 x 3) of Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, in 16 products where the sum over
// taps takes 36.
//
//   V = B' u B, of 4 x 4 pixels that overlap by two;  U = G W G';  M_t = V_t U_t;  y = A' M A, 2 x 2;
//   backward: Z = A z A';  dV_t = Z_t U_t';  du = B dV B';  dU_t = V_t' Z_t;  dW = G' dU G.
//
// Plane t of tiles is a matrix [tile][channels], of which pointwise.h and cross.h have the products.
// A number that is none reaches all four outputs of a tile.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels.h"
#include "simd.h"

namespace sgas {

constexpr int PLANES = 16, SIDE = 4, TAPS = 9;

// The rows and columns of tiles of an image, and how many rows are taken at once.
struct Grid {
  explicit Grid(const Size& size)
      : rows((size.height + 1) / 2), columns((size.width + 1) / 2),
        at_once(std::max(1L, TILES_AT_ONCE / std::max(1L, columns))) {}
  static constexpr long TILES_AT_ONCE = 64;  // enough for sums to stay in registers for a while
  const long rows, columns, at_once;
};

// Planes [16][count][width]. They are a line more apart than they are long, or all would fall on the
// same lines of a cache.
template <class T>
class Tiles {
 public:
  Tiles(long count, long width)
      : apart(count * width + LINE / static_cast<long>(sizeof(T))), memory_(PLANES * apart) {}
  T* plane(int t) { return memory_.get() + t * apart; }

  const long apart;

 private:
  Buffer<T> memory_;
};

// B' along one side, and B.
template <class T>
inline void down(Vec<T> (&u)[SIDE]) {
  const Vec<T> first = u[0] - u[2], second = u[1] + u[2], third = u[2] - u[1];
  u[3] = u[1] - u[3];
  u[0] = first, u[1] = second, u[2] = third;
}
template <class T>
inline void up(Vec<T> (&v)[SIDE]) {
  const Vec<T> second = v[1] - v[2] + v[3];
  v[2] = v[1] + v[2] - v[0];
  v[1] = second, v[3] = -v[3];
}

// Between pixels and tiles, a row of tiles at a time; what a worker holds for it. Inner loops have all
// they read of it in variables of their own: what they store could be a member, to a compiler.
template <class T>
class Transforms {
 public:
  explicit Transforms(const Size& size)
      : size_(size), grid_(size), width_(blocks_of<T>(size.channels) * L), line_((2 * grid_.columns + 2) * L),
        lines_(SIDE * line_), zeros_(size.width * size.channels), kept_(2 * size.width * width_) {
    zeros_.zero(size.width * size.channels);
  }

  // V of row i of the tiles of R(image).
  void from_input(const T* image, long i, Tiles<T>& tiles, long tile) {
    const T* rows[SIDE];
    for (int k = 0; k < SIDE; ++k) {
      const long h = 2 * i - 1 + k;
      rows[k] = h < 0 || h >= size_.height ? zeros_.get() : image + h * size_.width * size_.channels;
    }
    for_blocks<T>(size_.channels, [&](long c, auto lanes) {
      T* const lines = lines_.get() + L;
      const long pixels = size_.width, channels = size_.channels, line = line_;
      for (long w = 0; w < pixels; ++w) {
        Vec<T> u[SIDE];
#pragma GCC unroll 4
        for (int k = 0; k < SIDE; ++k) u[k] = relu<T>(load(rows[k] + w * channels + c, lanes));
        down<T>(u);
#pragma GCC unroll 4
        for (int k = 0; k < SIDE; ++k) store(lines + k * line + w * L, u[k]);
      }
      for (int k = 0; k < SIDE; ++k) {  // an odd side's last tile ends further beyond
        store(lines + k * line - L, Vec<T>{});
        for (long w = pixels; w <= 2 * grid_.columns; ++w) store(lines + k * line + w * L, Vec<T>{});
      }
      T* to = tiles.plane(0) + tile * width_ + c;
      const long columns = grid_.columns, width = width_, apart = tiles.apart;
      for (long j = 0; j < columns; ++j, to += width) {
#pragma GCC unroll 4
        for (int k = 0; k < SIDE; ++k) {
          Vec<T> u[SIDE];
#pragma GCC unroll 4
          for (int m = 0; m < SIDE; ++m) u[m] = load(lines + k * line + (2 * j - 1 + m) * L);
          down<T>(u);
#pragma GCC unroll 4
          for (int m = 0; m < SIDE; ++m) store(to + (k * SIDE + m) * apart, u[m]);
        }
      }
    });
  }

  // y of row i of tiles, written to `image`.
  void to_output(Tiles<T>& tiles, long tile, long i, T* image) const {
    const bool both = 2 * i + 1 < size_.height;
    for_blocks<T>(size_.channels, [&](long c, auto lanes) {
      const T* from = tiles.plane(0) + tile * width_ + c;
      const long columns = grid_.columns, width = width_, apart = tiles.apart;
      const long channels = size_.channels, row = size_.width * channels, pixels = size_.width;
      T* to = image + 2 * i * row + c;
      for (long j = 0; j < columns; ++j, from += width, to += 2 * channels) {
        Vec<T> upper[SIDE], lower[SIDE];
#pragma GCC unroll 4
        for (int m = 0; m < SIDE; ++m) {
          const Vec<T> second = load(from + (4 + m) * apart), third = load(from + (8 + m) * apart);
          upper[m] = load(from + m * apart) + second + third;
          lower[m] = second - third - load(from + (12 + m) * apart);
        }
        const bool pair = 2 * j + 1 < pixels;
        store_pair(upper, to, pair ? channels : 0, lanes);
        if (both) store_pair(lower, to + row, pair ? channels : 0, lanes);
      }
    });
  }

  // Z of row i of tiles; `z` [pixel][width] are the gradients of its one or two rows of pixels.
  void from_gradient(const T* z, long i, Tiles<T>& tiles, long tile) const {
    const long columns = grid_.columns, width = width_, apart = tiles.apart, pixels = size_.width;
    const long below = 2 * i + 1 < size_.height ? pixels * width : 0;
    for (long c = 0; c < width; c += L) {
      const T* from = z + c;
      T* to = tiles.plane(0) + tile * width + c;
      for (long j = 0; j < columns; ++j, from += 2 * width, to += width) {
        Vec<T> left[SIDE], right[SIDE] = {};
        spread_column(from, below, left);
        if (2 * j + 1 < pixels) spread_column(from + width, below, right);
#pragma GCC unroll 4
        for (int k = 0; k < SIDE; ++k) {
          T* const row = to + k * SIDE * apart;
          store(row, left[k]);
          store(row + apart, left[k] + right[k]);
          store(row + 2 * apart, left[k] - right[k]);
          store(row + 3 * apart, -right[k]);
        }
      }
    }
  }

  // du of all pixels that no later row of tiles reaches: give(h, w, c, lanes, du). Rows of an image
  // come in order.
  template <class Give>
  void to_input(Tiles<T>& tiles, long tile, long i, const Give& give) {
    if (i == 0) kept_.zero(2 * size_.width * width_);
    const bool ends = i + 1 == grid_.rows && 2 * i + 1 < size_.height;
    for_blocks<T>(size_.channels, [&](long c, auto lanes) {
      join_columns(tiles.plane(0) + tile * width_ + c, tiles.apart);
      const T* const lines = lines_.get() + L;
      T* kept = kept_.get() + 2 * c * size_.width;
      const long pixels = size_.width, line = line_;
      for (long w = 0; w < pixels; ++w, kept += 2 * L) {
        Vec<T> v[SIDE];
#pragma GCC unroll 4
        for (int k = 0; k < SIDE; ++k) v[k] = load(lines + k * line + w * L);
        up<T>(v);
        if (i > 0) give(2 * i - 1, w, c, lanes, load(kept) + v[0]);
        give(2 * i, w, c, lanes, load(kept + L) + v[1]);
        if (ends) give(2 * i + 1, w, c, lanes, v[2]);
        store(kept, v[2]);
        store(kept + L, v[3]);
      }
    });
  }

 private:
  static constexpr long L = LANES<T>;

  // The lines [4][pixels] of a row of tiles, from pixel -1 on, after B along them.
  void join_columns(const T* from, long apart) {
    T* lines = lines_.get();
    const long columns = grid_.columns, width = width_, line = line_;
    for (int k = 0; k < SIDE; ++k) store(lines + k * line + L, Vec<T>{});
    for (long j = 0; j < columns; ++j, from += width, lines += 2 * L) {
#pragma GCC unroll 4
      for (int k = 0; k < SIDE; ++k) {
        Vec<T> v[SIDE];
#pragma GCC unroll 4
        for (int m = 0; m < SIDE; ++m) v[m] = load(from + (k * SIDE + m) * apart);
        up<T>(v);
        T* const to = lines + k * line;
        store(to, load(to) + v[0]);
        store(to + L, load(to + L) + v[1]);
        store(to + 2 * L, v[2]);
        store(to + 3 * L, v[3]);
      }
    }
  }

  // A' along a row: two pixels, or one where there is no `second`.
  template <class Lanes>
  static void store_pair(const Vec<T> (&sums)[SIDE], T* to, long second, Lanes lanes) {
    store(to, sums[0] + sums[1] + sums[2], lanes);
    if (second) store(to + second, sums[1] - sums[2] - sums[3], lanes);
  }

  // A along a column of two pixels, or of one where there is none `below`.
  static void spread_column(const T* z, long below, Vec<T> (&to)[SIDE]) {
    const Vec<T> upper = load(z), lower = below ? load(z + below) : Vec<T>{};
    to[0] = upper, to[1] = upper + lower, to[2] = upper - lower, to[3] = -lower;
  }

  const Size size_;
  const Grid grid_;
  const long width_, line_;
  Buffer<T> lines_, zeros_, kept_;
};

// U_t [C in][width] of a weight [C out][C in][3][3], by plane; `transposed` as [C out][width].
template <class T>
void transform_weight(const T* weight, long channels, bool transposed, T* to) {
  constexpr long L = LANES<T>;
  const long width = blocks_of<T>(channels) * L, matrix = channels * width;
  Buffer<T> taps(TAPS * matrix);
  taps.zero(TAPS * matrix);
  const long row = transposed ? channels : 1, column = transposed ? 1 : channels;  // in `weight`
  for (long first = 0; first < channels; first += L) {  // a vector of a row at a time
    for (long r = 0; r < channels; ++r) {
      for (long c = first; c < std::min(channels, first + L); ++c) {
        const T* from = weight + (r * row + c * column) * TAPS;
        for (int t = 0; t < TAPS; ++t) taps.get()[t * matrix + r * width + c] = from[t];
      }
    }
  }
  const T half = T(0.5);
  auto along = [&](Vec<T> a, Vec<T> b, Vec<T> c, Vec<T> (&all)[SIDE]) {  // G
    all[0] = a, all[1] = half * (a + b + c), all[2] = half * (a - b + c), all[3] = c;
  };
  for (long at = 0; at < matrix; at += L) {
    Vec<T> rows[3][SIDE];
    for (int w = 0; w < 3; ++w) {
      const T* tap = taps.get() + w * matrix + at;
      along(load(tap), load(tap + 3 * matrix), load(tap + 6 * matrix), rows[w]);
    }
    for (int k = 0; k < SIDE; ++k) {
      Vec<T> all[SIDE];
      along(rows[0][k], rows[1][k], rows[2][k], all);
      for (int m = 0; m < SIDE; ++m) store(to + (k * SIDE + m) * matrix + at, all[m]);
    }
  }
}

// G' dU G of one weight [3][3], of its numbers of the planes.
template <class T>
void gradient_of_taps(const double (&planes)[PLANES], T* to) {
  double rows[3][SIDE];
  for (int m = 0; m < SIDE; ++m) {
    const double sum = (planes[4 + m] + planes[8 + m]) / 2;
    rows[0][m] = planes[m] + sum, rows[1][m] = (planes[4 + m] - planes[8 + m]) / 2;
    rows[2][m] = sum + planes[12 + m];
  }
  for (int k = 0; k < 3; ++k) {
    const double sum = (rows[k][1] + rows[k][2]) / 2;
    to[3 * k] = static_cast<T>(rows[k][0] + sum), to[3 * k + 1] = static_cast<T>((rows[k][1] - rows[k][2]) / 2);
    to[3 * k + 2] = static_cast<T>(sum + rows[k][3]);
  }
}

}  // namespace sgas
