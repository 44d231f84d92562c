"""The primitives in plain torch, for graphs whose nodes have any number of edges, on any device.

Sums run over compressed rows without a tensor of edges; what has to look at each edge does so a
piece at a time and again in the backward pass. Alone the attention weights, one number for each
edge and head, are kept. Dimensions: N nodes, E edges, D or m·C stacked channels (m edges of a cell,
C channels each). A node without edges gives 0. Gradients are exact and can be taken once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.scatter import max_by_rows

# Numbers worked on at a time where edges are looked at one by one.
PIECE = {"cpu": 2**20, "cuda": 2**25}


def neighbor_sum(x: Tensor, graph: CsrGraph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""
    return NeighborSum.apply(x, graph)


def neighbor_max(x: Tensor, graph: CsrGraph) -> Tensor:
    """Maximum of `x` `[N, D]` over the sources of each node: `[N, D]`; the first of equals."""
    return NeighborMax.apply(x, graph)


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: CsrGraph
) -> tuple[Tensor, Tensor, Tensor]:
    """Extrema `[N, D]` by `sign` `[D]`, sums and sums of squares `[D]` of ReLU(target + source)."""
    return EdgeReluStats.apply(target, source, sign, graph)


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: CsrGraph, slope: float
) -> Tensor:
    """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`."""
    return AttentionSum.apply(values, target_score, source_score, graph, slope)


def _row_sum(x: Tensor, index: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted sums of rows of `x`, named by `index`, over the run of each row: `[N, D]`."""
    return F.embedding_bag(
        index, x, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _pieces(graph: CsrGraph, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of the edges, each of a bounded number of `width` values."""
    size = max(1, PIECE.get(device.type, PIECE["cuda"]) // max(width, 1))
    for start in range(0, graph.num_edges, size):
        yield slice(start, start + size)


def _largest(x: Tensor, graph: CsrGraph, track: bool) -> tuple[Tensor, Tensor | None]:
    """Maxima `[N, D]` over the sources and, if asked, the source `[N, D]` that had each first.

    A node without edges has the maximum 0, and some source that means nothing.
    """
    if track:
        chosen = max_by_rows(x, graph)
        if chosen is not None:
            return chosen
        best, _, _, source = torch.embedding_bag(
            x, graph.sources, graph.offsets, mode=2, include_last_offset=True
        )
        return best, source
    best = torch.full_like(x, -torch.inf, memory_format=torch.contiguous_format)
    for piece in _pieces(graph, x.shape[1], x.device):
        rows = graph.targets[piece].unsqueeze(1).expand(-1, x.shape[1])
        best.scatter_reduce_(0, rows, x.index_select(0, graph.sources[piece]), "amax")
    return best.masked_fill_(~graph.has_edges, 0), None


def _scatter_chosen(grad: Tensor, source: Tensor, graph: CsrGraph) -> Tensor:
    """Each entry of `grad` `[N, D]` at the source `[N, D]` that was chosen for it, added up."""
    width = grad.shape[1]
    out = torch.zeros_like(grad, memory_format=torch.contiguous_format)
    places = (source * width).add_(torch.arange(width, device=grad.device))
    out.view(-1).index_add_(0, places.view(-1), (grad * graph.has_edges).reshape(-1))
    return out


class NeighborSum(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: CsrGraph) -> Tensor:
        ctx.graph = graph
        return _row_sum(x, graph.sources, graph.offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _row_sum(grad, ctx.graph.out_targets, ctx.graph.out_offsets), None


class NeighborMax(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: CsrGraph) -> Tensor:
        best, source = _largest(x, graph, ctx.needs_input_grad[0])
        ctx.graph = graph
        ctx.save_for_backward(source)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (source,) = ctx.saved_tensors
        return _scatter_chosen(grad, source, ctx.graph), None


class EdgeReluStats(Function):
    @staticmethod
    def forward(
        ctx: Any, target: Tensor, source: Tensor, sign: Tensor, graph: CsrGraph
    ) -> tuple[Tensor, Tensor, Tensor]:
        width = source.shape[1]
        total = torch.zeros(width, dtype=torch.float64, device=source.device)
        squares = torch.zeros_like(total)
        for piece in _pieces(graph, width, source.device):
            h = source.index_select(0, graph.sources[piece])
            h.add_(target.index_select(0, graph.targets[piece])).relu_()
            total.add_(h.sum(0))
            squares.add_(h.square_().sum(0))
        best, chosen = _largest(source * sign, graph, any(ctx.needs_input_grad[:2]))
        selected = torch.addcmul(target, best, sign).relu_().masked_fill_(~graph.has_edges, 0)
        ctx.graph = graph
        ctx.save_for_backward(target, source, chosen, selected)
        return selected, total, squares

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_selected: Tensor, grad_total: Tensor, grad_squares: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        target, source, chosen, selected = ctx.saved_tensors
        graph = ctx.graph
        constant, slope = grad_total.to(target.dtype), (2 * grad_squares).to(target.dtype)
        grad_target = torch.ops.aten.threshold_backward(grad_selected, selected, 0)
        grad_source = _scatter_chosen(grad_target, chosen, graph)
        for piece in _pieces(graph, source.shape[1], source.device):
            sources, targets = graph.sources[piece], graph.targets[piece]
            h = source.index_select(0, sources).add_(target.index_select(0, targets))
            grad_h = torch.addcmul(constant, h, slope)
            grad_h = torch.ops.aten.threshold_backward(grad_h, h, 0)
            grad_target.index_add_(0, targets, grad_h)
            grad_source.index_add_(0, sources, grad_h)
        return grad_target, grad_source, None, None


class AttentionSum(Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        target_score: Tensor,
        source_score: Tensor,
        graph: CsrGraph,
        slope: float,
    ) -> Tensor:
        # Leaky ReLU rises, so a node's largest score is that of its largest source score.
        largest, _ = _largest(source_score, graph, track=False)
        top = F.leaky_relu(largest.add_(target_score), slope)
        scores = source_score.index_select(0, graph.sources)
        scores.add_(target_score.index_select(0, graph.targets))  # [E, m]
        weights = F.leaky_relu(scores, slope).sub_(top.index_select(0, graph.targets)).exp_()
        edges = torch.arange(graph.num_edges, device=values.device)
        weights.div_(_row_sum(weights, edges, graph.offsets).index_select(0, graph.targets))
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(values, scores, weights)
        return torch.stack(
            [
                _row_sum(part, graph.sources, graph.offsets, weight)
                for part, weight in zip(_heads(values), _heads(weights), strict=True)
            ],
            dim=1,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, scores, weights = ctx.saved_tensors
        graph: CsrGraph = ctx.graph
        weighted = torch.empty_like(weights)  # by each edge: its weight, times that one's gradient
        for piece in _pieces(graph, values.shape[1:].numel(), grad.device):
            products = values.index_select(0, graph.sources[piece])
            products.mul_(grad.index_select(0, graph.targets[piece]))
            torch.mul(products.sum(2), weights[piece], out=weighted[piece])
        edges = torch.arange(graph.num_edges, device=grad.device)
        total = _row_sum(weighted, edges, graph.offsets).index_select(0, graph.targets)
        grad_scores = weighted.addcmul_(weights, total, value=-1)
        grad_scores = torch.ops.aten.leaky_relu_backward(grad_scores, scores, ctx.slope, False)
        by_source = weights.index_select(0, graph.out_edges)
        grad_values = torch.stack(
            [
                _row_sum(part, graph.out_targets, graph.out_offsets, weight)
                for part, weight in zip(_heads(grad), _heads(by_source), strict=True)
            ],
            dim=1,
        )
        grad_target = _row_sum(grad_scores, edges, graph.offsets)
        grad_source = _row_sum(grad_scores, graph.out_edges, graph.out_offsets)
        return grad_values, grad_target, grad_source, None, None


def _heads(x: Tensor) -> list[Tensor]:
    """The parts `x[:, h]` for each of m heads, each contiguous."""
    return [part.contiguous() for part in x.unbind(1)]
