// What the kernels read: graphs in compressed rows, and matrices whose rows may stand apart.
//
// Edges offsets[i] to offsets[i + 1] enter node i, from sources[edge]. Sorted by source instead,
// the edges out of node j stand at out_offsets[j] to out_offsets[j + 1]: they go to
// out_targets[place] and are number out_edges[place] in the first order.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>

namespace sgas {

using at::Tensor;

// Runs of `nodes` (sources or targets), and where needed the edges' numbers.
template <class Index>
struct Rows {
  const Index* offsets;
  const Index* nodes;
  const Index* edges;
  int64_t count;

  Rows(const Tensor& offsets, const Tensor& nodes, const Tensor* edges = nullptr)
      : offsets(offsets.const_data_ptr<Index>()),
        nodes(nodes.const_data_ptr<Index>()),
        edges(edges == nullptr ? nullptr : edges->const_data_ptr<Index>()),
        count(offsets.numel() - 1) {}
};

inline void check_rows(const Tensor& offsets, const Tensor& nodes, int64_t num_nodes) {
  TORCH_CHECK(offsets.dim() == 1 && offsets.numel() == num_nodes + 1, "a graph of ", num_nodes,
              " nodes needs ", num_nodes + 1, " offsets, not ", offsets.sizes());
  TORCH_CHECK(nodes.dim() == 1 && nodes.numel() <= std::numeric_limits<int32_t>::max(),
              "edges are numbered by int32; a graph has ", nodes.sizes());
  TORCH_CHECK(offsets.scalar_type() == nodes.scalar_type(), "offsets are ", offsets.scalar_type(),
              ", nodes ", nodes.scalar_type());
  TORCH_CHECK(offsets.is_contiguous() && nodes.is_contiguous(), "graphs have to be contiguous");
}

inline void check_edges(const Tensor& edges, const Tensor& nodes) {
  TORCH_CHECK(edges.sizes() == nodes.sizes() && edges.scalar_type() == nodes.scalar_type() &&
                  edges.is_contiguous(),
              "the edges' numbers have to be as many, and of the type, as their nodes");
}

// The matrix as it is where each row is contiguous, as a column slice's are; else a copy.
inline Tensor with_dense_rows(const Tensor& matrix) {
  const auto last = matrix.dim() - 1;
  bool dense = matrix.size(last) <= 1 || matrix.stride(last) == 1;
  if (matrix.dim() == 3) {
    dense = dense && (matrix.size(1) <= 1 || matrix.stride(1) == matrix.size(2));
  }
  return dense ? matrix : matrix.contiguous();
}

// How many rows of so many numbers are worth a thread's while.
inline int64_t grain_of(int64_t numbers) { return std::max<int64_t>(1, 16384 / (numbers + 1)); }

#define SGAS_DISPATCH(REAL, INDEX, NAME, ...)                            \
  AT_DISPATCH_FLOATING_TYPES(REAL, NAME, [&] {                           \
    AT_DISPATCH_INDEX_TYPES(INDEX, NAME, [&] { __VA_ARGS__(); });        \
  })

}  // namespace sgas
