// Maximum over the neighbours of each node, and which edge had it.
//
// The edge is kept and not the source: a source may be a node's neighbour twice, and only one of
// the two takes the gradient. Each source collects its gradient over the edges that leave it, so
// that no two threads write to one place and the order of the sum is fixed.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "lanes.h"
#include "rows.h"

namespace sgas {
namespace {

template <class T, class Index>
void max_rows(const T* x, int64_t stride, int64_t channels, const Rows<Index>& rows, T* best,
              int32_t* edges) {
  at::parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Index first = rows.offsets[i], last = rows.offsets[i + 1];
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        typename B::Value largest[B::count];
        typename B::Integer chosen[B::count];
        const T lowest = first == last ? 0 : -std::numeric_limits<T>::infinity();
        for (int u = 0; u < B::count; u++) {
          largest[u] = B::fill(lowest);
          chosen[u] = B::fill_integer(first == last ? -1 : first);
        }
        for (Index edge = first; edge < last; edge++) {
          const T* source = x + rows.nodes[edge] * stride + c;
          const auto number = B::fill_integer(edge);
          for (int u = 0; u < B::count; u++) {
            const auto value = B::load(source, u);
            // A NaN wins and stays, so that it is seen.
            const auto wins = (value > largest[u]) | (value != value);
            largest[u] = wins ? value : largest[u];
            chosen[u] = wins ? number : chosen[u];
          }
        }
        for (int u = 0; u < B::count; u++) {
          B::store(best + i * channels + c, u, largest[u]);
          B::store_integer(edges + i * channels + c, u, chosen[u]);
        }
      });
    }
  });
}

template <class T, class Index>
void collect(const T* grad, int64_t stride, int64_t channels, const int32_t* edges,
             const Rows<Index>& out_rows, T* grad_x) {
  at::parallel_for(0, out_rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        const auto zero = B::fill(0);
        typename B::Value sum[B::count] = {};
        for (Index place = out_rows.offsets[j]; place < out_rows.offsets[j + 1]; place++) {
          const int64_t target = out_rows.nodes[place];
          const auto edge = B::fill_integer(out_rows.edges[place]);
          for (int u = 0; u < B::count; u++) {
            const auto chosen = B::load_integer(edges + target * channels + c, u);
            sum[u] += chosen == edge ? B::load(grad + target * stride + c, u) : zero;
          }
        }
        for (int u = 0; u < B::count; u++) B::store(grad_x + j * channels + c, u, sum[u]);
      });
    }
  });
}

std::tuple<Tensor, Tensor> neighbor_max(const Tensor& given, const Tensor& offsets,
                                        const Tensor& sources, const Tensor& out_offsets,
                                        const Tensor& out_targets, const Tensor& out_edges) {
  check_rows(offsets, sources, given.size(0));
  const Tensor x = with_dense_rows(given);
  Tensor best = at::empty(x.sizes(), x.options());
  Tensor edges = at::empty(x.sizes(), x.options().dtype(at::kInt));
  SGAS_DISPATCH(x.scalar_type(), sources.scalar_type(), "neighbor_max", [&] {
    max_rows<scalar_t, index_t>(x.const_data_ptr<scalar_t>(), x.stride(0), x.size(1),
                                {offsets, sources}, best.mutable_data_ptr<scalar_t>(),
                                edges.mutable_data_ptr<int32_t>());
  });
  return {best, edges};
}

Tensor neighbor_max_backward(const Tensor& given, const Tensor& edges, const Tensor& out_offsets,
                             const Tensor& out_targets, const Tensor& out_edges) {
  check_rows(out_offsets, out_targets, given.size(0));
  check_edges(out_edges, out_targets);
  TORCH_CHECK(edges.sizes() == given.sizes() && edges.is_contiguous(),
              "the chosen edges have to be those of neighbor_max");
  const Tensor grad = with_dense_rows(given);
  Tensor grad_x = at::empty(grad.sizes(), grad.options());
  SGAS_DISPATCH(grad.scalar_type(), out_targets.scalar_type(), "neighbor_max_backward", [&] {
    collect<scalar_t, index_t>(grad.const_data_ptr<scalar_t>(), grad.stride(0), grad.size(1),
                               edges.const_data_ptr<int32_t>(),
                               {out_offsets, out_targets, &out_edges},
                               grad_x.mutable_data_ptr<scalar_t>());
  });
  return grad_x;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def(
      "neighbor_max(Tensor x, Tensor offsets, Tensor sources, Tensor out_offsets, "
      "Tensor out_targets, Tensor out_edges) -> (Tensor best, Tensor edges)");
  m.def(
      "neighbor_max_backward(Tensor grad, Tensor edges, Tensor out_offsets, Tensor out_targets, "
      "Tensor out_edges) -> Tensor");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) {
  m.impl("neighbor_max", neighbor_max);
  m.impl("neighbor_max_backward", neighbor_max_backward);
}

}  // namespace sgas
