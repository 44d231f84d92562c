"""The backend in plain torch, on any device, for both kinds of graph."""

from __future__ import annotations

from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels import messages, torch_constant, torch_csr
from sgas_gcn.kernels.protocol import Graph, Kept
from sgas_gcn.kernels.torch_columns import (
    column_sums,
    head_dots,
    head_dots_backward,
    length_backward,
    linear_norm,
    linear_norm_backward,
    mixture,
    norm_coefficients,
    norm_gradients,
    relu_norm_,
    relu_norm_backward,
    skip_backward,
)

__all__ = [
    "attention_sum",
    "attention_sum_backward",
    "column_sums",
    "edge_conv",
    "edge_conv_backward",
    "edge_relu_stats",
    "edge_relu_stats_backward",
    "head_dots",
    "head_dots_backward",
    "largest_difference",
    "largest_difference_backward",
    "length_backward",
    "linear_norm",
    "linear_norm_backward",
    "mixture",
    "neighbor_max",
    "neighbor_max_backward",
    "neighbor_sum",
    "neighbor_sum_backward",
    "norm_coefficients",
    "norm_gradients",
    "relu_norm_",
    "relu_norm_backward",
    "sage",
    "sage_backward",
    "skip_backward",
]


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """As in `Backend`."""
    if isinstance(graph, CsrGraph):
        return torch_csr.neighbor_sum(x, graph)
    return torch_constant.neighbor_sum(x, graph)


def neighbor_sum_backward(grad: Tensor, graph: Graph) -> Tensor:
    """As in `Backend`."""
    if isinstance(graph, CsrGraph):
        return torch_csr.neighbor_sum_backward(grad, graph)
    return torch_constant.neighbor_sum_backward(grad, graph)


def neighbor_max(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    """As in `Composed`."""
    if isinstance(graph, CsrGraph):
        return torch_csr.neighbor_max(x, graph)
    return torch_constant.neighbor_max(x, graph)


def neighbor_max_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    """As in `Composed`."""
    if isinstance(graph, CsrGraph):
        return torch_csr.neighbor_max_backward(grad, kept, graph)
    return torch_constant.neighbor_max_backward(grad, kept, graph)


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """As in `Composed`."""
    if isinstance(graph, CsrGraph):
        return torch_csr.edge_relu_stats(target, source, sign, graph)
    return torch_constant.edge_relu_stats(target, source, sign, graph)


def edge_relu_stats_backward(
    grad_selected: Tensor,
    grad_total: Tensor,
    grad_squares: Tensor,
    target: Tensor,
    source: Tensor,
    kept: Kept,
    graph: Graph,
) -> tuple[Tensor, Tensor]:
    """As in `Composed`."""
    grads = (grad_selected, grad_total, grad_squares)
    if isinstance(graph, CsrGraph):
        return torch_csr.edge_relu_stats_backward(*grads, target, source, kept, graph)
    return torch_constant.edge_relu_stats_backward(*grads, target, source, kept, graph)


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> tuple[Tensor, Kept]:
    """As in `Backend`."""
    if isinstance(graph, CsrGraph):
        return torch_csr.attention_sum(values, target_score, source_score, graph, slope)
    return torch_constant.attention_sum(values, target_score, source_score, graph, slope)


def attention_sum_backward(
    grad: Tensor,
    values: Tensor,
    kept: Kept,
    graph: Graph,
    slope: float,
    factors: Tensor | None,
    vectors: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    values = messages.times(values, factors)
    if isinstance(graph, CsrGraph):
        gradients = torch_csr.attention_gradients(grad, values, kept, graph, slope)
    else:
        gradients = torch_constant.attention_gradients(grad, values, kept, graph, slope)
    return messages.through_scores(gradients, vectors)


COMPOSED = messages.Composed(
    neighbor_max,
    neighbor_max_backward,
    edge_relu_stats,
    edge_relu_stats_backward,
    norm_coefficients,
    column_sums,
    norm_gradients,
    length_backward,
)
largest_difference = COMPOSED.largest_difference
largest_difference_backward = COMPOSED.largest_difference_backward
edge_conv = COMPOSED.edge_conv
edge_conv_backward = COMPOSED.edge_conv_backward
sage = COMPOSED.sage
sage_backward = COMPOSED.sage_backward
