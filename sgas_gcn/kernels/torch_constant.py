"""Aggregation over neighbours in plain torch, for graphs of constant degree, on any device.

It walks over the neighbour columns and keeps nothing for single edges but attention weights: memory
is a few `[N, D]` whatever the degree. Dimensions: N nodes, m edges of a cell, C channels of each,
D = m·C, k columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_gcn.kernels.protocol import Kept
from sgas_gcn.neighbors import NeighborGraph


def _gather_sum(
    x: Tensor, index: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Weighted sums of rows of `x`: of those in each row of `index`, or in each run of it."""
    return F.embedding_bag(index, x, offsets, mode="sum", per_sample_weights=weights)


def neighbor_sum(x: Tensor, graph: NeighborGraph) -> Tensor:
    """As in `Backend`."""
    return _gather_sum(x, graph.sources)


def neighbor_sum_backward(grad: Tensor, graph: NeighborGraph) -> Tensor:
    """As in `Backend`."""
    targets, offsets, _ = graph.transposed
    return _gather_sum(grad, targets, offsets)


class _RunningMax:
    """The maximum `[N, D]` over columns that arrive one by one, and which column had it first."""

    def __init__(self, first: Tensor, num_columns: int) -> None:
        self.best = first
        small = num_columns <= torch.iinfo(torch.uint8).max
        self.column = torch.zeros_like(first, dtype=torch.uint8 if small else torch.int32)

    def update(self, candidate: Tensor, column: int) -> None:
        # Columns come in rising order, so the largest that ever improved is the one to keep.
        improves = (candidate > self.best).to(self.column.dtype)
        torch.maximum(self.column, improves.mul_(column), out=self.column)
        torch.maximum(self.best, candidate, out=self.best)


def _scatter_chosen(grad: Tensor, column: Tensor, graph: NeighborGraph, out: Tensor) -> None:
    """Add each entry of `grad` `[N, D]` to `out` at the node that its chosen column names."""
    rows = graph.sources.gather(1, column.to(torch.int64))  # [N, D]
    rows.mul_(out.shape[1]).add_(torch.arange(out.shape[1], device=out.device))
    out.view(-1).index_add_(0, rows.view(-1), grad.reshape(-1))


def neighbor_max(x: Tensor, graph: NeighborGraph) -> tuple[Tensor, Kept]:
    """As in `Composed`; keeps the column that was chosen."""
    first, *others = graph.columns
    largest = _RunningMax(x.index_select(0, first), graph.degree)
    for number, column in enumerate(others, start=1):
        largest.update(x.index_select(0, column), number)
    return largest.best, (largest.column,)


def neighbor_max_backward(grad: Tensor, kept: Kept, graph: NeighborGraph) -> Tensor:
    """As in `Composed`."""
    (column,) = kept
    grad_x = torch.zeros_like(grad, memory_format=torch.contiguous_format)
    _scatter_chosen(grad, column, graph, grad_x)
    return grad_x


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: NeighborGraph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """As in `Composed`; keeps the column that was chosen, and the extremum."""
    total, squares = torch.zeros_like(target), torch.zeros_like(target)
    reference = _first_relu(target, source, graph)
    lowest = torch.full_like(target, -torch.inf)
    extremum = _RunningMax(lowest, graph.degree)
    for number, column in enumerate(graph.columns):
        gathered = source.index_select(0, column)
        extremum.update(gathered * sign, number)
        relu = gathered.add_(target).relu_()
        relu.sub_(reference)
        total.add_(relu)
        squares.addcmul_(relu, relu)
    selected = torch.addcmul(target, extremum.best, sign).relu_()
    one, near = total.sum(0, dtype=torch.float64), reference.double()
    sums = one + len(target) * graph.degree * near
    two = squares.sum(0, dtype=torch.float64) + near * (one + sums)
    return selected, sums, two, (extremum.column, selected)


def _first_relu(target: Tensor, source: Tensor, graph: NeighborGraph) -> Tensor:
    """h of the first edge `[D]`, from which all are taken; zeros where there is no edge."""
    if not len(target) or not graph.degree:
        return target.new_zeros(target.shape[1])
    return (target[:1] + source.index_select(0, graph.columns[0][:1])).relu()[0]


def edge_relu_stats_backward(
    grad_selected: Tensor,
    grad_total: Tensor,
    grad_squares: Tensor,
    target: Tensor,
    source: Tensor,
    kept: Kept,
    graph: NeighborGraph,
) -> tuple[Tensor, Tensor]:
    """As in `Composed`."""
    chosen, selected = kept
    constant, slope = grad_total.to(target.dtype), (2 * grad_squares).to(target.dtype)
    grad_target = torch.ops.aten.threshold_backward(grad_selected, selected, 0)
    grad_source = torch.zeros_like(source, memory_format=torch.contiguous_format)
    _scatter_chosen(grad_target, chosen, graph, grad_source)
    for column in graph.columns:
        h = source.index_select(0, column).add_(target)
        grad_h = torch.addcmul(constant, h, slope)
        grad_h = torch.ops.aten.threshold_backward(grad_h, h, 0)
        grad_target.add_(grad_h)
        grad_source.index_add_(0, column, grad_h)
    return grad_target, grad_source


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: NeighborGraph, slope: float
) -> tuple[Tensor, Kept]:
    """As in `Backend`; keeps the scores and weights of all edges."""
    index = graph.stacked(values.shape[1])  # [N·m, k]
    scores = source_score.reshape(-1).take(index).add_(target_score.reshape(-1, 1))
    weights = torch.softmax(F.leaky_relu(scores, slope), dim=1)
    out = _gather_sum(values.flatten(0, 1), index, weights=weights).view(values.shape)
    return out, (scores, weights)


def attention_gradients(
    grad: Tensor, values: Tensor, kept: Kept, graph: NeighborGraph, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the values `[N, m, C]` and of both scores `[N, m]`, each by itself."""
    scores, weights = kept
    flat = values.flatten(0, 1)
    num_nodes, num_edges, _ = grad.shape
    index = graph.stacked(num_edges)
    rows = grad.flatten(0, 1)
    grad_weights = torch.stack(
        [flat.index_select(0, column).mul_(rows).sum(1) for column in index.unbind(1)], dim=1
    )
    grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, 1, flat.dtype)
    grad_scores = torch.ops.aten.leaky_relu_backward(grad_scores, scores, slope, False)
    grad_source = scores.new_zeros(len(rows)).index_add_(0, index.view(-1), grad_scores.view(-1))
    targets, offsets, order = graph.transposed
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
    return grad_values, grad_scores.sum(1).view(shape), grad_source.view(shape)
