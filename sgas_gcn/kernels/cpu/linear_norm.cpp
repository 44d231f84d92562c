// Linear maps, leaky ReLU and the coefficients of a batch norm; and the way back to what went in.
//
// Forward, the ReLU and the sums of the norm are taken of a product's registers. Backward, the
// gradient before the ReLU is made for some rows and used while it is in the cache; it is never
// written as a whole. What does not go by registers goes through a library, by tiles of rows. The
// mathematics and the conventions are those of `kernels/torch_columns.py`.


#include "linear_backward.h"
#include "norms.h"

namespace sgas {
namespace {

template <class T>
std::vector<Factor<T>> factors_of(List<Tensor> inputs, const std::vector<Padded<T>>& maps) {
  std::vector<Factor<T>> factors;
  for (size_t i = 0; i < inputs.size(); i++) {
    factors.push_back({reading<T>(inputs[i]), &maps[i]});
  }
  return factors;
}

// One chunk of rows: leaky ReLU into y, and the sums `[2, stride]` of it and of its square.
template <bool streamed, class T>
void relu_chunk(const std::vector<Factor<T>>& factors, int64_t first, int64_t last,
                const std::vector<T>& bias, T slope, View<T> y, double* sums) {
  const int64_t columns = factors[0].right->columns, stride = factors[0].right->stride;
  over_registers<T>(columns, [&](auto number, int64_t column, auto partial) {
    constexpr int count = decltype(number)::value;
    using B = Block<T, Vector<T>, count>;
    const auto zero = B::fill(0), by = B::fill(slope);
    typename B::Value shift[count];
    for (int u = 0; u < count; u++) shift[u] = B::load(bias.data() + column, u);
    for (int64_t row = first; row < last; row += ROWS_AT_ONCE) {
      typename B::Value total[count] = {}, squares[count] = {}, reference[count] = {};
      multiply_columns<T, count>(
          factors, row, std::min(last, row + ROWS_AT_ONCE), column,
          [&](auto block, int64_t r, auto& found) __attribute__((always_inline)) {
            for (int u = 0; u < count; u++) {
              auto value = found[u] + shift[u];
              value = value > zero ? value : value * by;
              if (r == row) reference[u] = value;
              const auto apart = value - reference[u];
              total[u] += apart;
              squares[u] += apart * apart;
              found[u] = value;
            }
            store_columns<streamed, partial.value>(block, y.row(r), column, columns, found);
          });
      T numbers[3][B::width];
      for (int u = 0; u < count; u++) {
        B::store(numbers[0], u, total[u]);
        B::store(numbers[1], u, squares[u]);
        B::store(numbers[2], u, reference[u]);
      }
      add_sums<SQUARES>(std::min(last - row, ROWS_AT_ONCE), B::width, numbers[0], numbers[1],
                        numbers[2], sums + column, sums + stride + column);
    }
  });
}

// Leaky ReLU of the products into y; float64 `[2, D]`.
template <class T>
Tensor small_relu_sums(List<Tensor> inputs, const Tensor& weight,
                       const std::optional<Tensor>& bias, T slope, Tensor y) {
  const int64_t num_rows = y.size(0), columns = y.size(1);
  std::vector<Padded<T>> maps;
  for (size_t i = 0; i < inputs.size(); i++) {
    maps.emplace_back(part_of(weight, i, inputs.size()).t());
  }
  const auto factors = factors_of<T>(inputs, maps);
  const int64_t stride = maps[0].stride;
  const int64_t chunks = std::max<int64_t>(1, (num_rows + ROWS_OF_A_CHUNK - 1) / ROWS_OF_A_CHUNK);
  std::vector<T> shifts(stride);
  if (bias) std::copy_n(bias->const_data_ptr<T>(), columns, shifts.begin());
  Tensor partial = zeros({chunks, 2, stride}, y.options().dtype(kDouble));
  double* sums = partial.mutable_data_ptr<double>();
  const bool streamed = static_cast<int64_t>(y.nbytes()) >= STREAMED_BYTES;
  const auto to = writing<T>(y);
  parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; chunk++) {
      const int64_t first = chunk * ROWS_OF_A_CHUNK;
      const int64_t last = std::min(num_rows, first + ROWS_OF_A_CHUNK);
      double* own = sums + chunk * 2 * stride;
      if (TUNED<T> && streamed) {
        relu_chunk<TUNED<T>, T>(factors, first, last, shifts, slope, to, own);
      } else {
        relu_chunk<false, T>(factors, first, last, shifts, slope, to, own);
      }
    }
    finish_streams();
  });
  for (int64_t chunk = 1; chunk < chunks; chunk++) {
    for (int64_t i = 0; i < 2 * stride; i++) sums[i] += sums[chunk * 2 * stride + i];
  }
  return partial[0].narrow(1, 0, columns).contiguous();
}

Tensor large_relu_sums(List<Tensor> inputs, const Tensor& weight,
                       const std::optional<Tensor>& bias, double slope, const Tensor& y) {
  Tensor sums = zeros({2, y.size(1)}, y.options().dtype(kDouble));
  over_tiles(y.size(0), y.size(1), [&](int64_t first, int64_t count) {
    Tensor tile = y.narrow(0, first, count);
    for (size_t i = 0; i < inputs.size(); i++) {
      const Tensor matrix = part_of(weight, i, inputs.size()).t();
      product(tile, inputs[i].narrow(0, first, count), matrix, i > 0);
    }
    if (bias) add_row(tile, *bias);
    add_row(sums.view({1, 2 * y.size(1)}), relu_sums_(tile, slope));
  });
  return sums;
}

std::tuple<Tensor, Tensor> linear_norm(List<Tensor> inputs, const Tensor& weight,
                                       const std::optional<Tensor>& bias, double negative_slope,
                                       SGAS_NORMS_ARGUMENTS) {
  Tensor y = empty({inputs[0].size(0), weight.size(0)}, inputs[0].options()), sums;
  if (by_registers(weight, y.size(0)) && all_dense(inputs)) {
    SGAS_FLOATING_TYPES(y.scalar_type(), "linear_norm", [&] {
      sums = small_relu_sums<scalar_t>(inputs, weight, bias,
                                       static_cast<scalar_t>(negative_slope), y);
    });
  } else {
    sums = large_relu_sums(inputs, weight, bias, negative_slope, y);
  }
  return {y, SGAS_NORMS.coefficients(sums, y.size(0))};
}

// The gradient before the ReLU of some rows, `[rows, stride]`, from `factors` `[3, columns]`.
template <class T>
void before_relu(View<const T> grad, View<const T> y, View<const T> factors, int64_t columns,
                 T negative_slope, int64_t first, int64_t last, T* out, int64_t stride) {
  const T *one = factors.row(0), *two = factors.row(1), *three = factors.row(2);
  for (int64_t row = first; row < last; row++, out += stride) {
    over_channels<T>(columns, [&](auto block, int64_t c) {
      using B = decltype(block);
      const auto zero = B::fill(0), slope = B::fill(negative_slope);
      B::prefetch(y.row(row + ROWS_AHEAD) + c);
      B::prefetch(grad.row(row + ROWS_AHEAD) + c);
      for (int u = 0; u < B::count; u++) {
        const auto value = B::load(y.row(row) + c, u);
        const auto found = B::load(one + c, u) * B::load(grad.row(row) + c, u) +
                           B::load(two + c, u) + B::load(three + c, u) * value;
        B::store(out + c, u, value > zero ? found : found * slope);
      }
    });
  }
}

void large_backward(const Tensor& grad, const Tensor& y, const Tensor& factors, double slope,
                    List<Tensor> inputs, const Tensor& weight, List<Tensor> grad_inputs,
                    const Tensor& grad_weight, Tensor grad_bias) {
  Tensor buffer;
  over_tiles(y.size(0), y.size(1), [&](int64_t first, int64_t count) {
    if (!buffer.defined()) buffer = empty({count, y.size(1)}, y.options());
    Tensor grad_h = buffer.narrow(0, 0, count);
    apply_factors(grad.narrow(0, first, count), y.narrow(0, first, count), factors, slope, grad_h);
    for (size_t i = 0; i < inputs.size(); i++) {
      if (!grad_inputs.empty()) {
        product(grad_inputs[i].narrow(0, first, count), grad_h,
                part_of(weight, i, inputs.size()), true);
      }
      if (grad_weight.size(0)) {
        product(part_of(grad_weight, i, inputs.size()), grad_h.t(),
                inputs[i].narrow(0, first, count), true);
      }
    }
    if (grad_bias.size(0)) add_row(grad_bias.view({1, y.size(1)}), grad_h.sum(0));
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_norm_backward(
    const Tensor& grad, const Tensor& y, const Tensor& coefficients,
    const std::optional<Tensor>& scale, int64_t edges, bool training, double negative_slope,
    List<Tensor> inputs, const Tensor& weight, List<Tensor> grad_inputs, bool of_weight,
    bool of_bias) {
  const int64_t num_rows = y.size(0), columns = y.size(1);
  const auto [factors, affine, of_scale] =
      norm_gradients(column_sums(grad, y, std::nullopt), coefficients, scale, num_rows, training, y);
  Tensor grad_weight = zeros({of_weight ? columns : 0, weight.size(1)}, weight.options());
  Tensor grad_bias = zeros({of_bias ? columns : 0}, weight.options());
  if (by_registers(weight, y.size(0)) && all_dense(inputs) && all_dense(grad_inputs) && !of_bias) {
    SGAS_FLOATING_TYPES(y.scalar_type(), "linear_norm_backward", [&] {
      const Tensor typed = factors.to(y.scalar_type());
      const auto g = reading<scalar_t>(grad), values = reading<scalar_t>(y);
      const scalar_t slope = static_cast<scalar_t>(negative_slope);
      const Linear<scalar_t> linear(inputs, weight, grad_inputs);
      linear_backward(linear, num_rows, grad_weight,
                      [&](int64_t, int64_t first, int64_t last, scalar_t* out) {
                        before_relu(g, values, reading<scalar_t>(typed), columns, slope, first, last,
                                    out, linear.stride);
                        return out;
                      });
    });
  } else if (of_weight || of_bias || !grad_inputs.empty()) {
    large_backward(grad, y, factors, negative_slope, inputs, weight, grad_inputs, grad_weight,
                   grad_bias);
  }
  return {affine, by_edge(of_scale, edges), grad_weight, grad_bias};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&linear_norm>("linear_norm(Tensor[] inputs, Tensor weight, Tensor? bias, float negative_slope, "
        SGAS_NORMS_SCHEMA ") -> (Tensor y, Tensor coefficients)");
  m.add<&linear_norm_backward>(
      "linear_norm_backward(Tensor grad, Tensor y, Tensor coefficients, Tensor? scale, int edges, "
      "bool training, float negative_slope, Tensor[] inputs, Tensor weight, "
      "Tensor(a!)[] grad_inputs, bool of_weight, bool of_bias) -> (Tensor affine, "
      "Tensor of_scale, Tensor grad_weight, Tensor grad_bias)");
}

}  // namespace sgas
