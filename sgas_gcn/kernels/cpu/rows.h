// What the kernels read: graphs in compressed rows, and matrices whose rows may stand apart.
//
// Edges offsets[i] to offsets[i + 1] enter node i, from sources[edge]. Sorted by source instead,
// the edges out of node j stand at out_offsets[j] to out_offsets[j + 1]: they go to
// out_targets[at] and are number out_edges[at] in the first order. No node has more than `degree`
// edges that enter it. Every operator takes all of it, so that its gradient has it too.
#pragma once


#include <algorithm>
#include <limits>

#include "lanes.h"
#include "tensor.h"

namespace sgas {

using Index = int32_t;  // numbers nodes and edges


// The arguments that say what a graph is, in the operators' schemas and in C++.
#define SGAS_GRAPH_SCHEMA \
  "Tensor offsets, Tensor sources, Tensor out_offsets, Tensor out_targets, Tensor out_edges, " \
  "int degree"
#define SGAS_GRAPH_ARGUMENTS                                                      \
  const Tensor &offsets, const Tensor &sources, const Tensor &out_offsets,        \
      const Tensor &out_targets, const Tensor &out_edges, int64_t degree

struct Rows {
  const Index* offsets;
  const Index* sources;
  const Index* out_offsets;
  const Index* out_targets;
  const Index* out_edges;
  int64_t count;

  Rows(const Tensor& offsets, const Tensor& sources, const Tensor& out_offsets,
       const Tensor& out_targets, const Tensor& out_edges)
      : offsets(offsets.const_data_ptr<Index>()),
        sources(sources.const_data_ptr<Index>()),
        out_offsets(out_offsets.const_data_ptr<Index>()),
        out_targets(out_targets.const_data_ptr<Index>()),
        out_edges(out_edges.const_data_ptr<Index>()),
        count(offsets.numel() - 1) {}
};

inline void check_graph(int64_t num_nodes, SGAS_GRAPH_ARGUMENTS) {
  SGAS_CHECK(offsets.numel() == num_nodes + 1 && out_offsets.numel() == num_nodes + 1,
              "a graph of ", num_nodes, " nodes needs ", num_nodes + 1, " offsets, not ",
              offsets.numel(), " and ", out_offsets.numel());
  SGAS_CHECK(degree <= std::numeric_limits<int32_t>::max(), "a node has ", degree, " edges");
  for (const Tensor* each : {&sources, &out_targets, &out_edges}) {
    SGAS_CHECK(each->numel() == sources.numel(), "not all edges are told from both sides");
  }
  for (const Tensor* each : {&offsets, &sources, &out_offsets, &out_targets, &out_edges}) {
    SGAS_CHECK(each->scalar_type() == kInt && each->is_contiguous(),
                "a graph has to be contiguous and of int32, not ", each->scalar_type());
  }
}

// One matrix of the arguments: its first number and how far rows stand apart.
template <class T>
struct Matrix {
  const T* data;
  int64_t stride;
  bool cached = false;  // it was just made

  explicit Matrix(const Tensor& x) : data(x.const_data_ptr<T>()), stride(x.stride(0)) {}
  Matrix(const T* data, int64_t stride, bool cached = false)
      : data(data), stride(stride), cached(cached) {}

  const T* row(int64_t i) const { return data + i * stride; }

  // Asks the second cache for what nodes some way on will read. Neighbours are read in no order
  // that a processor could guess, but few are far: on a Zen 4 sums over neighbours took a quarter
  // less time.
  void prefetch_far(int64_t i, int64_t channels) const {
    constexpr int64_t most = 1024, far = 384 << 10;  // rows, bytes
    if (!AMD || cached) return;
    prefetch_numbers(row(i + std::min<int64_t>(most, far / (channels * sizeof(T) + 1))), channels);
  }
};

// The type of a number that says which of a node's edges was chosen, the first being 0.
inline ScalarType place_type(int64_t degree) { return degree <= 256 ? kByte : kInt; }

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

// Runs a lambda that takes a pointer to the places of a tensor.
template <class Body>
void with_places(const Tensor& places, Body&& body) {
  if (places.scalar_type() == kByte) {
    body(static_cast<uint8_t*>(places.data_ptr()));
  } else {
    SGAS_CHECK(places.scalar_type() == kInt, "places are uint8 or int32");
    body(static_cast<int32_t*>(places.data_ptr()));
  }
}

}  // namespace sgas
