// The smallest entries of each row, in rising order; of equals the one that stands first.
//
// `nearest` computes the rows itself, as squared distances in few dimensions, so that a row never
// leaves the first cache; `smallest` takes rows that a matrix product has made.


#include <numeric>
#include <vector>

#include "lanes.h"
#include "rows.h"

namespace sgas {
namespace {

constexpr int64_t DIMENSIONS = 16;  // above, a matrix product is faster

// What a thread needs to select the `width` smallest of rows of `size` entries.
//
// The minima of G groups of entries bound the answer: as many entries as there are minima up to
// the width-th smallest of them are at most as large. Few others are, so all that are get ranked by
// counting how many are smaller, which unlike sorting has no branches to mispredict.
template <class T>
class Selector {
 public:
  Selector(int64_t size, int64_t width)
      : size_(size),
        width_(width),
        groups_((2 * width + 63) / 64 * 64),
        minima_(groups_),
        values_(size + B::lanes),
        ranks_(std::max(groups_, size) + B::lanes),
        taken_(size),
        places_(size + 1) {}

  // Entries that are no numbers come last, as do infinite ones: where too few others are left,
  // numbers from 0 on stand in for them.
  void operator()(const T* row, int64_t* index) {
    std::iota(index, index + width_, 0);
    const int64_t count = collect(row, bound(row));
    if (count > 4 * groups_) return sort(count, index);  // many equal entries
    rank(values_.data(), count);
    std::fill_n(taken_.begin(), count, 0);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = ranks_[i] + taken_[ranks_[i]]++;  // equal entries have equal ranks
      if (at < width_) index[at] = places_[i];
    }
  }

 private:
  using B = Block<T, Vector<T>, 1>;

  // How many of the values are smaller than each; reads on to the end of the last register.
  void rank(const T* values, int64_t count) {
    for (int64_t i = 0; i < count; i += B::lanes) {
      const auto own = B::load(values + i, 0);
      typename B::Integer found = {};
      for (int64_t j = 0; j < count; j++) {
        found -= B::fill(values[j]) < own;  // a mask's lanes are 0 and -1
      }
      B::store_integer(ranks_.data() + i, 0, found);
    }
  }

  // At least `width` entries, if they are numbers, are no larger than this.
  T bound(const T* row) {
    const T infinity = std::numeric_limits<T>::infinity();
    if (size_ < 2 * groups_) return infinity;
    T* minima = minima_.data();
    std::fill(minima, minima + groups_, infinity);
    for (int64_t start = 0; start < size_; start += groups_) {
      const int64_t count = std::min(groups_, size_ - start);
      for (int64_t g = 0; g < count; g++) {
        minima[g] = row[start + g] < minima[g] ? row[start + g] : minima[g];
      }
    }
    T least = -infinity;
    rank(minima, groups_);
    for (int64_t g = 0; g < groups_; g++) {
      least = ranks_[g] < width_ && minima[g] > least ? minima[g] : least;
    }
    return least;
  }

  // Writes down the entries up to the bound, in their order, and returns how many there are.
  int64_t collect(const T* row, T bound) {
    int64_t count = 0, start = 0;
    const auto take = [&](int64_t j) {
      values_[count] = row[j];
      places_[count] = j;
      count += row[j] <= bound;
    };
    for (; start + B::lanes <= size_; start += B::lanes) {
      for (uint32_t bits = B::bits(B::load(row + start, 0) <= B::fill(bound)); bits != 0;
           bits &= bits - 1) {
        take(start + __builtin_ctz(bits));
      }
    }
    for (; start < size_; start++) take(start);
    return count;
  }

  void sort(int64_t count, int64_t* index) {
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    const auto middle = order.begin() + std::min(width_, count);
    std::partial_sort(order.begin(), middle, order.end(), [&](int64_t a, int64_t b) {
      return values_[a] < values_[b] || (values_[a] == values_[b] && a < b);
    });
    std::transform(order.begin(), middle, index, [&](int64_t i) { return places_[i]; });
  }

  int64_t size_, width_, groups_;
  std::vector<T> minima_, values_;
  std::vector<int32_t> ranks_, taken_;
  std::vector<int64_t> places_;
};

// Squared distances from point i of a cloud, whose coordinates are `[dimensions, size]`.
template <class T>
void distances_from(const T* cloud, int64_t i, int64_t dimensions, int64_t size, T* row) {
  T own[DIMENSIONS];
  for (int64_t d = 0; d < dimensions; d++) own[d] = cloud[d * size + i];
  over_channels<T>(size, [&](auto block, int64_t j) {
    using B = decltype(block);
    typename B::Value sum[B::count] = {};
    for (int64_t d = 0; d < dimensions; d++) {
      for (int u = 0; u < B::count; u++) {
        const auto apart = B::load(cloud + d * size + j, u) - B::fill(own[d]);
        sum[u] = B::multiply_add(apart, apart, sum[u]);
      }
    }
    for (int u = 0; u < B::count; u++) B::store(row + j, u, sum[u]);
  });
  row[i] = -std::numeric_limits<T>::infinity();
}

Tensor nearest(const Tensor& x, int64_t width) {
  SGAS_CHECK(x.dim() == 3 && x.size(2) <= DIMENSIONS, "clouds have to be [B, P, C] with C up to ",
              DIMENSIONS, ", not ", x.sizes());
  const int64_t clouds = x.size(0), size = x.size(1), dimensions = x.size(2);
  SGAS_CHECK(width >= 1 && width <= size, "a cloud of ", size, " points has no ", width);
  const Tensor columns = x.transpose(1, 2).contiguous();
  Tensor index = empty({clouds, size, width}, x.options().dtype(kLong));
  int64_t* out = index.mutable_data_ptr<int64_t>();
  SGAS_FLOATING_TYPES(x.scalar_type(), "nearest", [&] {
    const scalar_t* all = columns.const_data_ptr<scalar_t>();
    parallel_for(0, clouds * size, 64, [&](int64_t begin, int64_t end) {
      Selector<scalar_t> select(size, width);
      std::vector<scalar_t> row(size);
      for (int64_t point = begin; point < end; point++) {
        const scalar_t* cloud = all + point / size * dimensions * size;
        distances_from(cloud, point % size, dimensions, size, row.data());
        select(row.data(), out + point * width);
      }
    });
  });
  return index;
}

Tensor smallest(const Tensor& rows, int64_t width) {
  const int64_t size = rows.size(-1);
  SGAS_CHECK(width >= 1 && width <= size, "a row of ", size, " has no ", width, " entries");
  const Tensor dense = rows.contiguous();
  auto shape = rows.sizes().vec();
  shape.back() = width;
  Tensor index = empty(shape, rows.options().dtype(kLong));
  int64_t* out = index.mutable_data_ptr<int64_t>();
  SGAS_FLOATING_TYPES(rows.scalar_type(), "smallest", [&] {
    const scalar_t* all = dense.const_data_ptr<scalar_t>();
    parallel_for(0, rows.numel() / size, 64, [&](int64_t begin, int64_t end) {
      Selector<scalar_t> select(size, width);
      for (int64_t i = begin; i < end; i++) select(all + i * size, out + i * width);
    });
  });
  return index;
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&nearest>("nearest(Tensor x, int width) -> Tensor");
  m.add<&smallest>("smallest(Tensor rows, int width) -> Tensor");
}

}  // namespace sgas
