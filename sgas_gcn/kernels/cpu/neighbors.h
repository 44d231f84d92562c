// Aggregation over neighbours, for functions that combine it with more; see the files named after
// each.
#pragma once

#include <optional>

#include "rows.h"

namespace sgas {

// Extrema by sign and their places, Σh and Σh².
std::tuple<Tensor, Tensor, Tensor, Tensor> edge_relu_stats(const Tensor& target,
                                                           const Tensor& source,
                                                           const Tensor& sign,
                                                           SGAS_GRAPH_ARGUMENTS);

// The gradients of target and source side by side, `[N, 2D]`. The selected edges have the gradient
// factor · grad, all edges constant + slope · h where h > 0.
Tensor edge_gradients(const Tensor& grad, const std::optional<Tensor>& factor,
                      const Tensor& constant, const Tensor& slope, const Tensor& target,
                      const Tensor& source, const Tensor& selected, const Tensor& places,
                      SGAS_GRAPH_ARGUMENTS);

// Backward of terms over their length; see `mixture.cpp`.
Tensor length_backward(const Tensor& grad, const Tensor& y,
                       const std::optional<Tensor>& coefficients, const Tensor& inverse,
                       const std::optional<Tensor>& scale, double floor, std::optional<Tensor> out);

#define SGAS_GRAPH offsets, sources, out_offsets, out_targets, out_edges, degree

}  // namespace sgas
