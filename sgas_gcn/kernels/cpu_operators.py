"""The operators compiled for the CPU, `torch.ops.sgas_gcn.*`, and what torch has to know of them.

The operators are C++ (`kernels/cpu`); here are the shapes of their results, for tracing, their
FLOPs, and the gradients of those that pool, which torch derives. The others are raw: a function
with a backward pass of its own calls them. Dimensions: N nodes, E edges, m edges of a cell,
C channels of each, D = m·C.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake
from torch.utils.flop_counter import register_flop_formula

from sgas.native.operators import once
from sgas_gcn.kernels.protocol import LENGTH

Shape = Sequence[int]


@once
def operators() -> Any:
    """`torch.ops.sgas_gcn`, with gradients and shapes; the library has to be loaded before."""
    for name, shapes in {**OPERATORS, **COLUMN_OPERATORS}.items():
        register_fake(f"sgas_gcn::{name}", by_name(getattr(torch.ops.sgas_gcn, name), shapes))
    for name, (save, gradient) in GRADIENTS.items():
        register_autograd(f"sgas_gcn::{name}", gradient, setup_context=save)
    for name, count in FLOPS.items():
        operator = getattr(torch.ops.sgas_gcn, name)
        register_flop_formula(operator)(by_name(operator, count))
    return torch.ops.sgas_gcn


def by_name(operator: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called with those of an operator's arguments that it names."""
    names = [argument.name for argument in operator.default._schema.arguments]
    wanted = list(inspect.signature(function).parameters)
    assert set(wanted) <= set(names), f"{operator} has {names}, not {wanted}"

    def run(*arguments: Any, **others: Any) -> Any:
        values = {**dict(zip(names, arguments, strict=False)), **others}
        return function(**{name: values[name] for name in wanted})

    return run


def _like(x: Tensor) -> Tensor:
    """A new dense tensor of the shape and type of `x`."""
    return x.new_empty(x.shape)


def _doubles(like: Tensor, *shape: int) -> Tensor:
    """Sums and coefficients."""
    return like.new_empty(shape, dtype=torch.float64)


def _places(x: Tensor, degree: int) -> Tensor:
    """Which of a node's edges was chosen, `[N, D]`."""
    return x.new_empty(x.shape, dtype=torch.uint8 if degree <= 256 else torch.int32)


def _coefficients(norm_weight: Sequence[Tensor]) -> Tensor:
    """The coefficients `[4, D]` of norms."""
    return _doubles(norm_weight[0], 4, len(norm_weight) * norm_weight[0].shape[0])


def _if_wanted(weight: Tensor, wanted: bool) -> Tensor:
    """The gradient of a matrix, or one without rows."""
    return weight.new_empty(wanted * weight.shape[0], weight.shape[1])


def _nearest(x: Tensor, width: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], width, dtype=torch.int64)


def _smallest(rows: Tensor, width: int) -> Tensor:
    return _nearest(rows, width)


def _transpose(offsets: Tensor, sources: Tensor) -> tuple[Tensor, ...]:
    return _like(offsets), _like(sources), _like(sources)


def _neighbor_max(x: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    return _like(x), _places(x, degree)


def _edge_relu_stats(target: Tensor, degree: int) -> tuple[Tensor, ...]:
    sums = _doubles(target, target.shape[1])
    return _like(target), _places(target, degree), sums, _like(sums)


def _edge_relu_stats_backward(target: Tensor) -> tuple[Tensor, Tensor]:
    return _like(target), _like(target)


def _attention_sum(values: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    return _like(values), values.new_empty(sources.shape[0], values.shape[1])


def _attention_sum_backward(
    values: Tensor, target_score: Tensor, source_score: Tensor
) -> tuple[Tensor, ...]:
    return _like(values), _like(target_score), _like(source_score)


def _sage(x: Tensor, weight: Tensor, degree: int, tracked: bool) -> tuple[Tensor, ...]:
    y = x.new_empty(x.shape[0], weight.shape[0])
    return y, _like(y), _places(y, degree) if tracked else y.new_empty(0, dtype=torch.uint8)


def _sage_backward(
    y: Tensor, inverse: Tensor, pre: Tensor, weight: Tensor, of_weights: bool
) -> tuple[Tensor, ...]:
    of_scale = _doubles(y, inverse.shape[1])
    return of_scale, _if_wanted(pre, of_weights), _if_wanted(weight, of_weights)


def _edge_conv(
    x: Tensor, weight: Tensor, degree: int, norm_weight: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    y = x.new_empty(x.shape[0], weight.shape[0])
    return y, _places(y, degree), _coefficients(norm_weight)


def _edge_conv_backward(
    y: Tensor, edges: int, weight: Tensor, of_weight: bool
) -> tuple[Tensor, ...]:
    affine = y.new_empty(2, y.shape[1])
    return affine, _doubles(y, edges), _if_wanted(weight, of_weight)


def _pool_activation(x: Tensor, clouds: int) -> tuple[Tensor, ...]:
    extremum = x.new_empty(clouds, x.shape[1])
    points = extremum.new_empty(extremum.shape, dtype=torch.int32)
    total = _doubles(extremum, *extremum.shape)
    return extremum, points, total, _like(total)


def _linear_pool(inputs: Sequence[Tensor], weight: Tensor, clouds: int) -> tuple[Tensor, ...]:
    y = weight.new_empty(inputs[0].shape[0], weight.shape[0])
    return y, *_pool_activation(y, clouds)


def _linear_pool_backward(
    inputs: Sequence[Tensor], weight: Tensor, of_inputs: Sequence[bool], of_weight: bool
) -> tuple[list[Tensor], Tensor]:
    pairs = zip(inputs, of_inputs, strict=True)
    return [_if_wanted(x, wanted) for x, wanted in pairs], _if_wanted(weight, of_weight)


def _relu_norm_backward(y: Tensor, edges: int) -> tuple[Tensor, Tensor]:
    return y.new_empty(2, y.shape[1]), _doubles(y, edges)


def _linear_norm(
    inputs: Sequence[Tensor], weight: Tensor, norm_weight: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    y = inputs[0].new_empty(inputs[0].shape[0], weight.shape[0])
    return y, _coefficients(norm_weight)


def _linear_norm_backward(
    y: Tensor, edges: int, weight: Tensor, of_weight: bool, of_bias: bool
) -> tuple[Tensor, ...]:
    of_biases = weight.new_empty(of_bias * y.shape[1])
    return *_relu_norm_backward(y, edges), _if_wanted(weight, of_weight), of_biases


def _norm_gradients(sums: Tensor, coefficients: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    columns = coefficients.shape[1]
    return _doubles(sums, 3, columns), like.new_empty(2, columns), _doubles(sums, columns)


def _head_dots(values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    first = values.new_empty(values.shape[0], heads)
    return first, _like(first)


def _skip_backward(grad: Tensor, x: Tensor, scale: Tensor | None) -> Tensor:
    by_columns = grad.shape[1] // max(x.shape[1], 1)
    return _doubles(x, by_columns if scale is None else scale.shape[0])


def _mixture(
    values: Sequence[Tensor],
    kinds: Sequence[int],
    counts: Sequence[int],
    bases: Sequence[Tensor | None],
    channels: int,
) -> tuple[list[Tensor], Tensor]:
    rows = values[0].shape[0]
    lengths = sum(count for kind, count in zip(kinds, counts, strict=True) if kind == LENGTH)
    outs = [values[0].new_empty(rows, channels) for _ in bases]
    return outs, values[0].new_empty(rows, lengths)


# The shapes of results, by operator, from those of its arguments that they take.
OPERATORS: dict[str, Callable[..., Any]] = {
    "transpose": _transpose,
    "nearest": _nearest,
    "smallest": _smallest,
    "neighbor_sum": lambda x: _like(x),
    "neighbor_sum_backward": lambda grad: _like(grad),
    "neighbor_max": _neighbor_max,
    "neighbor_max_backward": lambda grad: _like(grad),
    "edge_relu_stats": _edge_relu_stats,
    "edge_relu_stats_backward": _edge_relu_stats_backward,
    "pool_activation": _pool_activation,
    "pool_activation_backward": lambda x: _like(x),
    "linear_pool": _linear_pool,
    "linear_pool_backward": _linear_pool_backward,
    "attention_sum": _attention_sum,
    "attention_sum_backward": _attention_sum_backward,
    "sage": _sage,
    "sage_backward": _sage_backward,
    "edge_conv": _edge_conv,
    "edge_conv_backward": _edge_conv_backward,
}

# Those of columns, which Triton's operators share.
COLUMN_OPERATORS: dict[str, Callable[..., Any]] = {
    "relu_sums_": lambda h: _doubles(h, 2, h.shape[1]),
    "relu_norm_": lambda weight: _coefficients(weight),
    "relu_norm_backward": _relu_norm_backward,
    "linear_norm": _linear_norm,
    "linear_norm_backward": _linear_norm_backward,
    "norm_coefficients": lambda weight: _coefficients(weight),
    "column_sums": lambda grad: _doubles(grad, 2, grad.shape[1]),
    "head_dots": _head_dots,
    "head_dots_backward": lambda values: _doubles(values, 2, values.shape[1]),
    "norm_gradients": _norm_gradients,
    "apply_factors": lambda: None,
    "mixture": _mixture,
    "skip_backward": _skip_backward,
    "length_backward": lambda y, inverse: _doubles(y, inverse.shape[1]),
}


def _save_pool(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, _, ctx.slope = inputs
    _, points, _, _ = output
    ctx.mark_non_differentiable(points)
    ctx.save_for_backward(x, points)


def _grad_pool(
    ctx: Any, extremum: Tensor, _: Any, total: Tensor, squares: Tensor
) -> tuple[Tensor | None, ...]:
    x, points = ctx.saved_tensors
    grads = (extremum, total, squares)
    grad_x = operators().pool_activation_backward(*grads, x, points, ctx.slope)
    return grad_x, None, None, None


def _save_linear_pool(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    parts, weight, _, _, ctx.slope = inputs
    y, _, points, _, _ = output
    ctx.mark_non_differentiable(y, points)
    ctx.set_materialize_grads(False)  # of y that would be as large as y
    ctx.save_for_backward(*parts, weight, y, points)


def _grad_linear_pool(
    ctx: Any,
    _y: Tensor | None,
    extremum: Tensor | None,
    _points: Tensor | None,
    total: Tensor | None,
    squares: Tensor | None,
) -> tuple[Any, ...]:
    of_inputs, of_weight = ctx.needs_input_grad[:2]
    *inputs, weight, y, points = ctx.saved_tensors
    types = (y.dtype, torch.float64, torch.float64)
    pooled = (
        torch.zeros_like(points, dtype=dtype) if grad is None else grad
        for grad, dtype in zip((extremum, total, squares), types, strict=True)
    )
    of_parts, grad_weight = operators().linear_pool_backward(
        *pooled, inputs, weight, y, points, ctx.slope, of_inputs, of_weight
    )
    pairs = zip(of_parts, of_inputs, strict=True)
    grad_inputs = [grad if wanted else None for grad, wanted in pairs]
    return grad_inputs, grad_weight if of_weight else None, None, None, None


# By operator that torch derives: what it saves for its gradient, and that.
GRADIENTS: dict[str, tuple[Callable[..., None], Callable[..., tuple[Any, ...]]]] = {
    "pool_activation": (_save_pool, _grad_pool),
    "linear_pool": (_save_linear_pool, _grad_linear_pool),
}


def _linear_flops(inputs: Sequence[Shape], weight: Shape) -> int:
    return 2 * inputs[0][0] * math.prod(weight)


def _linear_norm_backward_flops(
    y: Shape, weight: Shape, grad_inputs: Sequence[Shape], of_weight: bool
) -> int:
    return 2 * y[0] * math.prod(weight) * (bool(grad_inputs) + of_weight)


def _linear_pool_backward_flops(
    inputs: Sequence[Shape], weight: Shape, of_inputs: Sequence[bool], of_weight: bool
) -> int:
    wanted = sum(x[1] for x, is_wanted in zip(inputs, of_inputs, strict=True) if is_wanted)
    return 2 * inputs[0][0] * weight[0] * (wanted + of_weight * weight[1])


def _sage_flops(x: Shape, pre: Shape, weight: Shape) -> int:
    return 2 * x[0] * (math.prod(pre) + math.prod(weight))


def _sage_backward_flops(grad: Shape, pre: Shape, grad_x: Shape | None, of_weights: bool) -> int:
    """The message's gradient, what two maps give x, and three matrices."""
    return 2 * grad[0] * math.prod(pre) * (1 + 2 * (grad_x is not None) + 3 * of_weights)


def _edge_conv_flops(x: Shape, weight: Shape) -> int:
    return 2 * x[0] * math.prod(weight)


def _edge_conv_backward_flops(
    grad: Shape, weight: Shape, grad_x: Shape | None, of_weight: bool
) -> int:
    """A x and B x again, what they give x, and both matrices."""
    products = (grad_x is not None) + of_weight
    return 2 * grad[0] * math.prod(weight) * (products + (products > 0))


# The matrix products inside of operators, from the shapes of their arguments.
FLOPS: dict[str, Callable[..., int]] = {
    "linear_norm": _linear_flops,
    "linear_norm_backward": _linear_norm_backward_flops,
    "linear_pool": _linear_flops,
    "linear_pool_backward": _linear_pool_backward_flops,
    "sage": _sage_flops,
    "sage_backward": _sage_backward_flops,
    "edge_conv": _edge_conv_flops,
    "edge_conv_backward": _edge_conv_backward_flops,
}
