// The way back through linear maps, from gradients that are made a few rows at a time.
#pragma once

#include <numeric>

#include "products.h"
#include "small_products.h"

namespace sgas {

constexpr int64_t ROWS_IN_CACHE = 64;  // of the gradient: in the first cache, or the second
constexpr int64_t ROWS_FOR_PANELS = 1024;

// Weights `[D, ΣC]` of matrices side by side, what they are multiplied with, and what they get.
template <class T>
struct Linear {
  std::vector<View<const T>> inputs;
  std::vector<Padded<T>> maps;
  std::vector<View<T>> grad_inputs;  // none, or for each input, without data where not wanted
  bool fresh = false;                // grad_inputs are written, not added to
  int64_t columns, stride;           // D, and the length of a row of the gradient

  Linear(List<Tensor> given, const Tensor& weight, List<Tensor> grads)
      : columns(weight.size(0)), stride(Padded<T>(0, weight.size(0)).stride) {
    // Rows a page apart would share a few lines of the first cache.
    if (stride * sizeof(T) % 4096 == 0) stride += Whole<T>::lanes;
    int64_t first = 0;
    for (const Tensor& each : given) {
      inputs.push_back(reading<T>(each));
      maps.emplace_back(weight.narrow(1, first, each.size(1)));
      first += each.size(1);
    }
    for (const Tensor& grad : grads) {
      grad_inputs.push_back(grad.defined() ? writing<T>(grad) : View<T>{nullptr, 0});
    }
  }

  // ΣC.
  int64_t width() const {
    return std::accumulate(maps.begin(), maps.end(), int64_t(0),
                           [](int64_t sum, const auto& map) { return sum + map.columns; });
  }
};

// How many groups rows go in, each with sums of its own: the result is the same for any number of
// threads. For large matrices, of so many numbers, more threads are of use than there are else rows
// for.
inline int64_t most_groups(int64_t numbers) { return numbers > SMALL_NUMBERS ? 32 : 8; }

// Where a group goes through neighbours as well: more, since these take longer than the sums.
inline int64_t most_groups_of_ranges(int64_t numbers) {
  return std::max<int64_t>(most_groups(numbers), 16);
}

inline int64_t groups_of(int64_t num_rows, int64_t numbers) {
  const int64_t chunks = (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK;
  return std::min(chunks, most_groups(numbers));
}

// Calls body(group, first row, last row) for a few rows at a time, the groups in parallel.
template <class Body>
void over_groups(int64_t num_rows, int64_t groups, Body&& body) {
  parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; group++) {
      const int64_t stop = num_rows * (group + 1) / groups;
      for (int64_t row = num_rows * group / groups; row < stop; row += ROWS_IN_CACHE) {
        body(group, row, std::min(stop, row + ROWS_IN_CACHE));
      }
    }
  });
}

// The sums of groups in their order, into the columns of a weight's gradient `[D, width]`.
template <class T>
void write_transposed(std::vector<Padded<T>>& sums, View<T> out) {
  if (sums.empty()) return;
  auto& sum = sums[0];
  for (size_t group = 1; group < sums.size(); group++) {
    const auto& numbers = sums[group].numbers;
    for (size_t i = 0; i < numbers.size(); i++) sum.numbers[i] += numbers[i];
  }
  for (int64_t d = 0; d < sum.columns; d++) {
    for (int64_t c = 0; c < sum.rows; c++) out.row(d)[c] = *sum.place(c, d);
  }
}

// grads (+)= gradient · map, for some rows; `gradient` is the first of them.
template <class T>
void to_inputs(const Linear<T>& linear, int64_t first, int64_t last, const T* gradient) {
  for (size_t i = 0; i < linear.grad_inputs.size(); i++) {
    if (linear.grad_inputs[i].data == nullptr) continue;
    const std::vector<Factor<T>> factors{
        {{gradient - first * linear.stride, linear.stride}, &linear.maps[i]}};
    const auto run = linear.fresh ? multiply<T, AS_IT_IS> : multiply<T, AND_ADD>;
    run(factors, first, last, linear.grad_inputs[i]);
  }
}

// The gradient of a Linear's weights, as sums of each group.
template <class T>
struct WeightSums {
  std::vector<std::vector<Padded<T>>> sums;  // by input and group; without groups if not wanted

  WeightSums(const Linear<T>& linear, int64_t groups, bool wanted) : sums(linear.inputs.size()) {
    for (size_t i = 0; wanted && i < sums.size(); i++) {
      sums[i].assign(groups, Padded<T>(linear.maps[i].columns, linear.columns));
    }
  }

  void add(const Linear<T>& linear, int64_t group, int64_t first, int64_t last,
           const T* gradient) {
    for (size_t i = 0; i < sums.size() && !sums[i].empty(); i++) {
      const View<const T> rows{linear.inputs[i].row(first), linear.inputs[i].stride};
      add_transposed(gradient, linear.stride, rows, last - first, sums[i][group]);
    }
  }

  // Into `grad_weight` `[D, ΣC]`, which stays as it is where nothing was wanted.
  void write(const Tensor& grad_weight) {
    int64_t first = 0;
    for (size_t i = 0; i < sums.size() && !sums[i].empty(); i++) {
      const int64_t width = sums[i][0].rows;
      write_transposed(sums[i], writing<T>(grad_weight.narrow(1, first, width)));
      first += width;
    }
  }
};

// Some rows of a gradient to all that they go to; `gradient` is the first of them.
template <class T>
void send_back(const Linear<T>& linear, WeightSums<T>& sums, int64_t group, int64_t first,
               int64_t last, const T* gradient) {
  to_inputs(linear, first, last, gradient);
  sums.add(linear, group, first, last, gradient);
}

// Backward of linear maps; make(group, first, last, buffer) returns rows of the gradient `[rows,
// stride]`, for which it may use the buffer. The weight's is written to `grad_weight` `[D, ΣC]`
// unless that is empty.
template <class T, class Make>
void linear_backward(const Linear<T>& linear, int64_t num_rows, Tensor grad_weight, Make&& make) {
  const int64_t groups = groups_of(num_rows, linear.columns * linear.width());
  WeightSums<T> sums(linear, groups, grad_weight.size(0) > 0);
  std::vector<Numbers<T>> buffers(groups);
  over_groups(num_rows, groups, [&](int64_t group, int64_t first, int64_t last) {
    auto& buffer = buffers[group];
    if (buffer.empty()) buffer.resize(ROWS_IN_CACHE * linear.stride + Whole<T>::lanes);
    send_back(linear, sums, group, first, last, make(group, first, last, buffer.data()));
  });
  sums.write(grad_weight);
}

// The same for a gradient `[N, D]` that is there.
template <class T>
void linear_backward(const Linear<T>& linear, const Tensor& grad, Tensor grad_weight) {
  const auto from = reading<T>(grad);
  const bool as_it_is = linear.columns == linear.stride && from.stride == linear.stride;
  linear_backward(linear, grad.size(0), grad_weight,
                  [&](int64_t, int64_t first, int64_t last, T* buffer) -> const T* {
                    if (as_it_is) return from.row(first);
                    for (int64_t row = first; row < last; row++) {
                      std::copy_n(from.row(row), linear.columns,
                                  buffer + (row - first) * linear.stride);
                    }
                    return buffer;
                  });
}

inline bool all_dense(List<Tensor> matrices) {
  return std::all_of(matrices.begin(), matrices.end(), [](const Tensor& matrix) {
    return matrix.dim() == 2 && (matrix.size(1) <= 1 || matrix.stride(1) == 1);
  });
}

// Whether products of so many rows with this matrix are to go by registers. On AMD's processors that
// is faster for any matrix (100 to 105 GFLOP/s on a Zen 4, and torch's library 75 to 90), but a
// large one has to be put into panels first.
inline bool by_registers(const Tensor& weight, int64_t num_rows) {
  return (AMD && num_rows >= ROWS_FOR_PANELS) || weight.numel() <= SMALL_NUMBERS;
}

}  // namespace sgas
