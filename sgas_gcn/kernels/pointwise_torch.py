"""What fused states do to rows, column by column, in plain torch.

These are the twins of what `cpu/batch_norm.cpp`, `linear_norm.cpp`, `head_dots.cpp` and
`mixture.cpp` register.

Batch norm stands for m norms of C channels side by side, D = m·C columns, whose parameters and
running statistics come as lists of m tensors. Its coefficients are float64 `[4, D]`: the norm of y
is slope · y + shift; then the mean and the inverse deviation 1/√(var + ε). Dimensions: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

AFFINE, MASKED, BROADCAST, LENGTH = range(4)  # kinds of terms of a mixture


def relu_sums_(h: Tensor, negative_slope: float) -> Tensor:
    """Leaky ReLU in place; float64 `[2, D]`: the sums of its results and of their squares."""
    if negative_slope != 1:
        F.leaky_relu_(h, negative_slope)
    return torch.stack([h.sum(0, dtype=torch.float64), h.square().sum(0, dtype=torch.float64)])


def norm_coefficients(
    sums: Tensor,
    count: int,
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """The coefficients `[4, D]` from the `sums` `[2, D]` of `count` rows, or from running ones.

    In training the running statistics move by `momentum`, unless there is no row.
    """
    if training:
        mean = sums[0] / max(count, 1)
        var = (sums[1] / max(count, 1) - mean.square()).clamp_min(0)
        if count:
            kept, num_norms = [*running_mean, *running_var], len(running_mean)
            unbiased = var * (count / max(count - 1, 1))
            new = torch.stack([mean, unbiased]).to(kept[0].dtype).view(2 * num_norms, -1)
            torch._foreach_lerp_(kept, list(new.unbind()), momentum)
    else:
        mean, var = torch.cat(tuple(running_mean)).double(), torch.cat(tuple(running_var)).double()
    inverse = (var + eps).rsqrt()
    slope = torch.cat(tuple(weight)).double() * inverse
    return torch.stack([slope, torch.cat(tuple(bias)).double() - slope * mean, mean, inverse])


def column_sums(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """Float64 `[2, D]`: the sums of `grad`, of rows where `mask` `[N]` is 1 alone, and of grad · y.

    `y` is `[N, D]`, or `[N, C]` for each of the m.
    """
    edges = max(grad.shape[1] // max(y.shape[1], 1), 1)
    product = grad.reshape(len(grad), edges, y.shape[1]) * y.unsqueeze(1)
    counted = grad if mask is None else grad * mask.unsqueeze(1)
    double = torch.float64
    return torch.stack([counted.sum(0, dtype=double), product.sum(0, dtype=double).flatten()])


def norm_gradients(
    sums: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of scale · norm(y), `scale` `[m]`, from the `sums` of the gradient G of the product.

    Returns float64 `[3, D]`, by which y has the gradient f0 · G + f1 + f2 · y; the gradients `[D]`
    of the norms' weights, then of their biases, as `[2, D]` in the type of `like`; and float64
    `[D]`, the sum of G · norm(y), whose sums over each norm's channels are the gradient of `scale`.
    """
    slope, shift, mean, inverse = coefficients
    total, product = sums
    centred = product - mean * total
    of_scale = slope * centred + (shift + slope * mean) * total
    by = slope.new_ones(()) if scale is None else scale.double()
    by = by.repeat_interleave(len(slope) // max(by.numel(), 1)) if by.ndim else by.expand_as(slope)
    first = by * slope
    if training:
        third = first * inverse.square() * centred / -max(count, 1)
        second = first * total / -max(count, 1) - third * mean
    else:
        second = third = torch.zeros_like(slope)
    affine = torch.stack([by * inverse * centred, by * total]).to(like.dtype)
    return torch.stack([first, second, third]), affine, of_scale


def apply_factors(
    grad: Tensor, y: Tensor, factors: Tensor, negative_slope: float, out: Tensor
) -> None:
    """Into `out`: f0 · grad + f1 + f2 · y, times `negative_slope` where y is not above 0."""
    first, second, third = factors.to(grad.dtype)
    torch.addcmul(torch.addcmul(second, y, third), grad, first, out=out)
    if negative_slope != 1:
        out.copy_(torch.where(y > 0, out, out * negative_slope))


def relu_norm_(
    h: Tensor,
    negative_slope: float,
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Leaky ReLU in place, and the coefficients `[4, D]` of the norm of its results."""
    sums, norms = relu_sums_(h, negative_slope), (weight, bias, running_mean, running_var)
    return norm_coefficients(sums, len(h), *norms, training, momentum, eps)


def relu_norm_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    edges: int,
    training: bool,
    negative_slope: float,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Backward of scale · norm(y), y a leaky ReLU: the gradient before it goes into `out` if given.

    Returns the gradients `[2, D]` of the norms' weights and biases, and float64 `[edges]` of the
    scale.
    """
    sums = column_sums(grad, y, None)
    factors, affine, of_scale = norm_gradients(sums, coefficients, scale, len(y), training, y)
    if out is not None:
        apply_factors(grad, y, factors, negative_slope, out)
    return affine, of_scale.unflatten(0, (edges, -1)).sum(1)


def linear_norm(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    negative_slope: float,
    *norms: Any,
    relu_norm: Callable[..., Tensor] = relu_norm_,
) -> tuple[Tensor, Tensor]:
    """Leaky ReLU of Σ W_i x_i + b `[N, D]`, and the coefficients `[4, D]` of the norm of it.

    `weight` `[D, C · inputs]` are the W_i side by side; `norms` are the last seven arguments of
    `relu_norm_`, or of what stands for it.
    """
    parts = weight.chunk(len(inputs), dim=1)
    y = F.linear(inputs[0], parts[0], bias)
    for x, part in zip(inputs[1:], parts[1:], strict=True):
        torch.addmm(y, x, part.t(), out=y)  # in place, and counted as FLOPs
    return y, relu_norm(y, negative_slope, *norms)


def linear_norm_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    edges: int,
    training: bool,
    negative_slope: float,
    inputs: Sequence[Tensor],
    weight: Tensor,
    grad_inputs: Sequence[Tensor],
    of_weight: bool,
    of_bias: bool,
    relu_norm_backward: Callable[..., tuple[Tensor, Tensor]] = relu_norm_backward,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward of scale · norm(y), y from `linear_norm`: those of the inputs are added to theirs.

    Returns what `relu_norm_backward` does, the gradient of the weight and that of the bias; what is
    not wanted is empty.
    """
    grad_h = torch.empty_like(y, memory_format=torch.contiguous_format)
    given = (grad, y, coefficients, scale, edges, training, negative_slope)
    affine, of_scale = relu_norm_backward(*given, grad_h)
    for out, part in zip(grad_inputs, weight.chunk(len(inputs), dim=1), strict=False):
        out.addmm_(grad_h, part)
    nothing = weight.new_zeros(0, weight.shape[1])
    grad_weight = nothing
    if of_weight:
        found = [grad_h.t() @ x for x in inputs]
        grad_weight = found[0] if len(found) == 1 else torch.cat(found, dim=1)
    return affine, of_scale, grad_weight, grad_h.sum(0) if of_bias else weight.new_zeros(0)


def head_dots(values: Tensor, vectors: Tensor, shifts: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Σ over each head's channels of `values` `[N, D]` · each of two vectors, plus a shift.

    `vectors` is `[2, D]`, `shifts` `[2, heads]`; two `[N, heads]`.
    """
    parts = values.unflatten(1, (heads, -1))
    both = vectors.view(2, heads, -1)
    first, second = ((parts * both[i]).sum(2).add_(shifts[i]) for i in range(2))
    return first, second


def head_dots_backward(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Float64 `[2, D]`: the gradients of the vectors, from those of both results `[N, heads]`."""
    parts = values.unflatten(1, (first.shape[1], -1))
    found = [(parts * of.unsqueeze(2)).sum(0, dtype=torch.float64) for of in (first, second)]
    return torch.stack(found).flatten(1)


def mixture(
    values: Sequence[Tensor],
    coefficients: Sequence[Tensor | None],
    kinds: Sequence[int],
    slots: Sequence[int],
    counts: Sequence[int],
    scale: Tensor | None,
    mask: Tensor | None,
    bases: Sequence[Tensor | None],
    channels: int,
    floor: float,
) -> tuple[list[Tensor], Tensor]:
    """Sums of terms `[N, C]` for each of M slots, and inverse lengths of the LENGTH terms.

    Term t has counts[t] pieces, each of which is added to its slot (`slots`, one for each piece),
    times the entry of `scale` `[pieces]`, on top of the slot's base `[N, C]`, if there is one. A
    piece is slope · y + shift with y C columns of values[t] (or all of it for each piece:
    BROADCAST) and the coefficients' first two rows (None: y itself); MASKED has its shift only
    where `mask` `[N]` is 1; LENGTH is divided by its length, at least `floor`. The inverse lengths
    are `[N, L]`, one for each LENGTH piece.
    """
    size = (len(values[0]), channels)
    outs = [values[0].new_zeros(size) if base is None else base.clone() for base in bases]
    lengths = []
    piece = 0
    for y, coefs, kind, count in zip(values, coefficients, kinds, counts, strict=True):
        for number in range(count):
            first = 0 if kind == BROADCAST else number * channels
            part = y[:, first : first + channels]
            if coefs is not None:
                slope, shift = coefs[:2, first : first + channels].to(y.dtype)
                offset = shift if kind != MASKED or mask is None else mask.unsqueeze(1) * shift
                part = torch.addcmul(offset, part, slope)
            if kind == LENGTH:
                length = torch.linalg.vector_norm(part, dim=1, keepdim=True)
                lengths.append(length.clamp_min(floor).reciprocal())
                part = part * lengths[-1]
            outs[slots[piece]] += part if scale is None else part * scale[piece]
            piece += 1
    return outs, torch.cat(lengths, dim=1) if lengths else values[0].new_zeros(size[0], 0)


def skip_backward(grad: Tensor, x: Tensor, scale: Tensor | None, grad_x: Tensor | None) -> Tensor:
    """Backward of scale · x for each of m edges: float64 `[m]`, the gradient of the scale.

    `grad` is `[N, m·C]`; that of x is added to `grad_x` if given.
    """
    edges = grad.shape[1] // max(x.shape[1], 1) if scale is None else len(scale)
    parts = grad.reshape(len(grad), edges, x.shape[1])
    if grad_x is not None:
        grad_x += (parts if scale is None else parts * scale.unsqueeze(1)).sum(1)
    return (parts * x.unsqueeze(1)).sum((0, 2), dtype=torch.float64)


def length_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor | None,
    inverse: Tensor,
    scale: Tensor | None,
    floor: float,
    out: Tensor | None,
) -> Tensor:
    """Backward of scale · z / |z|, z = slope · y + shift: float64 `[m]`, the gradient of `scale`.

    `inverse` `[N, m]` are the inverse lengths. The gradient of z goes into `out` if given; without
    coefficients z is y after a ReLU, and `out` is the gradient before it.
    """
    m = inverse.shape[1]
    z, grads = y.unflatten(1, (m, -1)), grad.unflatten(1, (m, -1))
    if coefficients is not None:
        slope, shift = coefficients[:2].to(y.dtype).unflatten(1, (m, -1))
        z = torch.addcmul(shift, z, slope)
    unit = z * inverse.unsqueeze(2)
    along = (grads * unit).sum(2, keepdim=True)
    if out is not None:
        # A length below the floor does not depend on z.
        kept = along * (inverse * floor < 1).unsqueeze(2)
        by = inverse if scale is None else inverse * scale
        found = (grads - kept * unit) * by.unsqueeze(2)
        found = found if coefficients is not None else found * (z > 0)
        out.copy_(found.flatten(1))
    return along.sum((0, 2), dtype=torch.float64)
