"""Aggregation over neighbours in plain torch, for graphs of any degree, on any device.

Sums run over compressed rows without a tensor of edges; what has to look at each edge does so a
piece at a time and again in the backward pass. Alone the attention weights, one number for each
edge and head, are kept. Dimensions: N nodes, E edges, D or m·C stacked channels (m edges of a cell,
C channels each). A node without edges gives 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.protocol import Kept
from sgas_gcn.kernels.scatter import max_by_rows
from sgas_gcn.kernels.torch_columns import square_sums

# Numbers worked on at a time where edges are looked at one by one.
PIECE = {"cpu": 2**20, "cuda": 2**25}


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


def _largest(x: Tensor, graph: CsrGraph) -> tuple[Tensor, Tensor]:
    """Maxima `[N, D]` over the sources, and the source `[N, D]` that had each first.

    A node without edges has the maximum 0, and some source that means nothing. A NaN is larger than
    all else: neither of the kernels sees each one.
    """
    chosen = max_by_rows(x, graph)
    if chosen is None:
        best, _, _, source = torch.embedding_bag(
            x, graph.sources, graph.offsets, mode=2, include_last_offset=True
        )
    else:
        best, source = chosen
    unknown = x.isnan()
    if x.device.type == "cpu" and not unknown.any():  # to ask another device would wait for it
        return best, source
    seen = _row_sum(unknown.to(x.dtype), graph.sources, graph.offsets) > 0
    return best.masked_fill(seen, torch.nan), source


def _largest_scores(scores: Tensor, graph: CsrGraph) -> Tensor:
    """Maxima `[N, m]` over the sources, 0 for a node without edges."""
    best = torch.full_like(scores, -torch.inf, memory_format=torch.contiguous_format)
    for piece in _pieces(graph, scores.shape[1], scores.device):
        rows = graph.targets[piece].unsqueeze(1).expand(-1, scores.shape[1])
        best.scatter_reduce_(0, rows, scores.index_select(0, graph.sources[piece]), "amax")
    return best.masked_fill_(~graph.has_edges, 0)


def _scatter_chosen(grad: Tensor, source: Tensor, graph: CsrGraph) -> Tensor:
    """Each entry of `grad` `[N, D]` at the source `[N, D]` that was chosen for it, added up."""
    width = grad.shape[1]
    out = torch.zeros_like(grad, memory_format=torch.contiguous_format)
    places = (source * width).add_(torch.arange(width, device=grad.device))
    out.view(-1).index_add_(0, places.view(-1), (grad * graph.has_edges).reshape(-1))
    return out


def neighbor_sum(x: Tensor, graph: CsrGraph) -> Tensor:
    """As in `Backend`."""
    return _row_sum(x, graph.sources, graph.offsets)


def neighbor_sum_backward(grad: Tensor, graph: CsrGraph) -> Tensor:
    """As in `Backend`."""
    return _row_sum(grad, graph.out_targets, graph.out_offsets)


def weighted_sum(x: Tensor, weights: Tensor, graph: CsrGraph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node, times the weights `[E]` of the edges."""
    return _row_sum(x, graph.sources, graph.offsets, weights.to(x.dtype))


def weighted_sum_backward(grad: Tensor, weights: Tensor, graph: CsrGraph) -> Tensor:
    """The gradient of what was summed so: `[N, D]`."""
    of_sources = weights.index_select(0, graph.out_edges).to(grad.dtype)
    return _row_sum(grad, graph.out_targets, graph.out_offsets, of_sources)


def neighbor_max(x: Tensor, graph: CsrGraph) -> tuple[Tensor, Kept]:
    """As in `Composed`; keeps the source that was chosen."""
    best, source = _largest(x, graph)
    return best, (source,)


def neighbor_max_backward(grad: Tensor, kept: Kept, graph: CsrGraph) -> Tensor:
    """As in `Composed`."""
    (source,) = kept
    return _scatter_chosen(grad, source, graph)


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: CsrGraph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """As in `Composed`; keeps the source that was chosen, and the extremum."""
    width = source.shape[1]
    total = torch.zeros(width, dtype=torch.float64, device=source.device)
    squares = torch.zeros_like(total)
    for piece in _pieces(graph, width, source.device):
        h = source.index_select(0, graph.sources[piece])
        h.add_(target.index_select(0, graph.targets[piece])).relu_()
        sums = square_sums(h)
        total.add_(sums[0])
        squares.add_(sums[1])
    best, chosen = _largest(source * sign, graph)
    selected = torch.addcmul(target, best, sign).relu_().masked_fill_(~graph.has_edges, 0)
    return selected, total, squares, (chosen, selected)


def edge_relu_stats_backward(
    grad_selected: Tensor,
    grad_total: Tensor,
    grad_squares: Tensor,
    target: Tensor,
    source: Tensor,
    kept: Kept,
    graph: CsrGraph,
) -> tuple[Tensor, Tensor]:
    """As in `Composed`."""
    chosen, selected = kept
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
    return grad_target, grad_source


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: CsrGraph, slope: float
) -> tuple[Tensor, Kept]:
    """As in `Backend`; keeps the scores and weights of all edges."""
    # Leaky ReLU rises, so a node's largest score is that of its largest source score.
    top = F.leaky_relu(_largest_scores(source_score, graph).add_(target_score), slope)
    scores = source_score.index_select(0, graph.sources)
    scores.add_(target_score.index_select(0, graph.targets))  # [E, m]
    weights = F.leaky_relu(scores, slope).sub_(top.index_select(0, graph.targets)).exp_()
    edges = torch.arange(graph.num_edges, device=values.device)
    weights.div_(_row_sum(weights, edges, graph.offsets).index_select(0, graph.targets))
    sums = [
        _row_sum(part, graph.sources, graph.offsets, weight)
        for part, weight in zip(_heads(values), _heads(weights), strict=True)
    ]
    return torch.stack(sums, dim=1), (scores, weights)


def attention_gradients(
    grad: Tensor, values: Tensor, kept: Kept, graph: CsrGraph, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the values `[N, m, C]` and of both scores `[N, m]`, each by itself."""
    scores, weights = kept
    weighted = torch.empty_like(weights)  # by each edge: its weight, times that one's gradient
    for piece in _pieces(graph, values.shape[1:].numel(), grad.device):
        products = values.index_select(0, graph.sources[piece])
        products.mul_(grad.index_select(0, graph.targets[piece]))
        torch.mul(products.sum(2), weights[piece], out=weighted[piece])
    edges = torch.arange(graph.num_edges, device=grad.device)
    total = _row_sum(weighted, edges, graph.offsets).index_select(0, graph.targets)
    grad_scores = weighted.addcmul_(weights, total, value=-1)
    grad_scores = torch.ops.aten.leaky_relu_backward(grad_scores, scores, slope, False)
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
    return grad_values, grad_target, grad_source


def _heads(x: Tensor) -> list[Tensor]:
    """The parts `x[:, h]` for each of m heads, each contiguous."""
    return [part.contiguous() for part in x.unbind(1)]
