// EdgeConv on several edges: max over neighbours of BN(R(A x_i + B x_j)), W = [A + B, B] given.
//
// A x and B x are computed again in the backward pass, one product for both. The mathematics and
// the conventions are those of `kernels/messages.py`.

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "linear_backward.h"
#include "neighbors.h"
#include "norms.h"

namespace sgas {
namespace {

// A and B one below the other: `[2D, C]`.
Tensor maps_of(const Tensor& weight) {
  const Tensor first = part_of(weight, 0, 2), second = part_of(weight, 1, 2);
  return at::cat(std::vector<Tensor>{first.sub(second), second});
}

// x · mapsᵀ.
Tensor projected_by(const Tensor& x, const Tensor& maps) {
  if (!by_registers(maps, x.size(0))) return at::mm(x, maps.t());
  Tensor out = at::empty({x.size(0), maps.size(0)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "projected_by", [&] {
    const Padded<scalar_t> map(maps.t());
    multiply_all<scalar_t, AS_IT_IS>({{reading<scalar_t>(x), &map}}, x.size(0),
                                     writing<scalar_t>(out));
  });
  return out;
}

// The gradient of the maps, from that of what they gave; that of x is added to `grad_x`.
Tensor back_by(const Tensor& grad, const Tensor& x, const Tensor& maps,
               const std::optional<Tensor>& grad_x, bool of_maps) {
  if (!by_registers(maps, x.size(0))) {
    if (grad_x) product(*grad_x, grad, maps, true);
    return of_maps ? at::mm(grad.t(), x) : Tensor();
  }
  const std::vector<Tensor> inputs{x}, grads{grad_x.value_or(x)};
  Tensor found = at::zeros({of_maps ? maps.size(0) : 0, x.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "edge_conv_backward", [&] {
    const at::TensorList wanted = grad_x ? at::TensorList(grads) : at::TensorList();
    linear_backward(Linear<scalar_t>(inputs, maps, wanted), grad, found);
  });
  return found;
}

std::tuple<Tensor, Tensor, Tensor> edge_conv(const Tensor& given, const Tensor& weight,
                                             SGAS_GRAPH_ARGUMENTS, SGAS_NORMS_ARGUMENTS) {
  const at::AutoDispatchBelowAutograd below;
  const Tensor x = with_dense_rows(given);
  const int64_t columns = weight.size(0);
  const Tensor projected = projected_by(x, maps_of(weight));
  const Tensor gamma = at::cat(norm_weight), one = at::ones({}, x.options());
  const auto [y, places, total, squares] =
      edge_relu_stats(projected.narrow(1, 0, columns), projected.narrow(1, columns, columns),
                      at::where(gamma.lt(0), one.neg(), one), SGAS_GRAPH);
  const Tensor sums = at::cat(std::vector<Tensor>{total, squares}).view({2, columns});
  return {y, places, SGAS_NORMS.coefficients(sums, sources.numel())};
}

std::tuple<Tensor, Tensor, Tensor> edge_conv_backward(
    const Tensor& grad, const Tensor& y, const Tensor& coefficients,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& mask, int64_t edges,
    bool training, const Tensor& given, const Tensor& places, const Tensor& weight,
    SGAS_GRAPH_ARGUMENTS, std::optional<Tensor> grad_x, bool of_weight) {
  const at::AutoDispatchBelowAutograd below;
  const Tensor x = with_dense_rows(given);
  const int64_t columns = weight.size(0);
  const auto [factors, affine, of_scale] = norm_gradients(
      column_sums(grad, y, mask), coefficients, scale, sources.numel(), training, y);
  Tensor grad_weight = at::empty({of_weight ? columns : 0, weight.size(1)}, weight.options());
  if (grad_x || of_weight) {
    const Tensor maps = maps_of(weight), projected = projected_by(x, maps);
    const Tensor both = edge_gradients(grad, factors[0], factors[1], factors[2],
                                       projected.narrow(1, 0, columns),
                                       projected.narrow(1, columns, columns), y, places, SGAS_GRAPH);
    const Tensor found = back_by(both, x, maps, grad_x, of_weight);
    if (of_weight) {
      Tensor first = part_of(grad_weight, 0, 2);
      first.copy_(found.narrow(0, 0, columns));
      part_of(grad_weight, 1, 2).copy_(found.narrow(0, columns, columns).sub(first));
    }
  }
  return {affine, by_edge(of_scale, edges), grad_weight};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def("edge_conv(Tensor x, Tensor weight, " SGAS_GRAPH_SCHEMA ", " SGAS_NORMS_SCHEMA
        ") -> (Tensor y, Tensor places, Tensor coefficients)");
  m.def(
      "edge_conv_backward(Tensor grad, Tensor y, Tensor coefficients, Tensor? scale, Tensor? mask, "
      "int edges, bool training, Tensor x, Tensor places, Tensor weight, " SGAS_GRAPH_SCHEMA
      ", Tensor(a!)? grad_x, bool of_weight) -> (Tensor affine, Tensor of_scale, "
      "Tensor grad_weight)");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("edge_conv", edge_conv);
  m.impl("edge_conv_backward", edge_conv_backward);
}

}  // namespace sgas
