"""What a backend does to rows, column by column, in plain torch.

What the functions compute says `interface`; those of C++ (`cpu/batch_norm.cpp`, `linear_norm.cpp`,
`head_dots.cpp`, `mixture.cpp`) and Triton are tested against these. Dimensions: N rows, m edges, C
channels of each, D = m·C columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_gcn.kernels.protocol import BROADCAST, LENGTH, MASKED, Lengths, Normed, Norms, Term


def relu_sums_(h: Tensor, negative_slope: float) -> Tensor:
    """Leaky ReLU in place; float64 `[2, D]`: the sums of its results and of their squares."""
    if negative_slope != 1:
        F.leaky_relu_(h, negative_slope)
    return square_sums(h)


def square_sums(x: Tensor) -> Tensor:
    """Float64 `[2, D]`: the sums of `x` `[N, D]` and of its squares.

    Added up as deviations from the first row: where a mean is large beside the deviation, squares
    of single precision would lose all of it.
    """
    if not len(x):
        return x.new_zeros(2, x.shape[1], dtype=torch.float64)
    apart, reference = x - x[:1], x[0].double()
    one = apart.sum(0, dtype=torch.float64)
    total = one + len(x) * reference
    two = apart.square_().sum(0, dtype=torch.float64)
    return torch.stack([total, two + reference * (one + total)])


def norm_coefficients(sums: Tensor, count: int, norms: Norms) -> Tensor:
    """The coefficients `[4, D]` from the `sums` `[2, D]` of `count` rows, or from running ones.

    In training the running statistics move by the momentum, unless there is no row.
    """
    if norms.training:
        mean = sums[0] / max(count, 1)
        var = (sums[1] / max(count, 1) - mean.square()).clamp_min(0)
        if count:
            running = [*norms.running_mean, *norms.running_var]
            unbiased = var * (count / max(count - 1, 1))
            new = torch.stack([mean, unbiased]).to(running[0].dtype).view(len(running), -1)
            torch._foreach_lerp_(running, list(new.unbind()), norms.momentum)
    else:
        mean = torch.cat(tuple(norms.running_mean)).double()
        var = torch.cat(tuple(norms.running_var)).double()
    inverse = (var + norms.eps).rsqrt()
    slope = torch.cat(tuple(norms.weight)).double() * inverse
    shift = torch.cat(tuple(norms.bias)).double() - slope * mean
    return torch.stack([slope, shift, mean, inverse])


def column_sums(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """As in `Backend`."""
    edges, double = max(grad.shape[1] // max(y.shape[1], 1), 1), torch.float64
    counted = grad if mask is None else grad * mask.unsqueeze(1)
    total = counted.sum(0, dtype=double)
    if not len(y):
        return torch.stack([total, total])
    # Rows that are not counted have values of 0; the others differ little from the first of them.
    first = y[:1] if mask is None else y.index_select(0, mask.argmax().view(1))
    apart = y - (first if mask is None else first * mask.unsqueeze(1))
    product = grad.reshape(len(grad), edges, y.shape[1]) * apart.unsqueeze(1)
    near = first[0].double().repeat(edges)
    return torch.stack([total, product.sum(0, dtype=double).flatten() + near * total])


def norm_gradients(
    sums: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As in `Backend`."""
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


def relu_norm_(h: Tensor, negative_slope: float, norms: Norms) -> Tensor:
    """As in `Backend`."""
    return norm_coefficients(relu_sums_(h, negative_slope), len(h), norms)


def relu_norm_backward(grad: Tensor, normed: Normed, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    y, coefficients, scale, num_edges, training, negative_slope = normed
    sums = column_sums(grad, y, None)
    factors, affine, of_scale = norm_gradients(sums, coefficients, scale, len(y), training, y)
    if out is not None:
        apply_factors(grad, y, factors, negative_slope, out)
    return affine, of_scale.unflatten(0, (num_edges, -1)).sum(1)


def linear(inputs: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Σ W_i x_i + b `[N, D]`, with the W_i side by side in `weight`."""
    parts = weight.chunk(len(inputs), dim=1)
    y = F.linear(inputs[0], parts[0], bias)
    for x, part in zip(inputs[1:], parts[1:], strict=True):
        torch.addmm(y, x, part.t(), out=y)  # in place, and counted as FLOPs
    return y


def linear_norm(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    negative_slope: float,
    norms: Norms,
) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    y = linear(inputs, weight, bias)
    return y, relu_norm_(y, negative_slope, norms)


def linear_backward(
    grad: Tensor,
    inputs: Sequence[Tensor],
    weight: Tensor,
    grad_inputs: Sequence[Tensor],
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of the weight and the bias; those of the inputs are added to `grad_inputs`."""
    for out, part in zip(grad_inputs, weight.chunk(len(inputs), dim=1), strict=False):
        out.addmm_(grad, part)
    grad_weight = weight.new_zeros(0, weight.shape[1])
    if of_weight:
        parts = [grad.t() @ x for x in inputs]
        grad_weight = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return grad_weight, grad.sum(0) if of_bias else weight.new_zeros(0)


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
    grad_h = torch.empty_like(normed.y, memory_format=torch.contiguous_format)
    affine, of_scale = relu_norm_backward(grad, normed, grad_h)
    gradients = linear_backward(grad_h, inputs, weight, grad_inputs, of_weight, of_bias)
    return affine, of_scale, *gradients


def head_dots(values: Tensor, vectors: Tensor, shifts: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    parts = values.unflatten(1, (heads, -1))
    both = vectors.view(2, heads, -1)
    first, second = ((parts * both[i]).sum(2).add_(shifts[i]) for i in range(2))
    return first, second


def head_dots_backward(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """As in `Backend`."""
    parts = values.unflatten(1, (first.shape[1], -1))
    both = [(parts * of.unsqueeze(2)).sum(0, dtype=torch.float64) for of in (first, second)]
    return torch.stack(both).flatten(1)


def mixture(
    terms: Sequence[Term],
    scale: Tensor | None,
    bases: Sequence[Tensor | None],
    channels: int,
    floor: float,
) -> tuple[list[Tensor], Tensor]:
    """As in `Backend`."""
    like = terms[0].values
    size = (len(like), channels)
    outs = [like.new_zeros(size) if base is None else base.clone() for base in bases]
    lengths = []
    piece = 0
    for y, coefficients, kind, mask, slots in terms:
        for number, slot in enumerate(slots):
            first = 0 if kind == BROADCAST else number * channels
            part = y[:, first : first + channels]
            if coefficients is not None:
                slope, shift = coefficients[:2, first : first + channels].to(y.dtype)
                offset = shift if kind != MASKED or mask is None else mask.unsqueeze(1) * shift
                part = torch.addcmul(offset, part, slope)
            if kind == LENGTH:
                length = torch.linalg.vector_norm(part, dim=1, keepdim=True)
                lengths.append(length.clamp_min(floor).reciprocal())
                part = part * lengths[-1]
            outs[slot] += part if scale is None else part * scale[piece]
            piece += 1
    return outs, torch.cat(lengths, dim=1) if lengths else like.new_zeros(size[0], 0)


def skip_backward(grad: Tensor, x: Tensor, scale: Tensor | None, grad_x: Tensor | None) -> Tensor:
    """As in `Backend`."""
    edges = grad.shape[1] // max(x.shape[1], 1) if scale is None else len(scale)
    parts = grad.reshape(len(grad), edges, x.shape[1])
    if grad_x is not None:
        grad_x += (parts if scale is None else parts * scale.unsqueeze(1)).sum(1)
    return (parts * x.unsqueeze(1)).sum((0, 2), dtype=torch.float64)


def length_backward(
    grad: Tensor, y: Tensor, coefficients: Tensor | None, lengths: Lengths, out: Tensor | None
) -> Tensor:
    """As in `Backend`."""
    inverse, scale, floor = lengths
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
        grad_z = (grads - kept * unit) * by.unsqueeze(2)
        grad_z = grad_z if coefficients is not None else grad_z * (z > 0)
        out.copy_(grad_z.flatten(1))
    return along.sum((0, 2), dtype=torch.float64)
