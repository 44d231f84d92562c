// The same edges sorted by source: one counting sort, stable, linear in nodes and edges.


#include <vector>

#include "rows.h"

namespace sgas {
namespace {

void sort_by_source(const Index* offsets, const Index* sources, int64_t num_nodes,
                    Index* out_offsets, Index* out_targets, Index* out_edges) {
  for (Index edge = 0; edge < offsets[num_nodes]; edge++) out_offsets[sources[edge] + 1]++;
  for (int64_t j = 0; j < num_nodes; j++) out_offsets[j + 1] += out_offsets[j];
  std::vector<Index> next(out_offsets, out_offsets + num_nodes);
  for (int64_t i = 0; i < num_nodes; i++) {
    for (Index edge = offsets[i]; edge < offsets[i + 1]; edge++) {
      const Index at = next[sources[edge]]++;
      out_targets[at] = static_cast<Index>(i);
      out_edges[at] = edge;
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> transpose(const Tensor& offsets, const Tensor& sources) {
  SGAS_CHECK(offsets.numel() > 0 && offsets.scalar_type() == kInt &&
                  sources.scalar_type() == kInt && offsets.is_contiguous() &&
                  sources.is_contiguous(),
              "rows have to be contiguous and of int32");
  Tensor out_offsets = zeros(offsets.sizes(), offsets.options());
  Tensor out_targets = empty(sources.sizes(), sources.options());
  Tensor out_edges = empty(sources.sizes(), sources.options());
  sort_by_source(offsets.const_data_ptr<Index>(), sources.const_data_ptr<Index>(),
                 offsets.numel() - 1, out_offsets.mutable_data_ptr<Index>(),
                 out_targets.mutable_data_ptr<Index>(), out_edges.mutable_data_ptr<Index>());
  return {out_offsets, out_targets, out_edges};
}

}  // namespace

SGAS_OPERATORS(sgas_gcn, m) {
  m.add<&transpose>(
      "transpose(Tensor offsets, Tensor sources) -> (Tensor out_offsets, Tensor out_targets, "
      "Tensor out_edges)");
}

}  // namespace sgas
