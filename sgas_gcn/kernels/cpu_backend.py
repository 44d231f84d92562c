"""The backend compiled for the CPU, `torch.ops.sgas_gcn.*`, for both kinds of graph.

It computes in float32 and float64 alone. The operators are C++ (`kernels/cpu`); a graph is the six
arguments `graph.rows` of them, norms are seven.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sgas_gcn.kernels.cpu_operators import operators
from sgas_gcn.kernels.protocol import (
    EdgeMap,
    Graph,
    Kept,
    Lengths,
    Normed,
    Norms,
    SageMap,
    Term,
    term_lists,
)


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """As in `Backend`."""
    return operators().neighbor_sum(x, *graph.rows)


def neighbor_sum_backward(grad: Tensor, graph: Graph) -> Tensor:
    """As in `Backend`."""
    return operators().neighbor_sum_backward(grad, *graph.rows)


def largest_difference(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    """As in `Backend`; keeps which edge was chosen."""
    best, places = operators().neighbor_max(x, *graph.rows, True)
    return best, (places,)


def largest_difference_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    """As in `Backend`."""
    return operators().neighbor_max_backward(grad, *kept, *graph.rows, True)


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> tuple[Tensor, Kept]:
    """As in `Backend`; keeps the scores, and the weights of all edges."""
    scores = (target_score, source_score)
    out, weights = operators().attention_sum(values, *scores, *graph.rows, slope)
    return out, (*scores, weights)


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
    return operators().attention_sum_backward(
        grad, values, *kept, *graph.rows, slope, factors, vectors
    )


def edge_conv(edge_map: EdgeMap, norms: Norms) -> tuple[Tensor, Tensor, Kept]:
    """As in `Backend`; keeps which edge was chosen."""
    x, weight, graph = edge_map
    y, places, coefs = operators().edge_conv(x, weight, *graph.rows, *norms)
    return y, coefs, (places,)


def edge_conv_backward(
    grad: Tensor,
    normed: Normed,
    mask: Tensor | None,
    edge_map: EdgeMap,
    kept: Kept,
    grad_x: Tensor | None,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    (y, coefs, scale, num_edges, training, _), (x, weight, graph) = normed, edge_map
    scaled = (grad, y, coefs, scale, mask, num_edges, training)
    return operators().edge_conv_backward(*scaled, x, *kept, weight, *graph.rows, grad_x, of_weight)


def sage(sage_map: SageMap, tracked: bool) -> tuple[Tensor, Tensor, Kept]:
    """As in `Backend`; keeps which edge was chosen."""
    x, pre, weight, graph, relative = sage_map
    y, message, places = operators().sage(x, pre, weight, *graph.rows, relative, tracked)
    return y, message, (places,)


def sage_backward(
    grad: Tensor,
    y: Tensor,
    lengths: Lengths,
    sage_map: SageMap,
    message: Tensor,
    kept: Kept,
    grad_x: Tensor | None,
    of_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    x, pre, weight, graph, relative = sage_map
    results = (grad, y, *lengths, x, message, *kept)
    return operators().sage_backward(
        *results, pre, weight, *graph.rows, relative, grad_x, of_weights
    )


def linear_norm(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    negative_slope: float,
    norms: Norms,
) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    return operators().linear_norm(inputs, weight, bias, negative_slope, *norms)


def linear_norm_backward(
    grad: Tensor,
    normed: Normed,
    inputs: Sequence[Tensor],
    weight: Tensor,
    grad_inputs: Sequence[Tensor],
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    return operators().linear_norm_backward(
        grad, *normed, inputs, weight, grad_inputs, of_weight, of_bias
    )


def relu_norm_(h: Tensor, negative_slope: float, norms: Norms) -> Tensor:
    """As in `Backend`."""
    return operators().relu_norm_(h, negative_slope, *norms)


def relu_norm_backward(grad: Tensor, normed: Normed, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    return operators().relu_norm_backward(grad, *normed, out)


def column_sums(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """As in `Backend`."""
    return operators().column_sums(grad, y, mask)


def norm_gradients(
    sums: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    return operators().norm_gradients(sums, coefficients, scale, count, training, like)


def head_dots(values: Tensor, vectors: Tensor, shifts: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    return operators().head_dots(values, vectors, shifts, heads)


def head_dots_backward(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """As in `Backend`."""
    return operators().head_dots_backward(values, first, second)


def skip_backward(grad: Tensor, x: Tensor, scale: Tensor | None, grad_x: Tensor | None) -> Tensor:
    """As in `Backend`."""
    return operators().skip_backward(grad, x, scale, grad_x)


def length_backward(
    grad: Tensor, y: Tensor, coefficients: Tensor | None, lengths: Lengths, out: Tensor | None
) -> Tensor:
    """As in `Backend`."""
    return operators().length_backward(grad, y, coefficients, *lengths, out)


def mixture(
    terms: Sequence[Term],
    scale: Tensor | None,
    bases: Sequence[Tensor | None],
    channels: int,
    floor: float,
) -> tuple[list[Tensor], Tensor]:
    """As in `Backend`."""
    lists, mask = term_lists(terms)
    return operators().mixture(*lists, scale, mask, bases, channels, floor)
