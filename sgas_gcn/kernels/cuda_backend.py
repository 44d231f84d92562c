"""The backend of Triton kernels: on CUDA, or interpreted on any device, for both kinds of graph."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sgas_gcn.kernels import cuda_columns, cuda_neighbors, messages
from sgas_gcn.kernels.cuda_neighbors import incoming, outgoing
from sgas_gcn.kernels.cuda_operators import OPERATORS, launch
from sgas_gcn.kernels.protocol import (
    Graph,
    Kept,
    Lengths,
    Normed,
    Norms,
    Term,
    term_lists,
)


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """As in `Backend`."""
    return cuda_neighbors.sum_op(x, incoming(graph))


def neighbor_sum_backward(grad: Tensor, graph: Graph) -> Tensor:
    """As in `Backend`."""
    return cuda_neighbors.sum_op(grad, outgoing(graph)[:2])


def neighbor_max(x: Tensor, graph: Graph) -> tuple[Tensor, Kept]:
    """As in `Composed`; keeps which edge was chosen."""
    best, chosen = cuda_neighbors.max_op(x, incoming(graph))
    return best, (chosen,)


def neighbor_max_backward(grad: Tensor, kept: Kept, graph: Graph) -> Tensor:
    """As in `Composed`."""
    return cuda_neighbors.max_gradient_op(grad, *kept, outgoing(graph))


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """As in `Composed`; keeps which edge was chosen."""
    selected, total, squares, chosen = cuda_neighbors.relu_stats_op(
        target, source, sign, incoming(graph)
    )
    return selected, total, squares, (chosen,)


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
    grads, saved = [grad_selected, grad_total, grad_squares], [target, source, *kept]
    return cuda_neighbors.relu_stats_gradients_op(grads, saved, incoming(graph), outgoing(graph))


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> tuple[Tensor, Kept]:
    """As in `Backend`; keeps the scores and their logarithmic sums `[N, m]`."""
    scores = (target_score, source_score)
    out, log_sum = cuda_neighbors.attention_op(values, *scores, incoming(graph), slope)
    return out, (*scores, log_sum)


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
    saved = [messages.times(values, factors), *kept]
    gradients = cuda_neighbors.attention_gradients_op(
        grad, saved, incoming(graph), outgoing(graph)[:2], slope
    )
    return messages.through_scores(gradients, vectors)


def linear_norm(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    negative_slope: float,
    norms: Norms,
) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    operator = OPERATORS.linear_norm
    return launch(cuda_columns.linear_norm, operator, inputs, weight, bias, negative_slope, *norms)


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
    function, operator = cuda_columns.linear_norm_backward, OPERATORS.linear_norm_backward
    wanted = (grad_inputs, of_weight, of_bias)
    return launch(function, operator, grad, *normed, inputs, weight, *wanted)


def relu_norm_(h: Tensor, negative_slope: float, norms: Norms) -> Tensor:
    """As in `Backend`."""
    return launch(cuda_columns.relu_norm_, OPERATORS.relu_norm_, h, negative_slope, *norms)


def relu_norm_backward(grad: Tensor, normed: Normed, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    operator = OPERATORS.relu_norm_backward
    return launch(cuda_columns.relu_norm_backward, operator, grad, *normed, out)


def norm_coefficients(sums: Tensor, count: int, norms: Norms) -> Tensor:
    """As in `Composed`."""
    operator = OPERATORS.norm_coefficients
    return launch(cuda_columns.norm_coefficients, operator, sums, count, *norms)


def column_sums(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """As in `Backend`."""
    return launch(cuda_columns.column_sums, OPERATORS.column_sums, grad, y, mask)


def norm_gradients(
    sums: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    function, operator = cuda_columns.norm_gradients, OPERATORS.norm_gradients
    return launch(function, operator, sums, coefficients, scale, count, training, like)


def head_dots(values: Tensor, vectors: Tensor, shifts: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    return launch(cuda_columns.head_dots, OPERATORS.head_dots, values, vectors, shifts, heads)


def head_dots_backward(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """As in `Backend`."""
    operator = OPERATORS.head_dots_backward
    return launch(cuda_columns.head_dots_backward, operator, values, first, second)


def skip_backward(grad: Tensor, x: Tensor, scale: Tensor | None, grad_x: Tensor | None) -> Tensor:
    """As in `Backend`."""
    return launch(cuda_columns.skip_backward, OPERATORS.skip_backward, grad, x, scale, grad_x)


def length_backward(
    grad: Tensor, y: Tensor, coefficients: Tensor | None, lengths: Lengths, out: Tensor | None
) -> Tensor:
    """As in `Backend`."""
    operator = OPERATORS.length_backward
    return launch(cuda_columns.length_backward, operator, grad, y, coefficients, *lengths, out)


def mixture(
    terms: Sequence[Term],
    scale: Tensor | None,
    bases: Sequence[Tensor | None],
    channels: int,
    floor: float,
) -> tuple[list[Tensor], Tensor]:
    """As in `Backend`."""
    lists, mask = term_lists(terms)
    operator = OPERATORS.mixture
    return launch(cuda_columns.mixture, operator, *lists, scale, mask, bases, channels, floor)


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
