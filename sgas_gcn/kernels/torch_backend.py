"""The primitives in plain torch, for graphs of constant degree, on any device.

They walk over the neighbour columns and keep nothing for single edges: memory is a few `[N, D]`
whatever the degree. Dimensions: N nodes, D or m·C stacked channels (m edges of a cell, C channels
each), k columns. Gradients are exact and can be taken once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas_gcn.neighbors import NeighborGraph


def neighbor_sum(x: Tensor, graph: NeighborGraph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""
    return NeighborSum.apply(x, graph)


def neighbor_max(x: Tensor, graph: NeighborGraph) -> Tensor:
    """Maximum of `x` `[N, D]` over the sources of each node: `[N, D]`; the first of equals."""
    return NeighborMax.apply(x, graph)


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: NeighborGraph
) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch norm over edges followed by a maximum needs of h = ReLU(target_i + source_j).

    Returns, for `target` and `source` `[N, D]` and `sign` `[D]` of 1 or -1: the largest h of each
    node where the sign is 1 and the smallest where it is -1, `[N, D]`; the sum of h and the sum of
    h² over all edges, float64 `[D]`.
    """
    return EdgeReluStats.apply(target, source, sign, graph)


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: NeighborGraph, slope: float
) -> Tensor:
    """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`.

    The weights are the softmax over the sources j of leaky ReLU(target_score_i + source_score_j),
    scores `[N, m]`.
    """
    return AttentionSum.apply(values, target_score, source_score, graph, slope)


def _gather_sum(
    x: Tensor, index: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Weighted sums of rows of `x`: of those in each row of `index`, or in each run of it."""
    return F.embedding_bag(index, x, offsets, mode="sum", per_sample_weights=weights)


class NeighborSum(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: NeighborGraph) -> Tensor:
        ctx.graph = graph
        return _gather_sum(x, graph.sources)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        targets, offsets, _ = ctx.graph.transposed
        return _gather_sum(grad, targets, offsets), None


class _RunningMax:
    """The maximum `[N, D]` over columns that arrive one by one, and which column had it first."""

    def __init__(self, first: Tensor, num_columns: int, track: bool) -> None:
        self.best = first
        small = num_columns <= torch.iinfo(torch.uint8).max
        dtype = torch.uint8 if small else torch.int32
        self.column = torch.zeros_like(first, dtype=dtype) if track else None

    def update(self, candidate: Tensor, column: int) -> None:
        if self.column is not None:
            # Columns come in rising order, so the largest that ever improved is the one to keep.
            improves = (candidate > self.best).to(self.column.dtype)
            torch.maximum(self.column, improves.mul_(column), out=self.column)
        torch.maximum(self.best, candidate, out=self.best)


def _scatter_chosen(grad: Tensor, column: Tensor, graph: NeighborGraph, out: Tensor) -> None:
    """Add each entry of `grad` `[N, D]` to `out` at the node that its chosen column names."""
    rows = graph.sources.gather(1, column.to(torch.int64))  # [N, D]
    rows.mul_(out.shape[1]).add_(torch.arange(out.shape[1], device=out.device))
    out.view(-1).index_add_(0, rows.view(-1), grad.reshape(-1))


class NeighborMax(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: NeighborGraph) -> Tensor:
        first, *others = graph.columns
        largest = _RunningMax(x.index_select(0, first), graph.degree, ctx.needs_input_grad[0])
        for number, column in enumerate(others, start=1):
            largest.update(x.index_select(0, column), number)
        ctx.graph = graph
        ctx.save_for_backward(largest.column)
        return largest.best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (column,) = ctx.saved_tensors
        grad_x = torch.zeros_like(grad, memory_format=torch.contiguous_format)
        _scatter_chosen(grad, column, ctx.graph, grad_x)
        return grad_x, None


class EdgeReluStats(Function):
    @staticmethod
    def forward(
        ctx: Any, target: Tensor, source: Tensor, sign: Tensor, graph: NeighborGraph
    ) -> tuple[Tensor, Tensor, Tensor]:
        total, squares = torch.zeros_like(target), torch.zeros_like(target)
        lowest = torch.full_like(target, -torch.inf)
        extremum = _RunningMax(lowest, graph.degree, any(ctx.needs_input_grad[:2]))
        for number, column in enumerate(graph.columns):
            gathered = source.index_select(0, column)
            extremum.update(gathered * sign, number)
            relu = gathered.add_(target).relu_()
            total.add_(relu)
            squares.addcmul_(relu, relu)
        selected = torch.addcmul(target, extremum.best, sign).relu_()
        ctx.graph = graph
        ctx.save_for_backward(target, source, extremum.column, selected)
        return selected, total.sum(0, dtype=torch.float64), squares.sum(0, dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_selected: Tensor, grad_total: Tensor, grad_squares: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        target, source, chosen, selected = ctx.saved_tensors
        constant, slope = grad_total.to(target.dtype), (2 * grad_squares).to(target.dtype)
        grad_target = torch.ops.aten.threshold_backward(grad_selected, selected, 0)
        grad_source = torch.zeros_like(source, memory_format=torch.contiguous_format)
        _scatter_chosen(grad_target, chosen, ctx.graph, grad_source)
        for column in ctx.graph.columns:
            h = source.index_select(0, column).add_(target)
            grad_h = torch.addcmul(constant, h, slope)
            grad_h = torch.ops.aten.threshold_backward(grad_h, h, 0)
            grad_target.add_(grad_h)
            grad_source.index_add_(0, column, grad_h)
        return grad_target, grad_source, None, None


class AttentionSum(Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        target_score: Tensor,
        source_score: Tensor,
        graph: NeighborGraph,
        slope: float,
    ) -> Tensor:
        index = graph.stacked(values.shape[1])  # [N·m, k]
        scores = source_score.reshape(-1).take(index).add_(target_score.reshape(-1, 1))
        weights = torch.softmax(F.leaky_relu(scores, slope), dim=1)
        flat = values.flatten(0, 1)
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(flat, scores, weights)
        return _gather_sum(flat, index, weights=weights).view(values.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        flat, scores, weights = ctx.saved_tensors
        num_nodes, num_edges, _ = grad.shape
        index = ctx.graph.stacked(num_edges)
        rows = grad.flatten(0, 1)
        grad_weights = torch.stack(
            [flat.index_select(0, column).mul_(rows).sum(1) for column in index.unbind(1)], dim=1
        )
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, 1, flat.dtype)
        grad_scores = torch.ops.aten.leaky_relu_backward(grad_scores, scores, ctx.slope, False)
        grad_source = scores.new_zeros(len(rows)).index_add_(
            0, index.view(-1), grad_scores.view(-1)
        )
        targets, offsets, order = ctx.graph.transposed
        by_edge = weights.unflatten(0, (num_nodes, num_edges))
        grad_values = torch.stack(
            [
                _gather_sum(
                    rows,
                    targets * num_edges + edge,
                    offsets,
                    by_edge[:, edge].reshape(-1).index_select(0, order),
                )
                for edge in range(num_edges)
            ],
            dim=1,
        )
        shape = (num_nodes, num_edges)
        return grad_values, grad_scores.sum(1).view(shape), grad_source.view(shape), None, None
