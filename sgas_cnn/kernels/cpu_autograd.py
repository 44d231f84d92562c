"""Gradients and shapes of the compiled operators, for autograd, fake tensors and torch.compile.

Fused cells call the backward operators themselves; these make each operator whole on its own.
Dimensions as in `torch_backend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

NAMESPACE = "sgas_cnn"


@cache
def register() -> None:
    """Registers all of them, once a process; the library has to be loaded."""
    for name, fake in FAKES.items():
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake)
    for name, (backward, setup) in GRADIENTS.items():
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup)
    for name, count in FLOPS.items():
        register_flop_formula(getattr(torch.ops.sgas_cnn, name))(count)


def _half(side: Any, stride: int) -> Any:
    return (side + stride - 1) // stride


def _plane(x: Tensor, stride: int) -> Tensor:
    count, height, width, channels = x.shape
    return x.new_empty(count, _half(height, stride), _half(width, stride), channels)


def _fake_depthwise(
    inputs: Any,
    matrices: Any,
    shifts: Any,
    weights: Any,
    dilations: Any,
    offsets: Any,
    stride: int,
    moments: bool,
) -> Any:
    x, num = inputs[0], len(weights) if moments else 0
    planes = [_plane(x, stride) for _ in weights]
    channels = x.shape[3]
    return planes, x.new_empty(num, channels), x.new_empty(num, channels, channels)


def _fake_depthwise_backward(*given: Any) -> Any:
    inputs, matrices, weights, wants_inputs, wants_weights = (given[i] for i in (7, 8, 11, 16, 17))
    x, mapped = inputs[0], 0 if matrices is None else len(weights)
    to_inputs = [i.new_empty(i.shape) for i in inputs] if wants_inputs or mapped else []
    to_weights = [
        w.new_empty(w.shape) if wanted and w.numel() else w.new_empty(0)
        for w, wanted in zip(weights, wants_weights, strict=True)
    ]
    channels = x.shape[3]
    return (
        to_inputs,
        to_weights,
        x.new_empty(mapped, channels, channels),
        x.new_empty(mapped, channels),
    )


def _fake_mixture(
    before: Any,
    before_slots: Any,
    planes: Any,
    slot_of: Any,
    matrices: Any,
    first_rows: Any,
    linear: Any,
    coefficients: Any,
    bias: Any,
) -> Any:
    like = planes[0] if planes else linear[0]
    return [like.new_empty(like.shape) for _ in range(bias.shape[0])]


def _fake_mixture_backward(
    gradients: Any,
    planes: Any,
    slot_of: Any,
    centres: Any,
    linear: Any,
    linear_centres: Any,
    coefficients: Any,
) -> Any:
    like, slots = gradients[0], len(gradients)
    channels = like.shape[3]
    return (
        [like.new_empty(like.shape) for _ in linear],
        like.new_empty(len(planes), channels, channels),
        like.new_empty(slots, len(linear), channels),
        like.new_empty(slots, channels),
    )


def _fake_pool(x: Tensor, stride: int, moments: bool) -> Any:
    shape = (2 if moments else 0, x.shape[3])
    return _plane(x, stride), _plane(x, stride), x.new_empty(shape), x.new_empty(shape)


def _fake_pool_backward(x: Tensor, *given: Any) -> Tensor:
    return x.new_empty(x.shape)


FAKES = {
    "depthwise": _fake_depthwise,
    "depthwise_backward": _fake_depthwise_backward,
    "mixture": _fake_mixture,
    "mixture_backward": _fake_mixture_backward,
    "pool": _fake_pool,
    "pool_backward": _fake_pool_backward,
}


def _keep_depthwise(ctx: Any, inputs: Any, output: Any) -> None:
    images, matrices, shifts, weights, ctx.dilations, ctx.offsets, ctx.stride, ctx.moments = inputs
    planes, mean, _ = output
    ctx.sizes = len(images), len(weights), matrices is not None
    through = () if matrices is None else (matrices, shifts)
    ctx.save_for_backward(*images, *weights, *planes, mean, *through)


def _depthwise_gradients(ctx: Any, from_planes: Any, from_mean: Any, from_covariance: Any) -> Any:
    num_images, num, mapped = ctx.sizes
    saved = list(ctx.saved_tensors)
    images, weights = saved[:num_images], saved[num_images : num_images + num]
    planes, (mean, *through) = saved[num_images + num :][:num], saved[num_images + 2 * num :]
    matrices, shifts = through if mapped else (None, None)
    slopes = constants = None
    if ctx.moments:
        pixels = max(1, planes[0][..., 0].numel())
        slopes = (from_covariance + from_covariance.transpose(1, 2)) / pixels
        constants = from_mean / pixels - torch.einsum("ni,nij->nj", mean, slopes)
    given = [
        torch.zeros_like(p) if g is None else g for g, p in zip(from_planes, planes, strict=True)
    ]
    straight = torch.eye(planes[0].shape[-1], dtype=mean.dtype).expand(num, -1, -1)
    to_images, to_weights, crossed, sums = torch.ops.sgas_cnn.depthwise_backward(
        given, range(num), range(num), straight, planes, slopes, constants,
        images, matrices, shifts, None, weights, ctx.dilations, ctx.offsets,
        ctx.stride, None, True, [True] * num,
    )  # fmt: skip
    to_weights = [
        g if g.numel() else torch.zeros_like(w) for g, w in zip(to_weights, weights, strict=True)
    ]
    if matrices is None:
        return to_images, None, None, to_weights, None, None, None, None
    to_images = [g @ matrix for g, matrix in zip(to_images, matrices, strict=True)]
    return to_images, crossed, sums, to_weights, None, None, None, None


def _keep_mixture(ctx: Any, inputs: Any, output: Any) -> None:
    _, ctx.before_slots, planes, ctx.slot_of, matrices, ctx.first_rows, linear, *others = inputs
    coefficients, _ = others
    ctx.num = len(planes)
    ctx.save_for_backward(coefficients, *planes, *matrices, *linear)


def _mixture_gradients(ctx: Any, gradients: Any) -> Any:
    coefficients, *images = ctx.saved_tensors
    planes, matrices, linear = (
        images[: ctx.num],
        images[ctx.num :][: ctx.num],
        images[2 * ctx.num :],
    )
    like = images[0]
    gradients = [torch.zeros_like(like) if g is None else g for g in gradients]
    channels = like.shape[-1]
    to_linear, crossed, linear_crossed, sums = torch.ops.sgas_cnn.mixture_backward(
        gradients, planes, ctx.slot_of, like.new_zeros(len(planes), channels),
        linear, like.new_zeros(len(linear), channels), coefficients,
    )  # fmt: skip
    rows = [
        slice(row, row + len(matrix)) for row, matrix in zip(ctx.first_rows, matrices, strict=True)
    ]
    to_planes = [
        gradients[slot][..., row] @ matrix
        for slot, row, matrix in zip(ctx.slot_of, rows, matrices, strict=True)
    ]
    to_matrices = [part[row] for part, row in zip(crossed, rows, strict=True)]
    to_before = [gradients[slot] for slot in ctx.before_slots]
    return to_before, None, to_planes, None, to_matrices, None, to_linear, linear_crossed, sums


def _keep_pool(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.stride, ctx.moments = inputs
    largest, average, mean, _ = output
    ctx.save_for_backward(x, largest, average, mean)


def _pool_gradients(ctx: Any, largest_gradient: Any, average_gradient: Any, *moments: Any) -> Any:
    x, largest, average, mean = ctx.saved_tensors
    slopes = constants = x.new_zeros(2, x.shape[3])
    if ctx.moments:
        from_mean, from_variance = moments
        pixels = max(1, largest[..., 0].numel())
        slopes = 2 * from_variance / pixels
        constants = from_mean / pixels - slopes * mean
    gradient = torch.ops.sgas_cnn.pool_backward(
        x, largest, average, largest_gradient, average_gradient, slopes, constants, None, ctx.stride
    )
    return gradient, None, None


GRADIENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "depthwise": (_depthwise_gradients, _keep_depthwise),
    "mixture": (_mixture_gradients, _keep_mixture),
    "pool": (_pool_gradients, _keep_pool),
}


def _depthwise_flops(
    inputs: Any, matrices: Any, shifts: Any, weights: Any, *given: Any, out_shape: Any, **_: Any
) -> int:
    """Twice the multiply-adds of the convolutions; a shape stands for each tensor."""
    taps = [math.prod(weight[-2:]) if len(weight) > 1 else 0 for weight in weights]
    convolved = sum(math.prod(plane) * k for plane, k in zip(out_shape[0], taps, strict=True))
    mapped = sum(math.prod(x) * x[-1] for x in inputs) if matrices is not None else 0
    return 2 * (convolved + mapped)


def _mixture_flops(
    before: Any, slots: Any, planes: Any, slot_of: Any, matrices: Any, *given: Any, **_: Any
) -> int:
    """Twice the multiply-adds of the matrix products."""
    pairs = zip(planes, matrices, strict=True)
    return 2 * sum(math.prod(plane) * rows for plane, (rows, _) in pairs)


FLOPS: dict[str, Callable[..., Any]] = {"depthwise": _depthwise_flops, "mixture": _mixture_flops}
