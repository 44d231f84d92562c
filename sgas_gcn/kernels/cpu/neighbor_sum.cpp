// Sum over the neighbours of each node. The gradient is the same sum over the transposed graph.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "lanes.h"
#include "rows.h"

namespace sgas {
namespace {

template <class T, class Index>
void sum_rows(const T* x, int64_t stride, int64_t channels, const Rows<Index>& rows, T* out) {
  at::parallel_for(0, rows.count, grain_of(channels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      over_channels<T>(channels, [&](auto block, int64_t c) {
        using B = decltype(block);
        typename B::Value sum[B::count] = {};
        for (Index edge = rows.offsets[i]; edge < rows.offsets[i + 1]; edge++) {
          const T* source = x + rows.nodes[edge] * stride + c;
          for (int u = 0; u < B::count; u++) sum[u] += B::load(source, u);
        }
        for (int u = 0; u < B::count; u++) B::store(out + i * channels + c, u, sum[u]);
      });
    }
  });
}

Tensor neighbor_sum(const Tensor& given, const Tensor& offsets, const Tensor& sources,
                    const Tensor& out_offsets, const Tensor& out_targets) {
  check_rows(offsets, sources, given.size(0));
  const Tensor x = with_dense_rows(given);
  Tensor out = at::empty(x.sizes(), x.options());
  SGAS_DISPATCH(x.scalar_type(), sources.scalar_type(), "neighbor_sum", [&] {
    sum_rows<scalar_t, index_t>(x.const_data_ptr<scalar_t>(), x.stride(0), x.size(1),
                                {offsets, sources}, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(sgas_gcn, m) {
  m.def(
      "neighbor_sum(Tensor x, Tensor offsets, Tensor sources, Tensor out_offsets, "
      "Tensor out_targets) -> Tensor");
}

TORCH_LIBRARY_IMPL(sgas_gcn, CPU, m) { m.impl("neighbor_sum", neighbor_sum); }

}  // namespace sgas
