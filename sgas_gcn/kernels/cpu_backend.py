"""The primitives compiled for the CPU, for every kind of graph: `torch.ops.sgas_gcn.*`.

The operators are C++ (`kernels/cpu`); what torch has to know of them besides is here: shapes for
tracing, and which operator is whose gradient. They are raw: a fused function calls them inside its
own forward and backward pass. Gradients can be taken once, but for the sum's.
Dimensions: N nodes, E edges, D or m·C stacked channels (m edges of a cell, C channels each).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake
from torch.utils.flop_counter import register_flop_formula

from sgas.operators import once
from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.pointwise_torch import LENGTH
from sgas_gcn.neighbors import NeighborGraph

Graph = NeighborGraph | CsrGraph


def neighbor_sum(x: Tensor, graph: Graph) -> Tensor:
    """Sum of `x` `[N, D]` over the sources of each node: `[N, D]`."""
    return operators().neighbor_sum(x, *graph.rows)


def neighbor_max(x: Tensor, graph: Graph) -> Tensor:
    """Maximum of `x` `[N, D]` over the sources of each node: `[N, D]`; the first of equals."""
    return operators().neighbor_max(x, *graph.rows, False)[0]


def edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: Graph
) -> tuple[Tensor, Tensor, Tensor]:
    """Extrema `[N, D]` by `sign` `[D]`, sums and sums of squares `[D]` of ReLU(target + source)."""
    found = operators().edge_relu_stats(target, source, sign, *graph.rows)
    return found[0], found[2], found[3]


def attention_sum(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph, slope: float
) -> Tensor:
    """Sum of `values` `[N, m, C]` over the sources, weighted by attention: `[N, m, C]`."""
    return operators().attention_sum(values, target_score, source_score, *graph.rows, slope)[0]


@once
def operators() -> Any:
    """`torch.ops.sgas_gcn`, with gradients and shapes; the library has to be loaded before."""
    for name, shapes in COLUMN_OPERATORS.items():
        register_fake(f"sgas_gcn::{name}", shapes)
    for name, (fake, autograd) in OPERATORS.items():
        register_fake(f"sgas_gcn::{name}", fake)
        if autograd is not None:
            register_autograd(f"sgas_gcn::{name}", autograd[1], setup_context=autograd[0])
    for name, count in FLOPS.items():
        register_flop_formula(getattr(torch.ops.sgas_gcn, name))(count)
    return torch.ops.sgas_gcn


def _like(x: Tensor) -> Tensor:
    """A new dense tensor of the shape and type of `x`."""
    return x.new_empty(x.shape)


def _places_like(x: Tensor, degree: int) -> Tensor:
    """Which of a node's edges was chosen, `[N, D]`."""
    return x.new_empty(x.shape, dtype=torch.uint8 if degree <= 256 else torch.int32)


def _nearest_shape(x: Tensor, width: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], width, dtype=torch.int64)


def _max_shapes(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return _like(x), _places_like(x, others[-2])


def _stats_shapes(target: Tensor, source: Tensor, sign: Tensor, *rows: Any) -> tuple[Tensor, ...]:
    sums = target.new_empty(2, target.shape[1], dtype=torch.float64)
    return _like(target), _places_like(target, rows[-1]), _like(sums[0]), _like(sums[1])


def _attention_shapes(
    values: Tensor, target: Tensor, source: Tensor, offsets: Tensor, sources: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    return _like(values), values.new_empty(sources.shape[0], values.shape[1])


def _sage_shapes(x: Tensor, pre: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, degree, _, tracked = others
    y = x.new_empty(x.shape[0], weight.shape[0])
    return y, _like(y), _places_like(y if tracked else x.new_empty(0), degree)


def _sage_backward_shapes(grad: Tensor, y: Tensor, inverse: Tensor, *others: Any) -> Any:
    pre, weight, of_weights = *others[5:7], others[-1]
    of_pre = pre.new_empty(of_weights * pre.shape[0], pre.shape[1])
    return (
        _doubles(y, inverse.shape[1]),
        of_pre,
        weight.new_empty(of_weights * weight.shape[0], weight.shape[1]),
    )


def _edge_conv_shapes(x: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, ...]:
    y = x.new_empty(x.shape[0], weight.shape[0])
    return y, _places_like(y, others[5]), _coefficient_shape(others[6])


def _edge_conv_backward_shapes(grad: Tensor, y: Tensor, *others: Any) -> tuple[Tensor, ...]:
    edges, weight, of_weight = others[3], others[7], others[-1]
    of_matrix = weight.new_empty(of_weight * weight.shape[0], weight.shape[1])
    return y.new_empty(2, y.shape[1]), _doubles(y, edges), of_matrix


def _pool_shapes(x: Tensor, sign: Tensor, clouds: int, slope: float) -> tuple[Tensor, ...]:
    extremum = x.new_empty(clouds, x.shape[1])
    points = extremum.new_empty(extremum.shape, dtype=torch.int32)
    total = extremum.new_empty(extremum.shape, dtype=torch.float64)
    return extremum, points, total, _like(total)


def _linear_pool_shapes(
    inputs: list[Tensor], weight: Tensor, sign: Tensor, clouds: int, slope: float
) -> tuple[Tensor, ...]:
    y = weight.new_empty(inputs[0].shape[0], weight.shape[0])
    return y, *_pool_shapes(y, sign, clouds, slope)


def _linear_pool_backward_shapes(*given: Any) -> tuple[list[Tensor], Tensor]:
    inputs, weight, of_inputs, of_weight = *given[3:5], *given[-2:]
    pairs = zip(inputs, of_inputs, strict=True)
    return (
        [x.new_empty(wanted * x.shape[0], x.shape[1]) for x, wanted in pairs],
        weight.new_empty(of_weight * weight.shape[0], weight.shape[1]),
    )


def _doubles(like: Tensor, *shape: int) -> Tensor:
    """Sums and coefficients."""
    return like.new_empty(shape, dtype=torch.float64)


def _coefficient_shape(weight: list[Tensor]) -> Tensor:
    return _doubles(weight[0], 4, len(weight) * weight[0].shape[0])


def _gradient_shapes(sums: Tensor, coefs: Tensor, *others: Any) -> tuple[Tensor, ...]:
    columns = coefs.shape[1]
    return _doubles(sums, 3, columns), others[-1].new_empty(2, columns), _doubles(sums, columns)


def _norm_backward_shapes(
    grad: Tensor, y: Tensor, coefs: Tensor, scale: Tensor | None, edges: int, *_: Any
) -> tuple[Tensor, Tensor]:
    return y.new_empty(2, y.shape[1]), _doubles(y, edges)


def _linear_norm_shapes(
    inputs: list[Tensor], weight: Tensor, bias: Any, slope: float, norm_weight: Any, *others: Any
) -> tuple[Tensor, Tensor]:
    y = inputs[0].new_empty(inputs[0].shape[0], weight.shape[0])
    return y, _coefficient_shape(norm_weight)


def _linear_norm_backward_shapes(
    grad: Tensor, y: Tensor, coefs: Any, scale: Any, edges: int, *others: Any
) -> tuple[Tensor, ...]:
    weight, _, of_weight, of_bias = others[-4:]
    columns = y.shape[1]
    grads = (
        weight.new_empty(of_weight * columns, weight.shape[1]),
        weight.new_empty(of_bias * columns),
    )
    return y.new_empty(2, columns), _doubles(y, edges), *grads


def _head_dots_shapes(values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    first = values.new_empty(values.shape[0], heads)
    return first, _like(first)


def _skip_backward_shape(grad: Tensor, x: Tensor, scale: Tensor | None, *_: Any) -> Tensor:
    by_columns = grad.shape[1] // max(x.shape[1], 1)
    return _doubles(x, by_columns if scale is None else scale.shape[0])


def _mixture_shapes(
    values: list[Tensor], coefs: Any, kinds: list[int], slots: Any, counts: list[int], *others: Any
) -> tuple[list[Tensor], Tensor]:
    _, _, bases, channels, _ = others
    rows = values[0].shape[0]
    lengths = sum(count for kind, count in zip(kinds, counts, strict=True) if kind == LENGTH)
    outs = [values[0].new_empty(rows, channels) for _ in bases]
    return outs, values[0].new_empty(rows, lengths)


# What an operator saves for its gradient. The rows of the graph, tensors and one number, stand
# together in its arguments, and in those of the gradient's operator.


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *rows, ctx.degree = inputs
    ctx.save_for_backward(*rows)


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *rows, ctx.degree, ctx.relative = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *rows)


def _save_stats(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    target, source, _, *rows, ctx.degree = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(target, source, *output[:2], *rows)


def _save_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *given, ctx.degree, ctx.slope = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*given[:3], output[1], *given[3:])


def _save_pool(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1])
    ctx.slope = inputs[3]


def _save_linear_pool(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y, _, points, _, _ = output
    ctx.mark_non_differentiable(y, points)
    ctx.set_materialize_grads(False)  # of y that would be as large as y
    ctx.save_for_backward(*inputs[0], inputs[1], y, points)
    ctx.slope = inputs[4]


Gradients = tuple[Tensor | None, ...]
ROWS = (None,) * 6  # rows have no gradient


def _grad_sum(ctx: Any, grad: Tensor) -> Gradients:
    return operators().neighbor_sum_backward(grad, *ctx.saved_tensors, ctx.degree), *ROWS


def _grad_sum_backward(ctx: Any, grad: Tensor) -> Gradients:
    return operators().neighbor_sum(grad, *ctx.saved_tensors, ctx.degree), *ROWS


def _grad_max(ctx: Any, grad: Tensor, _: Any) -> Gradients:
    given = (grad, *ctx.saved_tensors, ctx.degree, ctx.relative)
    return operators().neighbor_max_backward(*given), *ROWS, None


def _grad_stats(ctx: Any, selected: Tensor, _: Any, total: Tensor, squares: Tensor) -> Gradients:
    given = (selected, total, squares, *ctx.saved_tensors, ctx.degree)
    return *operators().edge_relu_stats_backward(*given), None, *ROWS


def _grad_attention(ctx: Any, grad: Tensor, _: Any) -> Gradients:
    given = (grad, *ctx.saved_tensors, ctx.degree, ctx.slope, None, None)
    return *operators().attention_sum_backward(*given), *ROWS, None


def _grad_pool(ctx: Any, extremum: Tensor, _: Any, total: Tensor, squares: Tensor) -> Gradients:
    given = (extremum, total, squares, *ctx.saved_tensors, ctx.slope)
    return operators().pool_activation_backward(*given), None, None, None


def _grad_linear_pool(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    of_inputs, of_weight = ctx.needs_input_grad[:2]
    *inputs, weight, y, points = ctx.saved_tensors
    _, extremum, _, total, squares = grads
    types = (y.dtype, torch.float64, torch.float64)
    pooled = (
        torch.zeros_like(points, dtype=dtype) if grad is None else grad
        for grad, dtype in zip((extremum, total, squares), types, strict=True)
    )
    found, found_weight = operators().linear_pool_backward(
        *pooled, inputs, weight, y, points, ctx.slope, of_inputs, of_weight
    )
    pairs = zip(found, of_inputs, strict=True)
    of_parts = [grad if wanted else None for grad, wanted in pairs]
    return of_parts, found_weight if of_weight else None, None, None, None


Fake = Callable[..., Any]
Autograd = tuple[Callable[..., None], Callable[..., Gradients]]

# By operator: the shapes of its results, and what it saves for its gradient and that gradient.
OPERATORS: dict[str, tuple[Fake, Autograd | None]] = {
    "transpose": (lambda offsets, sources: (_like(offsets), _like(sources), _like(sources)), None),
    "nearest": (_nearest_shape, None),
    "smallest": (_nearest_shape, None),
    "neighbor_sum": (lambda x, *rows: _like(x), (_save_sum, _grad_sum)),
    "neighbor_sum_backward": (lambda grad, *rows: _like(grad), (_save_sum, _grad_sum_backward)),
    "neighbor_max": (_max_shapes, (_save_max, _grad_max)),
    "neighbor_max_backward": (lambda grad, *others: _like(grad), None),
    "edge_relu_stats": (_stats_shapes, (_save_stats, _grad_stats)),
    "edge_relu_stats_backward": (
        lambda selected, total, squares, target, *others: (_like(target), _like(target)),
        None,
    ),
    "pool_activation": (_pool_shapes, (_save_pool, _grad_pool)),
    "pool_activation_backward": (lambda extremum, total, squares, x, *others: _like(x), None),
    "linear_pool": (_linear_pool_shapes, (_save_linear_pool, _grad_linear_pool)),
    "linear_pool_backward": (_linear_pool_backward_shapes, None),
    "attention_sum": (_attention_shapes, (_save_attention, _grad_attention)),
    "sage": (_sage_shapes, None),
    "sage_backward": (_sage_backward_shapes, None),
    "edge_conv": (_edge_conv_shapes, None),
    "edge_conv_backward": (_edge_conv_backward_shapes, None),
    "attention_sum_backward": (
        lambda grad, values, target, source, *others: (_like(values), _like(target), _like(source)),
        None,
    ),
}

# Operators of columns (`pointwise`) have no gradient of their own: by name, their results' shapes.
COLUMN_OPERATORS: dict[str, Fake] = {
    "relu_sums_": (lambda h, slope: _doubles(h, 2, h.shape[1])),
    "relu_norm_": (lambda h, slope, weight, *others: _coefficient_shape(weight)),
    "relu_norm_backward": _norm_backward_shapes,
    "linear_norm": _linear_norm_shapes,
    "linear_norm_backward": _linear_norm_backward_shapes,
    "norm_coefficients": (lambda sums, count, weight, *_: _coefficient_shape(weight)),
    "column_sums": (lambda grad, y, mask: _doubles(grad, 2, grad.shape[1])),
    "head_dots": (lambda values, vectors, shifts, heads: _head_dots_shapes(values, heads)),
    "head_dots_backward": (lambda values, *_: _doubles(values, 2, values.shape[1])),
    "norm_gradients": _gradient_shapes,
    "apply_factors": (lambda *_: None),
    "mixture": _mixture_shapes,
    "skip_backward": _skip_backward_shape,
    "length_backward": (lambda grad, y, coefs, inverse, *_: _doubles(y, inverse.shape[1])),
}


def _linear_norm_flops(inputs: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * inputs[0][0] * math.prod(weight)


def _sage_flops(x: Any, pre: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * (math.prod(pre) + math.prod(weight))


def _edge_conv_flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * math.prod(weight)


def _linear_norm_backward_flops(grad: Any, y: Any, *others: Any, **_: Any) -> int:
    weight, grad_inputs, of_weight = others[-4:-1]
    return 2 * y[0] * math.prod(weight) * (bool(grad_inputs) + of_weight)


def _linear_pool_backward_flops(*given: Any, **_: Any) -> int:
    inputs, weight, y, _, _, of_inputs, of_weight = given[3:]
    wanted = sum(x[1] for x, is_wanted in zip(inputs, of_inputs, strict=True) if is_wanted)
    return 2 * y[0] * weight[0] * (wanted + of_weight * weight[1])


def _sage_backward_flops(grad: Any, *others: Any, **_: Any) -> int:
    """The message's gradient, what two maps give x, and three matrices."""
    pre, grad_x, of_weights = others[7], *others[-2:]
    return 2 * grad[0] * math.prod(pre) * (1 + 2 * (grad_x is not None) + 3 * of_weights)


def _edge_conv_backward_flops(grad: Any, *others: Any, **_: Any) -> int:
    """A x and B x again, what they give x, and both matrices."""
    weight, grad_x, of_weight = others[8], *others[-2:]
    products = (grad_x is not None) + of_weight
    return 2 * grad[0] * math.prod(weight) * (products + (products > 0))


# The matrix products inside of operators, from the shapes of their arguments.
FLOPS: dict[str, Callable[..., int]] = {
    "linear_norm": _linear_norm_flops,
    "linear_norm_backward": _linear_norm_backward_flops,
    "linear_pool": lambda inputs, weight, *_, **__: 2 * inputs[0][0] * math.prod(weight),
    "linear_pool_backward": _linear_pool_backward_flops,
    "sage": _sage_flops,
    "sage_backward": _sage_backward_flops,
    "edge_conv": _edge_conv_flops,
    "edge_conv_backward": _edge_conv_backward_flops,
}
