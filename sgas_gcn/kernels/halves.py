"""The primitives in two halves, forward and backward, for functions that run both by hand.

A forward half returns what its backward half has to be given again as `kept`, so that the caller
saves it where it saves its own; autograd is not involved. The mathematics is that of the backends.
Dimensions: N nodes, D or m·C stacked channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from torch import Tensor

from sgas_gcn.compiled import kernels_for, runs_compiled
from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels import csr_backend, torch_backend
from sgas_gcn.kernels.cpu_backend import Graph, operators

Kept = tuple[Tensor, ...]
Half = TypeVar("Half", bound=Callable[..., Any])


class _Context:
    """Stands in for autograd's context where the halves of a function are called by hand."""

    def __init__(self, graph: Graph, kept: Kept = (), slope: float = 0.0) -> None:
        self.graph, self.saved_tensors, self.slope = graph, kept, slope
        self.needs_input_grad = (True, True)

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keeps the tensors."""
        self.saved_tensors = tensors


def _functions(graph: Graph) -> Any:
    """The module of plain torch whose functions read such a graph."""
    return csr_backend if isinstance(graph, CsrGraph) else torch_backend


def _or_triton(half: Half) -> Half:
    """The half of this name in `cuda_halves` where Triton's kernels run, else the one given."""

    @wraps(half)
    def run(first: Tensor, *others: Any) -> Any:
        if kernels_for(first.device) == "cuda":
            from sgas_gcn.kernels import cuda_halves

            return getattr(cuda_halves, half.__name__)(first, *others)
        return half(first, *others)

    return cast("Half", run)


@_or_triton
def sum_forward(x: Tensor, graph: Graph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""
    if runs_compiled(x):
        return operators().neighbor_sum(x, *graph.rows)
    return _functions(graph).NeighborSum.forward(_Context(graph), x, graph)


@_or_triton
def sum_backward(grad: Tensor, graph: Graph) -> Tensor:
    """The gradient of what was summed: `[N, D]`."""
    if runs_compiled(grad):
        return operators().neighbor_sum_backward(grad, *graph.rows)
    return _functions(graph).NeighborSum.backward(_Context(graph), grad)[0]


@_or_triton
def max_forward(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    """Maximum of `x` `[N, D]` over the sources of each node: `[N, D]`; the first of equals."""
    if runs_compiled(x):
        best, places = operators().neighbor_max(x, *graph.rows, False)
        return best, (places,)
    context = _Context(graph)
    best = _functions(graph).NeighborMax.forward(context, x, graph)
    return best, context.saved_tensors


@_or_triton
def max_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    """The gradient of what the maximum was taken of: `[N, D]`."""
    if runs_compiled(grad):
        return operators().neighbor_max_backward(grad, *kept, *graph.rows, False)
    return _functions(graph).NeighborMax.backward(_Context(graph, kept), grad)[0]


def difference_forward(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    """max x_j − x_i over the sources j of each node i `[N, D]`; 0 for a node without any."""
    if runs_compiled(x):
        best, places = operators().neighbor_max(x, *graph.rows, True)
        return best, (places,)
    best, kept = max_forward(x, graph)
    return best.sub_(own_values(x, graph)), kept


def difference_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    """The gradient of what the difference was taken of: `[N, D]`."""
    if runs_compiled(grad):
        return operators().neighbor_max_backward(grad, *kept, *graph.rows, True)
    return max_backward(grad, kept, graph).sub_(own_values(grad, graph))


def own_values(x: Tensor, graph: Graph) -> Tensor:
    """`x`, and 0 for nodes without sources."""
    return x.where(graph.has_edges, 0) if isinstance(graph, CsrGraph) else x


@_or_triton
def stats_forward(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """Extremum `[N, D]` by `sign` `[D]`, sum and sum of squares `[D]` of ReLU(target + source).

    The fourth, `kept`, starts with target and source themselves.
    """
    if runs_compiled(target):
        found = operators().edge_relu_stats(target, source, sign, *graph.rows)
        selected, places, total, squares = found
        return selected, total, squares, (target, source, selected, places)
    context = _Context(graph)
    found = _functions(graph).EdgeReluStats.forward(context, target, source, sign, graph)
    return (*found, context.saved_tensors)


@_or_triton
def stats_backward(
    grad_selected: Tensor, grad_total: Tensor, grad_squares: Tensor, kept: Kept, graph: Graph
) -> tuple[Tensor, Tensor]:
    """The gradients `[N, D]` of target and source."""
    if runs_compiled(grad_selected):
        given = (grad_selected, grad_total, grad_squares, *kept, *graph.rows)
        return operators().edge_relu_stats_backward(*given)
    function = _functions(graph).EdgeReluStats
    context = _Context(graph, kept)
    return function.backward(context, grad_selected, grad_total, grad_squares)[:2]


@_or_triton
def attention_forward(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> tuple[Tensor, Kept]:
    """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`."""
    if runs_compiled(values):
        given = (values, target_score, source_score)
        out, weights = operators().attention_sum(*given, *graph.rows, slope)
        return out, (target_score, source_score, weights)
    context = _Context(graph)
    function = _functions(graph).AttentionSum
    out = function.forward(context, values, target_score, source_score, graph, slope)
    return out, context.saved_tensors[1:]


@_or_triton
def attention_gradients(
    grad: Tensor, values: Tensor, kept: Kept, graph: Graph, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the values `[N, m, C]` and of both scores `[N, m]`, each by itself."""
    function = _functions(graph).AttentionSum
    if function is torch_backend.AttentionSum:
        values = values.reshape(-1, values.shape[2])
    return function.backward(_Context(graph, (values, *kept), slope), grad)[:3]


def attention_backward(
    grad: Tensor,
    values: Tensor,
    kept: Kept,
    graph: Graph,
    slope: float,
    factors: Tensor | None,
    vectors: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the values `[N, m, C]` and of both scores `[N, m]`.

    Scores are products of the values with `vectors` `[2, m·C]` (`pointwise.head_dots`), by which
    their gradients go on to the values. `values` may be given without their `factors` `[m·C]`.
    """
    if runs_compiled(grad):
        given = (grad, values, *kept, *graph.rows, slope, factors, vectors)
        return operators().attention_sum_backward(*given)
    if factors is not None:
        values = values * factors.view(values.shape[1:])
    grad_values, *of_scores = attention_gradients(grad, values, kept, graph, slope)
    for found, vector in zip(of_scores, vectors.view(2, *grad.shape[1:]), strict=True):
        grad_values.addcmul_(found.unsqueeze(2), vector)
    return grad_values, of_scores[0], of_scores[1]
