// GraphSAGE on several edges: R(W [x, M]) with M = R(max over neighbours of P x_j [− P x_i]).
//
// The backward pass goes from the gradient of the result over its length to those of x, W and P.
// The mathematics and the conventions are those of `kernels/messages.py`.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "lengths.h"
#include "linear_backward.h"
#include "neighbors.h"

namespace sgas {
namespace {

// Some edges' columns of W: those that multiply x (0) or M (1), of one edge.
Tensor part(const Tensor& weight, int64_t which, int64_t edge) {
  const int64_t channels = weight.size(1) / 2;
  return weight.narrow(0, edge * channels, channels).narrow(1, which * channels, channels);
}

// R(W [x, M]), some rows of all edges after another.
template <class T>
void combine(const Tensor& x, const Tensor& message, const Tensor& weight, Tensor y) {
  const int64_t channels = weight.size(1) / 2, edges = weight.size(0) / channels;
  const auto own = reading<T>(x), other = reading<T>(message);
  const auto out = writing<T>(y);
  std::vector<Padded<T>> maps;
  for (int64_t edge = 0; edge < edges; edge++) {
    for (int64_t which : {0, 1}) maps.emplace_back(part(weight, which, edge).t());
  }
  std::vector<std::vector<Factor<T>>> factors;
  for (int64_t edge = 0; edge < edges; edge++) {
    const View<const T> columns{other.data + edge * channels, other.stride};
    factors.push_back({{own, &maps[2 * edge]}, {columns, &maps[2 * edge + 1], edges > 1}});
  }
  const bool streamed = static_cast<int64_t>(y.nbytes()) >= STREAMED_BYTES;
  const auto run = streamed ? multiply<T, WITH_RELU, true> : multiply<T, WITH_RELU, false>;
  over_chunks(x.size(0), [&](int64_t first, int64_t last) {
    for (int64_t edge = 0; edge < edges; edge++) {
      run(factors[edge], first, last, {out.data + edge * channels, out.stride});
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> sage(const Tensor& given, const Tensor& pre,
                                        const Tensor& weight, SGAS_GRAPH_ARGUMENTS, bool relative,
                                        bool tracked) {
  const Tensor x = with_dense_rows(given);
  Tensor projected = at::empty({x.size(0), pre.size(0)}, x.options());
  Tensor y = at::empty(projected.sizes(), x.options()), message, places;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sage", [&] {
    const Padded<scalar_t> map(pre.t());
    multiply_all<scalar_t, AS_IT_IS>({{reading<scalar_t>(x), &map}}, x.size(0),
                                     writing<scalar_t>(projected));
    std::tie(message, places) = largest(projected, SGAS_GRAPH, {relative, true, tracked});
    combine<scalar_t>(x, message, weight, y);
  });
  return {y, message, places};
}

// What goes back through R(W [x, M]) besides the way to x.
template <class T>
struct Combined {
  View<const T> grad, y, inverse, message;
  View<T> grad_message;
  const T* scale;
  T floor;
  int64_t channels, edges;
  std::vector<Padded<T>> maps;              // by edge, what multiplies M
  std::vector<std::vector<Padded<T>>> sums;  // by edge and group; empty where not wanted
  std::vector<double> of_scale;              // `[groups, edges]`

  Combined(const Tensor& grad, const Tensor& y, const Tensor& inverse,
           const std::optional<Tensor>& scale, double floor, const Tensor& message,
           const Tensor& weight, Tensor grad_message, bool of_weights)
      : grad(reading<T>(grad)),
        y(reading<T>(y)),
        inverse(reading<T>(inverse)),
        message(reading<T>(message)),
        grad_message(writing<T>(grad_message)),
        scale(scale ? scale->const_data_ptr<T>() : nullptr),
        floor(static_cast<T>(floor)),
        channels(weight.size(1) / 2),
        edges(weight.size(0) / channels) {
    const int64_t groups = groups_of(y.size(0), weight.size(0) * channels);
    of_scale.resize(groups * edges);
    for (int64_t edge = 0; edge < edges; edge++) {
      maps.emplace_back(part(weight, 1, edge));
      sums.emplace_back(of_weights ? groups : 0, Padded<T>(channels, channels));
    }
  }

  // Writes the gradient before R of some rows, and sends it on to M and what multiplies that.
  void operator()(int64_t group, int64_t first, int64_t last, T* out, int64_t stride) {
    for (int64_t edge = 0; edge < edges; edge++) {
      const int64_t c = edge * channels;
      const Edge<T> own{{grad.data + c, grad.stride},
                        {y.data + c, y.stride},
                        {out + c - first * stride, stride},
                        nullptr,
                        nullptr,
                        scale == nullptr ? T(1) : scale[edge]};
      double& along = of_scale[group * edges + edge];
      for (int64_t row = first; row < last; row++) {
        along += length_row<T>(own, row, channels, inverse.row(row)[edge], floor);
      }
      const View<T> to{grad_message.data + c, grad_message.stride};
      const View<const T> of{message.data + c, message.stride};
      multiply<T, AS_IT_IS>({{{out + c - first * stride, stride}, &maps[edge]}}, first, last, to);
      for (int64_t row = first; row < last; row++) {
        mask(of.row(row), of.row(row + ROWS_AHEAD), to.row(row));
      }
      if (sums[edge].empty()) continue;
      add_transposed(out + c, stride, View<const T>{of.row(first), of.stride}, last - first,
                     sums[edge][group]);
    }
  }

  void mask(const T* values, const T* later, T* found) const {
    over_channels<T>(channels, [&](auto block, int64_t c) {
      using B = decltype(block);
      B::prefetch(later + c);
      const auto zero = B::fill(0);
      for (int u = 0; u < B::count; u++) {
        const auto on = B::load(values + c, u) > zero;
        B::store(found + c, u, on ? B::load(found + c, u) : zero);
      }
    });
  }
};

std::tuple<Tensor, Tensor, Tensor> sage_backward(
    const Tensor& given_grad, const Tensor& y, const Tensor& inverse,
    const std::optional<Tensor>& scale, double floor, const Tensor& given, const Tensor& message,
    const Tensor& places, const Tensor& pre, const Tensor& weight, SGAS_GRAPH_ARGUMENTS,
    bool relative, std::optional<Tensor> grad_x, bool of_weights) {
  const Tensor x = with_dense_rows(given), grad = with_dense_rows(given_grad);
  const int64_t columns = weight.size(0), channels = weight.size(1) / 2, edges = columns / channels;
  const std::vector<Tensor> inputs{x}, grads{grad_x.value_or(x)};
  const at::TensorList wanted = grad_x ? at::TensorList(grads) : at::TensorList();
  Tensor grad_weight = at::zeros({of_weights ? columns : 0, 2 * channels}, weight.options());
  Tensor grad_pre = at::zeros({of_weights ? columns : 0, channels}, weight.options());
  Tensor of_scale = at::zeros({edges}, y.options().dtype(at::kDouble));
  Tensor grad_message = at::empty_like(message);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "sage_backward", [&] {
    Combined<scalar_t> combined(grad, y, inverse, scale, floor, message, weight, grad_message,
                                of_weights);
    const Linear<scalar_t> own(inputs, weight.narrow(1, 0, channels), wanted);
    linear_backward(own, x.size(0), grad_weight.narrow(1, 0, of_weights ? channels : 0),
                    [&](int64_t group, int64_t first, int64_t last, scalar_t* out) {
                      combined(group, first, last, out, own.stride);
                      return out;
                    });
    double* found = of_scale.mutable_data_ptr<double>();
    for (size_t i = 0; i < combined.of_scale.size(); i++) found[i % edges] += combined.of_scale[i];
    for (int64_t edge = 0; of_weights && edge < edges; edge++) {
      write_transposed(combined.sums[edge], writing<scalar_t>(part(grad_weight, 1, edge)));
    }
    const Tensor grad_projected = neighbor_max_backward(grad_message, places, SGAS_GRAPH, relative);
    linear_backward(Linear<scalar_t>(inputs, pre, wanted), grad_projected, grad_pre);
  });
  return {of_scale, grad_pre, grad_weight};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def("sage(Tensor x, Tensor pre, Tensor weight, " SGAS_GRAPH_SCHEMA
        ", bool relative, bool tracked) -> (Tensor y, Tensor message, Tensor places)");
  m.def(
      "sage_backward(Tensor grad, Tensor y, Tensor inverse, Tensor? scale, float floor, Tensor x, "
      "Tensor message, Tensor places, Tensor pre, Tensor weight, " SGAS_GRAPH_SCHEMA
      ", bool relative, Tensor(a!)? grad_x, bool of_weights) -> (Tensor of_scale, "
      "Tensor grad_pre, Tensor grad_weight)");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("sage", sage);
  m.impl("sage_backward", sage_backward);
}

}  // namespace sgas
