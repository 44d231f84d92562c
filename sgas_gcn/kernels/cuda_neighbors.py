"""Aggregation over neighbours by Triton kernels, on CUDA, or interpreted on any device.

Each function is an operator of torch (namespace `sgas_gcn_cuda`) with its shapes for fake tensors.
They are opaque to torch.compile, so that it sees the same of compiled and interpreted kernels.
Nothing of the size of the edges is kept for the backward pass. Sums run in float32, of float64 in
float64. Dimensions: N nodes, E edges, m edges of a cell, C channels of each, D = m·C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.protocol import Graph
from sgas_gcn.kernels.triton.attention import attention, attention_gradients
from sgas_gcn.kernels.triton.maxima import chosen_sum, row_max
from sgas_gcn.kernels.triton.relu_stats import relu_stats, relu_stats_gradients
from sgas_gcn.kernels.triton.rows import wide
from sgas_gcn.kernels.triton.sums import row_sum

# A graph as operators take it. Incoming: offsets, sources. Outgoing, of the edges sorted by source:
# offsets, targets, edge numbers.
Rows = Sequence[Tensor]


def incoming(graph: Graph) -> list[Tensor]:
    """Offsets and sources of the edges sorted by target."""
    return [graph.offsets, graph.sources] if isinstance(graph, CsrGraph) else [*graph.runs]


def outgoing(graph: Graph) -> list[Tensor]:
    """Offsets, targets and numbers of the edges sorted by source."""
    if isinstance(graph, CsrGraph):
        return [graph.out_offsets, graph.out_targets, graph.out_edges]
    targets, offsets, edges = graph.transposed
    return [offsets, targets, edges]


@torch.library.custom_op("sgas_gcn_cuda::sum", mutates_args=())
def sum_op(x: Tensor, incoming: Sequence[Tensor]) -> Tensor:
    """The operator of `neighbor_sum`."""
    with torch.cuda.device_of(x):
        return row_sum(x, incoming[0], incoming[1])


@sum_op.register_fake
def _(x: Tensor, incoming: Rows) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("sgas_gcn_cuda::max", mutates_args=())
def max_op(x: Tensor, incoming: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The operator of `neighbor_max`, with the edge that was chosen."""
    with torch.cuda.device_of(x):
        return row_max(x, incoming[0], incoming[1])


@max_op.register_fake
def _(x: Tensor, incoming: Rows) -> tuple[Tensor, Tensor]:
    best = torch.empty_like(x, memory_format=torch.contiguous_format)
    return best, torch.empty_like(best, dtype=torch.int32)


@torch.library.custom_op("sgas_gcn_cuda::max_backward", mutates_args=())
def max_gradient_op(grad: Tensor, chosen: Tensor, outgoing: Sequence[Tensor]) -> Tensor:
    """The gradient of `max_op`."""
    with torch.cuda.device_of(grad):
        return chosen_sum(grad, chosen, *outgoing)


@max_gradient_op.register_fake
def _(grad: Tensor, chosen: Tensor, outgoing: Rows) -> Tensor:
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


@torch.library.custom_op("sgas_gcn_cuda::relu_stats", mutates_args=())
def relu_stats_op(
    target: Tensor, source: Tensor, sign: Tensor, incoming: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator of `edge_relu_stats`, with the edge that was chosen."""
    with torch.cuda.device_of(target):
        return relu_stats(target, source, sign, incoming[0], incoming[1])


@relu_stats_op.register_fake
def _(
    target: Tensor, source: Tensor, sign: Tensor, incoming: Rows
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    selected = torch.empty_like(target, memory_format=torch.contiguous_format)
    total = target.new_empty(target.shape[1], dtype=torch.float64)
    chosen = torch.empty_like(selected, dtype=torch.int32)
    return selected, total, torch.empty_like(total), chosen


@torch.library.custom_op("sgas_gcn_cuda::relu_stats_backward", mutates_args=())
def relu_stats_gradients_op(
    grads: Sequence[Tensor],
    saved: Sequence[Tensor],
    incoming: Sequence[Tensor],
    outgoing: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """The gradients of `relu_stats_op` by target and source."""
    with torch.cuda.device_of(grads[0]):
        return relu_stats_gradients(grads, saved, incoming, outgoing)


@relu_stats_gradients_op.register_fake
def _(grads: Rows, saved: Rows, incoming: Rows, outgoing: Rows) -> tuple[Tensor, Tensor]:
    target, source, _ = saved
    return (
        torch.empty_like(target, memory_format=torch.contiguous_format),
        torch.empty_like(source, memory_format=torch.contiguous_format),
    )


@torch.library.custom_op("sgas_gcn_cuda::attention", mutates_args=())
def attention_op(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    incoming: Sequence[Tensor],
    slope: float,
) -> tuple[Tensor, Tensor]:
    """The operator of `attention_sum`, with the logarithmic sums of the scores."""
    with torch.cuda.device_of(values):
        return attention(values, target_score, source_score, incoming[0], incoming[1], slope)


@attention_op.register_fake
def _(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    incoming: Rows,
    slope: float,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    return out, out.new_empty(values.shape[:2], dtype=wide(values.dtype))


@torch.library.custom_op("sgas_gcn_cuda::attention_backward", mutates_args=())
def attention_gradients_op(
    grad: Tensor,
    saved: Sequence[Tensor],
    incoming: Sequence[Tensor],
    outgoing: Sequence[Tensor],
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `attention_op` by values and scores."""
    with torch.cuda.device_of(grad):
        return attention_gradients(grad, saved, incoming, outgoing, slope)


@attention_gradients_op.register_fake
def _(
    grad: Tensor, saved: Rows, incoming: Rows, outgoing: Rows, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(saved[0], memory_format=contiguous),
        torch.empty_like(saved[1], memory_format=contiguous),
        torch.empty_like(saved[2], memory_format=contiguous),
    )
