"""Gradients, shapes and FLOPs of the operators, for autograd, fake tensors and torch.compile.

Those compiled for the CPU, in namespace `sgas_cnn`, and those by Triton, in `sgas_cnn_cuda`.
Fused cells call the backward operators themselves; these make each operator whole on its own.
Dimensions as in `torch_backend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sgas.operators import once


@once
def whole(namespace: str) -> Any:
    """`torch.ops` of a namespace whose operators are defined, made whole once a process."""
    operators = getattr(torch.ops, namespace)
    for name, fake in FAKES.items():
        if hasattr(operators, name):
            torch.library.register_fake(f"{namespace}::{name}", fake)
    for name, (backward, setup) in GRADIENTS.items():
        once = partial(_once, f"{namespace}::{name}", partial(backward, operators))
        torch.library.register_autograd(f"{namespace}::{name}", once, setup_context=setup)
    for name, count in FLOPS.items():
        register_flop_formula(getattr(operators, name))(count)
    return operators


def _once(name: str, backward: Callable[..., Any], ctx: Any, *gradients: Any) -> Any:
    """The gradients, unless they are to be derived themselves: that would go wrong in silence."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name} can be derived once: call backward without create_graph")
    return backward(ctx, *gradients)


def _half(side: Any, stride: int) -> Any:
    return (side + stride - 1) // stride


def _half_image(x: Tensor, stride: int) -> Tensor:
    count, height, width, channels = x.shape
    return x.new_empty(count, _half(height, stride), _half(width, stride), channels)


def _fake_separable(inputs: Any, *given: Any) -> Any:
    pointwise, stride, moments = given[5], given[7], given[8]
    x, num = inputs[0], len(pointwise) if moments else 0
    outputs = [_half_image(x, stride) for _ in pointwise]
    return outputs, x.new_empty(num, x.shape[3]), x.new_empty(num, x.shape[3])


def _fake_separable_sum(inputs: Any, *given: Any) -> Any:
    stride, bias = given[7], given[12]
    return [_half_image(inputs[0], stride) for _ in range(bias.shape[0])]


def _fake_separable_backward(*given: Any) -> Any:
    inputs, scales, taps, pointwise = (given[i] for i in (6, 7, 9, 12))
    wants_inputs, wants_taps, wants_pointwise = given[17:20]
    x, mapped = inputs[0], 0 if scales is None else len(pointwise)
    to_inputs = [i.new_empty(i.shape) for i in inputs] if wants_inputs or mapped else []
    to_weights = [
        [
            w.new_empty(w.shape) if wanted and w.numel() else w.new_empty(0)
            for w, wanted in zip(weights, wants, strict=True)
        ]
        for weights, wants in ((taps, wants_taps), (pointwise, wants_pointwise))
    ]
    sums = [x.new_empty(mapped, x.shape[3]) for _ in range(2)]
    return to_inputs, *to_weights, *sums


def _fake_mixture(
    before: Any,
    before_slots: Any,
    parts: Any,
    slot_of: Any,
    factors: Any,
    linear: Any,
    coefficients: Any,
    bias: Any,
) -> Any:
    like = parts[0] if parts else linear[0]
    return [like.new_empty(like.shape) for _ in range(bias.shape[0])]


def _fake_mixture_backward(
    gradients: Any,
    parts: Any,
    slot_of: Any,
    centres: Any,
    linear: Any,
    linear_centres: Any,
    coefficients: Any,
    wants_linear: bool,
) -> Any:
    like, slots = gradients[0], len(gradients)
    channels = like.shape[3]
    return (
        [like.new_empty(like.shape if wants_linear else 0) for _ in linear],
        like.new_empty(len(parts), channels),
        like.new_empty(slots, len(linear), channels),
        like.new_empty(slots, channels),
    )


def _fake_projection(x: Tensor, weight: Tensor, bias: Any, moments: bool) -> Any:
    output = x.new_empty(*x.shape[:3], weight.shape[0])
    return output, *(x.new_empty(int(moments), weight.shape[0]) for _ in range(2))


def _fake_projection_backward(*given: Any) -> Any:
    x, weight, wants_x, wants_weight = given[5:]
    pairs = (x, wants_x), (weight, wants_weight)
    return tuple(t.new_empty(t.shape if wanted else 0) for t, wanted in pairs)


def _fake_fold(mean: Tensor, var: Tensor, row_of: Any, *given: Any) -> Any:
    slots, channels = given[5], mean.shape[1]
    rows = [mean.new_empty(len(row_of), channels) for _ in range(3)]
    return rows[0], mean.new_empty(slots, channels), rows[1], rows[2]


def _fake_unfold(factors: Tensor, *given: Any) -> Any:
    weights = given[5]
    count = 0 if weights is None else weights.numel()
    return factors.new_empty(count), *(factors.new_empty(factors.shape) for _ in range(4))


def _fake_follow(*given: Any) -> None:
    return None


def _fake_pool(x: Tensor, stride: int, moments: bool) -> Any:
    shape = (2 if moments else 0, x.shape[3])
    return _half_image(x, stride), _half_image(x, stride), x.new_empty(shape), x.new_empty(shape)


def _fake_pool_backward(x: Tensor, *given: Any) -> Tensor:
    return x.new_empty(x.shape)


FAKES = {
    "separable": _fake_separable,
    "separable_backward": _fake_separable_backward,
    "mixture": _fake_mixture,
    "mixture_backward": _fake_mixture_backward,
    "projection": _fake_projection,
    "separable_sum": _fake_separable_sum,
    "projection_backward": _fake_projection_backward,
    "fold": _fake_fold,
    "unfold": _fake_unfold,
    "follow": _fake_follow,
    "pool": _fake_pool,
    "pool_backward": _fake_pool_backward,
}


def _keep_separable(ctx: Any, inputs: Any, output: Any) -> None:
    images, scales, shifts, taps, *ctx.places, pointwise, ctx.rows, ctx.stride, ctx.moments = inputs
    outputs, mean, _ = output
    ctx.sizes = len(images), len(taps), scales is not None
    through = () if scales is None else (scales, shifts)
    ctx.save_for_backward(*images, *taps, *pointwise, *outputs, mean, *through)


def _separable_gradients(
    operators: Any, ctx: Any, from_outputs: Any, from_mean: Any, from_variance: Any
) -> Any:
    num_images, num, mapped = ctx.sizes
    saved = list(ctx.saved_tensors)
    images, saved = saved[:num_images], saved[num_images:]
    taps, pointwise, outputs = saved[:num], saved[num : 2 * num], saved[2 * num : 3 * num]
    mean, *through = saved[3 * num :]
    scales, shifts = through if mapped else (None, None)
    slopes = constants = None
    if ctx.moments:
        slopes, constants = _corrections(outputs[0], mean, from_mean, from_variance)
    given = [
        torch.zeros_like(p) if g is None else g for g, p in zip(from_outputs, outputs, strict=True)
    ]
    to_images, to_taps, to_pointwise, crossed, sums = operators.separable_backward(
        given, range(num), mean.new_ones(num, outputs[0].shape[-1]), outputs, slopes, constants,
        images, scales, shifts, taps, *ctx.places, pointwise, ctx.rows, ctx.stride, None, None,
        True, [True] * num, [True] * num,
    )  # fmt: skip
    to_taps = [g if g.numel() else torch.zeros_like(w) for g, w in zip(to_taps, taps, strict=True)]
    to_scales = to_shifts = None
    if scales is not None:
        to_images = [g * scale for g, scale in zip(to_images, scales, strict=True)]
        to_scales, to_shifts = crossed, sums
    return to_images, to_scales, to_shifts, to_taps, None, None, to_pointwise, None, None, None


def _keep_mixture(ctx: Any, inputs: Any, output: Any) -> None:
    _, ctx.before_slots, parts, ctx.slot_of, factors, linear, coefficients, _ = inputs
    ctx.num = len(parts)
    ctx.save_for_backward(coefficients, factors, *parts, *linear)


def _mixture_gradients(operators: Any, ctx: Any, gradients: Any) -> Any:
    coefficients, factors, *images = ctx.saved_tensors
    parts, linear = images[: ctx.num], images[ctx.num :]
    like = images[0]
    gradients = [torch.zeros_like(like) if g is None else g for g in gradients]
    to_linear, crossed, linear_crossed, sums = operators.mixture_backward(
        gradients, parts, ctx.slot_of, torch.zeros_like(factors),
        linear, like.new_zeros(len(linear), like.shape[-1]), coefficients, True,
    )  # fmt: skip
    to_parts = [gradients[slot] * factor for slot, factor in zip(ctx.slot_of, factors, strict=True)]
    to_before = [gradients[slot] for slot in ctx.before_slots]
    return to_before, None, to_parts, None, crossed, to_linear, linear_crossed, sums


def _keep_projection(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, bias, ctx.moments = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, *output[:2])


def _projection_gradients(
    operators: Any, ctx: Any, gradient: Any, from_mean: Any, from_variance: Any
) -> Any:
    x, weight, output, mean = ctx.saved_tensors
    slopes = constants = None
    if ctx.moments:
        slopes, constants = _corrections(output, mean, from_mean, from_variance)
    given = mean.new_ones(1, len(weight)), output, slopes, constants, x, weight
    to_x, to_weight = operators.projection_backward(gradient, *given, True, True)
    to_bias = None
    if ctx.has_bias:
        to_bias = gradient.sum((0, 1, 2)) + (from_mean[0] if ctx.moments else 0)
    return to_x, to_weight, to_bias, None


def _corrections(
    output: Tensor, mean: Tensor, from_mean: Tensor, from_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """The slopes and constants by which moments give gradients to the output."""
    pixels = max(1, output[..., 0].numel())
    slopes = 2 * from_variance / pixels
    return slopes, from_mean / pixels - slopes * mean


def _keep_pool(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.stride, ctx.moments = inputs
    largest, average, mean, _ = output
    ctx.save_for_backward(x, largest, average, mean)


def _pool_gradients(
    operators: Any, ctx: Any, largest_gradient: Any, average_gradient: Any, *moments: Any
) -> Any:
    x, largest, average, mean = ctx.saved_tensors
    slopes = constants = x.new_zeros(2, x.shape[3])
    if ctx.moments:
        slopes, constants = _corrections(largest, mean, *moments)
    gradient = operators.pool_backward(
        x, largest, average, largest_gradient, average_gradient, slopes, constants, None, ctx.stride
    )
    return gradient, None, None


GRADIENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "separable": (_separable_gradients, _keep_separable),
    "mixture": (_mixture_gradients, _keep_mixture),
    "projection": (_projection_gradients, _keep_projection),
    "pool": (_pool_gradients, _keep_pool),
}


def _separable_flops(
    inputs: Any,
    scales: Any,
    shifts: Any,
    taps: Any,
    dilations: Any,
    offsets: Any,
    pointwise: Any,
    *given: Any,
    out_shape: Any,
    **_: Any,
) -> int:
    """Twice the multiply-adds of the convolutions; a shape stands for each tensor."""
    total = 0
    for output, weight, through in zip(out_shape[0], taps, pointwise, strict=True):
        per_channel = (math.prod(weight[-2:]) if len(weight) > 1 else 0) + through[0]
        total += 2 * math.prod(output) * per_channel
    return total


def _separable_sum_flops(
    inputs: Any, scales: Any, shifts: Any, taps: Any, *given: Any, out_shape: Any, **_: Any
) -> int:
    """Those of `separable`, whose outputs are as large as the sums."""
    return _separable_flops(
        inputs, scales, shifts, taps, *given, out_shape=[[out_shape[0]] * len(taps)]
    )


def _separable_backward_flops(gradients: Any, gradient_of: Any, *given: Any, **_: Any) -> int:
    """What the wanted gradients take, and the depthwise half again for a pointwise weight's."""
    scales, taps, pointwise = given[5], given[7], given[10]
    wants_inputs, wants_taps, wants_pointwise = given[-3:]
    into = wants_inputs or scales is not None
    total = 0
    for i, (weight, through) in enumerate(zip(taps, pointwise, strict=True)):
        output = 2 * math.prod(gradients[gradient_of[i]])
        depthwise = math.prod(weight[-2:]) if len(weight) > 1 else 0
        of_taps = wants_taps[i] and depthwise > 0
        total += output * through[0] * ((into or of_taps) + wants_pointwise[i])
        total += output * depthwise * (into + of_taps + wants_pointwise[i])
    return total


def _projection_backward_flops(*given: Any, **_: Any) -> int:
    x, weight, wants_x, wants_weight = given[-4:]
    return 2 * math.prod(x) * weight[0] * (wants_x + wants_weight)


def _projection_flops(x: Any, weight: Any, *given: Any, **_: Any) -> int:
    """Twice the multiply-adds of the product."""
    return 2 * math.prod(x) * weight[0]


FLOPS: dict[str, Callable[..., Any]] = {
    "separable": _separable_flops,
    "separable_sum": _separable_sum_flops,
    "separable_backward": _separable_backward_flops,
    "projection": _projection_flops,
    "projection_backward": _projection_backward_flops,
}
