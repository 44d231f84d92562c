// Sum over the neighbours of each node. The gradient is the same sum over the transposed graph.


#include "lanes.h"
#include "rows.h"

namespace sgas {
namespace {

template <class T>
void sum_rows(const Matrix<T>& x, int64_t channels, int64_t num_nodes, const Index* offsets,
              const Index* nodes, T* out) {
  parallel_for(0, num_nodes, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      x.prefetch_far(i, channels);
      over_channels<T, WIDE>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        typename B::Value sum[B::count] = {};
        for (Index edge = offsets[i]; edge < offsets[i + 1]; edge++) {
          for (int u = 0; u < B::count; u++) sum[u] += B::load(x.row(nodes[edge]) + c, u);
        }
        for (int u = 0; u < B::count; u++) B::store(out + i * channels + c, u, sum[u]);
      });
    }
  });
}

Tensor sum_over(const Tensor& given, const Tensor& offsets, const Tensor& nodes) {
  const Tensor x = with_dense_rows(given);
  Tensor out = empty(x.sizes(), x.options());
  SGAS_FLOATING_TYPES(x.scalar_type(), "neighbor_sum", [&] {
    sum_rows(Matrix<scalar_t>(x), x.size(1), x.size(0), offsets.const_data_ptr<Index>(),
             nodes.const_data_ptr<Index>(), out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

Tensor neighbor_sum(const Tensor& x, SGAS_GRAPH_ARGUMENTS) {
  check_graph(x.size(0), offsets, sources, out_offsets, out_targets, out_edges, degree);
  return sum_over(x, offsets, sources);
}

Tensor neighbor_sum_backward(const Tensor& grad, SGAS_GRAPH_ARGUMENTS) {
  check_graph(grad.size(0), offsets, sources, out_offsets, out_targets, out_edges, degree);
  return sum_over(grad, out_offsets, out_targets);
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&neighbor_sum>("neighbor_sum(Tensor x, " SGAS_GRAPH_SCHEMA ") -> Tensor");
  m.add<&neighbor_sum_backward>("neighbor_sum_backward(Tensor grad, " SGAS_GRAPH_SCHEMA ") -> Tensor");
}

}  // namespace sgas
