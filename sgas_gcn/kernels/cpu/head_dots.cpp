// Products of each node's values with two vectors, head by head: scores of attention. A matrix
// product with so few columns takes five times as long.


#include "columns.h"

namespace sgas {
namespace {

std::tuple<Tensor, Tensor> head_dots(const Tensor& values, const Tensor& vectors,
                                     const Tensor& shifts, int64_t heads) {
  check_dense_rows(values, "values");
  const int64_t columns = values.size(1), channels = columns / heads;
  SGAS_CHECK(vectors.is_contiguous() && vectors.numel() == 2 * columns &&
                  shifts.is_contiguous() && shifts.numel() == 2 * heads,
              "there have to be two vectors of all columns, and two shifts a head");
  Tensor first = empty({values.size(0), heads}, values.options());
  Tensor second = empty(first.sizes(), values.options());
  SGAS_FLOATING_TYPES(values.scalar_type(), "head_dots", [&] {
    const auto from = reading<scalar_t>(values);
    const scalar_t* by = vectors.const_data_ptr<scalar_t>();
    const scalar_t* plus = shifts.const_data_ptr<scalar_t>();
    scalar_t* one = first.mutable_data_ptr<scalar_t>();
    scalar_t* two = second.mutable_data_ptr<scalar_t>();
    parallel_for(0, values.size(0), grain_of(2 * columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        for (int64_t head = 0; head < heads; head++) {
          const scalar_t* at = from.row(row) + head * channels;
          scalar_t a = plus[head], b = plus[heads + head];
          over_channels<scalar_t>(channels, [&](auto block, int64_t c) {
            using B = decltype(block);
            typename B::Value sums[2] = {};
            for (int u = 0; u < B::count; u++) {
              const auto value = B::load(at + c, u);
              sums[0] += value * B::load(by + head * channels + c, u);
              sums[1] += value * B::load(by + columns + head * channels + c, u);
            }
            a += B::total(sums[0]);
            b += B::total(sums[1]);
          });
          one[row * heads + head] = a;
          two[row * heads + head] = b;
        }
      }
    });
  });
  return {first, second};
}

// Float64 `[2, columns]`: the gradients of the vectors, from those of both results.
Tensor head_dots_backward(const Tensor& values, const Tensor& first, const Tensor& second) {
  check_dense_rows(values, "values");
  SGAS_CHECK(first.is_contiguous() && second.is_contiguous() && first.sizes() == second.sizes(),
              "the gradients have to be contiguous");
  const int64_t heads = first.size(1), channels = values.size(1) / heads;
  Tensor out = empty({2, values.size(1)}, values.options().dtype(kDouble));
  SGAS_FLOATING_TYPES(values.scalar_type(), "head_dots_backward", [&] {
    const auto from = reading<scalar_t>(values);
    const scalar_t* one = first.const_data_ptr<scalar_t>();
    const scalar_t* two = second.const_data_ptr<scalar_t>();
    for (int64_t head = 0; head < heads; head++) {
      const Tensor sums = two_column_sums<scalar_t, AS_ADDED>(
          values.size(0), channels, values,
          [&](auto block, int64_t row, int64_t stop, int64_t c, auto* a, auto* b, auto*) {
            using B = decltype(block);
            for (; row < stop; row++) {
              const auto by_one = B::fill(one[row * heads + head]);
              const auto by_two = B::fill(two[row * heads + head]);
              for (int u = 0; u < B::count; u++) {
                const auto value = B::load(from.row(row) + head * channels + c, u);
                a[u] += by_one * value;
                b[u] += by_two * value;
              }
            }
          });
      out.narrow(1, head * channels, channels).copy_(sums);
    }
  });
  return out;
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&head_dots>(
      "head_dots(Tensor values, Tensor vectors, Tensor shifts, int heads) -> (Tensor first, "
      "Tensor second)");
  m.add<&head_dots_backward>("head_dots_backward(Tensor values, Tensor first, Tensor second) -> Tensor");
}

}  // namespace sgas
