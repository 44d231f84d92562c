// Batch norm after a ReLU, for several norms side by side, in steps that fused functions combine:
// the ReLU with its sums, the coefficients, the sums of the backward pass, the factors that come of
// them, and their use. The mathematics and the conventions are those of `kernels/torch_columns.py`.


#include <cmath>
#include <vector>

#include "norms.h"

namespace sgas {

Tensor relu_sums(const Tensor& h, double negative_slope, Tensor out, bool streamed) {
  check_dense_rows(h, "h");
  check_dense_rows(out, "out");
  Tensor sums;
  SGAS_FLOATING_TYPES(h.scalar_type(), "relu_sums", [&] {
    const auto rows = reading<scalar_t>(h);
    const auto to = writing<scalar_t>(out);
    const scalar_t by = static_cast<scalar_t>(negative_slope);
    sums = two_column_sums<scalar_t, SQUARES>(
        h.size(0), h.size(1), h,
        [&](auto block, int64_t row, int64_t stop, int64_t c, auto* total, auto* squares,
            auto* reference) {
          using B = decltype(block);
          const auto zero = B::fill(0), slope = B::fill(by);
          const auto relu = [&](int64_t r, int u) -> typename B::Value {
            const auto value = B::load(rows.row(r) + c, u);
            return value > zero ? value : value * slope;
          };
          for (int u = 0; u < B::count; u++) reference[u] = relu(row, u);
          for (; row < stop; row++) {
            for (int u = 0; u < B::count; u++) {
              const auto value = relu(row, u), apart = value - reference[u];
              if (streamed) {
                B::stream(to.row(row) + c, u, value);
              } else {
                B::store(to.row(row) + c, u, value);
              }
              total[u] += apart;
              squares[u] += apart * apart;
            }
          }
        });
  });
  return sums;
}

Tensor relu_sums_(Tensor h, double negative_slope) {
  return relu_sums(h, negative_slope, h, false);
}

namespace {

// Calls body(number, value of tensor) for all numbers of tensors that lie one after the other.
template <class T, class Body>
void over_numbers(List<Tensor> tensors, Body&& body) {
  int64_t number = 0;
  for (const Tensor& tensor : tensors) {
    SGAS_CHECK(tensor.is_contiguous(), "parameters have to be contiguous");
    const T* values = tensor.const_data_ptr<T>();
    for (int64_t i = 0; i < tensor.numel(); i++) body(number++, values[i]);
  }
}

template <class T>
void move(List<Tensor> running, const double* to, double factor, double momentum) {
  for (const Tensor& tensor : running) {
    T* values = tensor.mutable_data_ptr<T>();
    for (int64_t i = 0; i < tensor.numel(); i++, to++) {
      values[i] += static_cast<T>(momentum) * (static_cast<T>(*to * factor) - values[i]);
    }
  }
}

}  // namespace

Tensor Norms::coefficients(const Tensor& sums, int64_t count) const {
  const int64_t columns = weight[0].numel() * static_cast<int64_t>(weight.size());
  Tensor out = empty({4, columns}, weight[0].options().dtype(kDouble));
  double* slope = out.mutable_data_ptr<double>();
  double *shift = slope + columns, *mean = shift + columns, *inverse = mean + columns;
  SGAS_FLOATING_TYPES(weight[0].scalar_type(), "norm_coefficients", [&] {
    if (training) {
      SGAS_CHECK(sums.is_contiguous() && sums.numel() == 2 * columns, "sums have to be [2, D]");
      const double* total = sums.const_data_ptr<double>();
      const double rows = static_cast<double>(std::max<int64_t>(count, 1));
      for (int64_t c = 0; c < columns; c++) {
        mean[c] = total[c] / rows;
        inverse[c] = std::max(total[columns + c] / rows - mean[c] * mean[c], 0.0);
      }
      if (count > 0) {
        move<scalar_t>(running_mean, mean, 1, momentum);
        move<scalar_t>(running_var, inverse, rows / std::max(rows - 1, 1.0), momentum);
      }
    } else {
      over_numbers<scalar_t>(running_mean, [&](int64_t c, scalar_t value) { mean[c] = value; });
      over_numbers<scalar_t>(running_var, [&](int64_t c, scalar_t value) { inverse[c] = value; });
    }
    over_numbers<scalar_t>(weight, [&](int64_t c, scalar_t value) {
      inverse[c] = 1 / std::sqrt(inverse[c] + eps);
      slope[c] = value * inverse[c];
    });
    over_numbers<scalar_t>(
        bias, [&](int64_t c, scalar_t value) { shift[c] = value - slope[c] * mean[c]; });
  });
  return out;
}

Tensor column_sums(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask) {
  check_dense_rows(grad, "grad");
  check_dense_rows(y, "y");
  const int64_t columns = grad.size(1), width = y.size(1);
  SGAS_CHECK(y.size(0) == grad.size(0) && (width == 0 || columns % width == 0),
              "y has to have the rows of grad, and its columns once or for each edge");
  Tensor sums;
  SGAS_FLOATING_TYPES(grad.scalar_type(), "column_sums", [&] {
    const auto g = reading<scalar_t>(grad);
    const auto values = reading<scalar_t>(y);
    const scalar_t* counted = mask ? mask->const_data_ptr<scalar_t>() : nullptr;
    const auto sum_of = [&](int64_t first, const Tensor& like) {
      return two_column_sums<scalar_t, PRODUCTS>(
          grad.size(0), width, like,
          [&](auto block, int64_t row, int64_t stop, int64_t c, auto* total, auto* products,
              auto* reference) {
            using B = decltype(block);
            int64_t near = row;  // what is not counted has values of 0, and takes no reference off
            while (counted != nullptr && near < stop - 1 && counted[near] == 0) near++;
            for (int u = 0; u < B::count; u++) reference[u] = B::load(values.row(near) + c, u);
            for (; row < stop; row++) {
              const auto by = B::fill(counted == nullptr ? 1 : counted[row]);
              B::prefetch(g.row(row + ROWS_AHEAD) + first + c);
              B::prefetch(values.row(row + ROWS_AHEAD) + c);
              for (int u = 0; u < B::count; u++) {
                const auto of = B::load(g.row(row) + first + c, u);
                total[u] += of * by;
                products[u] += of * (B::load(values.row(row) + c, u) - reference[u] * by);
              }
            }
          });
    };
    if (width == columns) {
      sums = sum_of(0, grad);
      return;
    }
    sums = empty({2, columns}, grad.options().dtype(kDouble));
    for (int64_t first = 0; first < columns; first += width) {
      sums.narrow(1, first, width).copy_(sum_of(first, grad));
    }
  });
  return sums;
}

std::tuple<Tensor, Tensor, Tensor> norm_gradients(const Tensor& sums, const Tensor& coefficients,
                                                  const std::optional<Tensor>& scale,
                                                  int64_t count, bool training,
                                                  const Tensor& like) {
  const int64_t columns = coefficients.size(1);
  SGAS_CHECK(sums.is_contiguous() && coefficients.is_contiguous() && sums.size(1) == columns,
              "sums have to be [2, D] and coefficients [4, D]");
  Tensor factors = empty({3, columns}, coefficients.options());
  Tensor affine = empty({2, columns}, like.options());
  Tensor of_scale = empty({columns}, coefficients.options());
  const double* total = sums.const_data_ptr<double>();
  const double* slope = coefficients.const_data_ptr<double>();
  const double *shift = slope + columns, *mean = shift + columns, *inverse = mean + columns;
  double* first = factors.mutable_data_ptr<double>();
  double *second = first + columns, *third = second + columns;
  double* found = of_scale.mutable_data_ptr<double>();
  const double rows = training ? static_cast<double>(std::max<int64_t>(count, 1)) : HUGE_VAL;
  SGAS_FLOATING_TYPES(like.scalar_type(), "norm_gradients", [&] {
    const scalar_t* by = scale ? scale->const_data_ptr<scalar_t>() : nullptr;
    const int64_t channels = scale ? columns / std::max<int64_t>(scale->numel(), 1) : 1;
    scalar_t* of_affine = affine.mutable_data_ptr<scalar_t>();
    for (int64_t c = 0; c < columns; c++) {
      const double w = by == nullptr ? 1 : by[c / channels];
      const double centred = total[columns + c] - mean[c] * total[c];
      found[c] = slope[c] * centred + (shift[c] + slope[c] * mean[c]) * total[c];
      first[c] = w * slope[c];
      third[c] = -first[c] * inverse[c] * inverse[c] * centred / rows;
      second[c] = -first[c] * total[c] / rows - third[c] * mean[c];
      of_affine[c] = static_cast<scalar_t>(w * inverse[c] * centred);
      of_affine[columns + c] = static_cast<scalar_t>(w * total[c]);
    }
  });
  return {factors, affine, of_scale};
}

void apply_factors(const Tensor& grad, const Tensor& y, const Tensor& factors,
                   double negative_slope, Tensor out) {
  for (const Tensor* matrix : {&grad, &y, static_cast<const Tensor*>(&out)}) {
    check_dense_rows(*matrix, "each of grad, y and out");
    SGAS_CHECK(matrix->sizes() == grad.sizes(), "grad, y and out differ in shape");
  }
  const int64_t columns = grad.size(1);
  const Tensor typed = factors.to(grad.scalar_type()).contiguous();
  SGAS_FLOATING_TYPES(grad.scalar_type(), "apply_factors", [&] {
    const auto g = reading<scalar_t>(grad);
    const auto values = reading<scalar_t>(y);
    const auto to = writing<scalar_t>(out);
    const scalar_t* first = typed.const_data_ptr<scalar_t>();
    const scalar_t by = static_cast<scalar_t>(negative_slope);
    parallel_for(0, grad.size(0), grain_of(columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        over_channels<scalar_t>(columns, [&](auto block, int64_t c) {
          using B = decltype(block);
          const auto zero = B::fill(0), slope = B::fill(by);
          for (int u = 0; u < B::count; u++) {
            const auto value = B::load(values.row(row) + c, u);
            const auto found = B::load(first + c, u) * B::load(g.row(row) + c, u) +
                               B::load(first + columns + c, u) +
                               B::load(first + 2 * columns + c, u) * value;
            B::store(to.row(row) + c, u, value > zero ? found : found * slope);
          }
        });
      }
    });
  });
}

Tensor by_edge(const Tensor& sums, int64_t edges) {
  return sums.view({edges, sums.numel() / std::max<int64_t>(edges, 1)}).sum(1);
}

namespace {

Tensor norm_coefficients(const Tensor& sums, int64_t count, SGAS_NORMS_ARGUMENTS) {
  return SGAS_NORMS.coefficients(sums, count);
}

Tensor relu_norm_(Tensor h, double negative_slope, SGAS_NORMS_ARGUMENTS) {
  return SGAS_NORMS.coefficients(relu_sums_(h, negative_slope), h.size(0));
}

std::tuple<Tensor, Tensor> relu_norm_backward(const Tensor& grad, const Tensor& y,
                                              const Tensor& coefficients,
                                              const std::optional<Tensor>& scale, int64_t edges,
                                              bool training, double negative_slope,
                                              std::optional<Tensor> out) {
  const Tensor sums = column_sums(grad, y, std::nullopt);
  auto [factors, affine, of_scale] =
      norm_gradients(sums, coefficients, scale, y.size(0), training, y);
  if (out) apply_factors(grad, y, factors, negative_slope, *out);
  return {affine, by_edge(of_scale, edges)};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&relu_sums_>("relu_sums_(Tensor(a!) h, float negative_slope) -> Tensor");
  m.add<&relu_norm_>(
      "relu_norm_(Tensor(a!) h, float negative_slope, Tensor[] weight, Tensor[] bias, "
      "Tensor(b!)[] running_mean, Tensor(c!)[] running_var, bool training, float momentum, "
      "float eps) -> Tensor");
  m.add<&relu_norm_backward>(
      "relu_norm_backward(Tensor grad, Tensor y, Tensor coefficients, Tensor? scale, int edges, "
      "bool training, float negative_slope, Tensor(a!)? out) -> (Tensor affine, Tensor of_scale)");
  m.add<&norm_coefficients>(
      "norm_coefficients(Tensor sums, int count, Tensor[] weight, Tensor[] bias, "
      "Tensor(a!)[] running_mean, Tensor(b!)[] running_var, bool training, float momentum, "
      "float eps) -> Tensor");
  m.add<&column_sums>("column_sums(Tensor grad, Tensor y, Tensor? mask) -> Tensor");
  m.add<&norm_gradients>(
      "norm_gradients(Tensor sums, Tensor coefficients, Tensor? scale, int count, bool training, "
      "Tensor like) -> (Tensor factors, Tensor affine, Tensor of_scale)");
  m.add<&apply_factors>(
      "apply_factors(Tensor grad, Tensor y, Tensor factors, float negative_slope, "
      "Tensor(a!) out) -> ()");
}

}  // namespace sgas
