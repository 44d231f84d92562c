"""The primitives in plain torch: what they compute, and how they run where nothing is compiled.

Dimensions: N images, H × W pixels, C channels, S the stride (1 or 2), P pixels of all images
together after the stride, k × k taps. Images are `[N, H, W, C]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.kernels.torch_depthwise import depthwise_gradients
from sgas_cnn.kernels.torch_norms import fold, follow, unfold
from sgas_cnn.kernels.torch_pool import average_pool

__all__ = [
    "fold",
    "follow",
    "mixture",
    "mixture_backward",
    "pool",
    "pool_backward",
    "projection",
    "projection_backward",
    "separable",
    "separable_backward",
    "separable_sum",
    "unfold",
]

Tensors = Sequence[Tensor]
Numbers = Sequence[int]


def separable(
    inputs: Tensors,
    scales: Tensor | None,
    shifts: Tensor | None,
    taps: Tensors,
    dilations: Numbers,
    offsets: Numbers,
    pointwise: Tensors,
    first_rows: Numbers,
    stride: int,
    moments: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Separable convolutions of one state, and the moments of what comes out.

    y_i = pointwise_i (taps_i * R(x)), or with an input each R(scale_i x_i + shift_i), `[C]`, in the
    place of R(x). Taps are `[C, 1, k, k]`, padded to keep the size, or empty for the pixel
    (S h + offset, S w + offset) as it is. A pointwise weight `[rows, C, 1, 1]` gives the channels
    from its first row on; the others are zero. Returns y `[N, H/S, W/S, C]`, and with `moments`
    their means and biased variances over P pixels, `[n, C]`; else none of them.
    """
    outputs = []
    for i, weight in enumerate(pointwise):
        plane = _plane(inputs, scales, shifts, i, taps[i], dilations[i], offsets[i], stride)
        channels, row = plane.shape[-1], first_rows[i]
        rows = plane @ weight.flatten(1).t()
        outputs.append(F.pad(rows, (row, channels - row - len(weight))))
    if not moments:
        nothing = inputs[0].new_empty(0, inputs[0].shape[-1])
        return outputs, nothing, nothing.clone()
    means, variances = zip(*(_moments(output) for output in outputs), strict=True)
    return outputs, torch.stack(means), torch.stack(variances)


def separable_sum(*given: Any) -> list[Tensor]:
    """Separable convolutions summed by slot: before + bias + Σ factor · y, for inference.

    The arguments of `separable` but for `moments`, then `before` and `before_slots` as in
    `mixture`, the slot of each convolution, `factors` `[n, C]`, `bias` `[slots, C]`. Every slot has
    a convolution. It has no gradients.
    """
    *convolutions, before, before_slots, slot_of, factors, bias = given
    arguments = (*convolutions, False)
    outputs, _, _ = separable(*arguments)
    nothing = bias.new_empty(len(bias), 0, bias.shape[1])
    return mixture(before, before_slots, outputs, slot_of, factors, [], nothing, bias)


def separable_backward(
    gradients: Tensors,
    gradient_of: Numbers,
    factors: Tensor,
    outputs: Tensors,
    slopes: Tensor | None,
    constants: Tensor | None,
    inputs: Tensors,
    scales: Tensor | None,
    shifts: Tensor | None,
    taps: Tensors,
    dilations: Numbers,
    offsets: Numbers,
    pointwise: Tensors,
    first_rows: Numbers,
    stride: int,
    centres: Tensor | None,
    added: Tensor | None,
    wants_inputs: bool,
    wants_taps: Sequence[bool],
    wants_pointwise: Sequence[bool],
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """The gradients of `separable`, where that of an output is given in pieces.

    dy_i = factor_i g + slope_i y_i + constant_i, with `[C]` each and g = `gradients[gradient_of]`;
    `outputs` are read where there are slopes. Returns the gradients of the inputs, x = one of all
    plus `added`; those of taps and pointwise weights, empty where not wanted. With an input each,
    they are instead the gradients dv before R; then also Σ dv (x − centre) and Σ dv, `[n, C]`.
    """
    like, to_inputs = inputs[0], list[Tensor]()
    to_taps, to_pointwise, crossed, sums = [], [], list[Tensor](), list[Tensor]()
    reached = torch.zeros_like(like)
    for i, (weight, through) in enumerate(zip(taps, pointwise, strict=True)):
        gradient = gradients[gradient_of[i]] * factors[i]
        if slopes is not None:
            gradient = gradient + outputs[i] * slopes[i]
        if constants is not None:
            gradient = gradient + constants[i]
        rows = gradient[..., first_rows[i] : first_rows[i] + len(through)]
        to_pointwise.append(like.new_empty(0))
        if wants_pointwise[i]:
            plane = _plane(inputs, scales, shifts, i, weight, dilations[i], offsets[i], stride)
            products = rows.flatten(0, 2).t() @ plane.flatten(0, 2)
            to_pointwise[i] = products.view(through.shape)
        u = activated(inputs, scales, shifts, i)
        wanted = (wants_inputs or scales is not None, wants_taps[i] and weight.numel() > 0)
        du, dweight = _gradients(
            rows @ through.flatten(1), u, weight, dilations[i], offsets[i], stride, wanted
        )
        to_taps.append(like.new_empty(0) if dweight is None else dweight)
        if du is None:
            continue
        du = torch.where(u <= 0, torch.zeros_like(du), du)
        if scales is None:
            reached += du
            continue
        to_inputs.append(du)
        x = inputs[i] if centres is None else inputs[i] - centres[i]
        crossed.append((du * x).sum((0, 1, 2)))
        sums.append(du.sum((0, 1, 2)))
    if scales is None:
        if wants_inputs:
            to_inputs = [reached if added is None else reached + added]
        nothing = like.new_empty(0, like.shape[-1])
        return to_inputs, to_taps, to_pointwise, nothing, nothing.clone()
    return to_inputs, to_taps, to_pointwise, torch.stack(crossed), torch.stack(sums)


def projection(
    x: Tensor, weight: Tensor, bias: Tensor | None, moments: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y = W R(x) + bias `[N, H, W, C]` of `x` `[N, H, W, I]`; with `moments` those of y, `[1, C]`.

    `weight` is W `[C, I, 1, 1]`, `bias` `[C]`. Moments are mean and biased variance, else empty.
    """
    output = F.linear(F.relu(x), weight.flatten(1), bias)
    if not moments:
        nothing = x.new_empty(0, len(weight))
        return output, nothing, nothing.clone()
    mean, var = _moments(output)
    return output, mean.unsqueeze(0), var.unsqueeze(0)


def projection_backward(
    gradient: Tensor,
    factors: Tensor,
    output: Tensor,
    slopes: Tensor | None,
    constants: Tensor | None,
    x: Tensor,
    weight: Tensor,
    wants_x: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of `projection` by x and W, empty where not wanted.

    dy = factor g + slope y + constant, `[1, C]` each; `output` y is read where there is a slope.
    """
    gradient = gradient * factors
    if slopes is not None:
        gradient = gradient + output * slopes
    if constants is not None:
        gradient = gradient + constants
    to_x = to_weight = x.new_empty(0)
    if wants_x:
        reached = gradient @ weight.flatten(1)
        to_x = torch.where(x <= 0, torch.zeros_like(x), reached)
    if wants_weight:
        products = gradient.flatten(0, 2).t() @ F.relu(x).flatten(0, 2)
        to_weight = products.view(weight.shape)
    return to_x, to_weight


def mixture(
    before: Tensors,
    before_slots: Numbers,
    parts: Tensors,
    slot_of: Numbers,
    factors: Tensor,
    linear: Tensors,
    coefficients: Tensor,
    bias: Tensor,
) -> list[Tensor]:
    """The outputs of all slots: before + bias + Σ coefficient · linear + Σ factor · part.

    What was `before` is given for the slots that had something, which `before_slots` names.
    `factors` are `[parts, C]`, `coefficients` `[slots, linear, C]`, `bias` `[slots, C]`; each part
    goes to one slot, each linear image to all.
    """
    outs, starts = [], dict(zip(before_slots, before, strict=True))
    like = parts[0] if len(parts) else linear[0]
    for slot, constant in enumerate(bias):
        total = starts[slot] + constant if slot in starts else constant  # a row, until it is used
        for image, factor in zip(linear, coefficients[slot], strict=True):
            total = torch.addcmul(total, image, factor)
        for part, target, factor in zip(parts, slot_of, factors, strict=True):
            if target == slot:
                total = torch.addcmul(total, part, factor)
        outs.append(total if total.dim() == like.dim() else total.expand_as(like).contiguous())
    return outs


def mixture_backward(
    gradients: Tensors,
    parts: Tensors,
    slot_of: Numbers,
    centres: Tensor,
    linear: Tensors,
    linear_centres: Tensor,
    coefficients: Tensor,
    wants_linear: bool,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """What the gradients `[N, H, W, C]` of the slots give, but for those of the parts.

    The gradients of the linear images, empty where not wanted; Σ g (part − centre) `[parts, C]`;
    Σ g (linear − centre) `[slots, linear, C]`; Σ g `[slots, C]`, the gradient of the bias.
    """
    num, channels = len(gradients), gradients[0].shape[-1]
    pixels, like = (0, 1, 2), gradients[0]
    crossed = [
        (gradients[slot] * (part - centre)).sum(pixels)
        for part, slot, centre in zip(parts, slot_of, centres, strict=True)
    ]
    apart = [image - centre for image, centre in zip(linear, linear_centres, strict=True)]
    products = [(gradient * image).sum(pixels) for gradient in gradients for image in apart]
    to_linear = [
        sum(
            (g * coefficients[slot, q] for slot, g in enumerate(gradients)),
            start=torch.zeros_like(like),
        )
        if wants_linear
        else like.new_empty(0)
        for q in range(len(linear))
    ]
    return (
        to_linear,
        torch.stack(crossed) if crossed else like.new_empty(0, channels),
        (torch.stack(products) if products else like.new_empty(0)).view(num, -1, channels),
        torch.stack([gradient.sum(pixels) for gradient in gradients]),
    )


def pool(x: Tensor, stride: int, moments: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest and the mean of 3 × 3 pixels, `[N, H/S, W/S, C]`, and the moments of both.

    Pixels outside the image are left out. With `moments` means and variances `[2, C]` (biased).
    """
    image = x.permute(0, 3, 1, 2)
    largest = _nhwc(F.max_pool2d(image, 3, stride, padding=1))
    average = _nhwc(average_pool(image, stride))
    if not moments:
        return largest, average, x.new_empty(0, x.shape[-1]), x.new_empty(0, x.shape[-1])
    found = [torch.var_mean(pooled.flatten(0, 2), 0, correction=0) for pooled in (largest, average)]
    return largest, average, torch.stack([m for _, m in found]), torch.stack([v for v, _ in found])


def pool_backward(
    x: Tensor,
    largest: Tensor,
    average: Tensor,
    largest_gradient: Tensor,
    average_gradient: Tensor,
    slopes: Tensor,
    constants: Tensor,
    added: Tensor | None,
    stride: int,
) -> Tensor:
    """The gradient of x, plus `added`.

    The poolings have the gradients `gradient + slope · pooled + constant`, slopes and constants
    `[2, C]`. Of equal pixels the first one takes that of the largest.
    """
    total = added
    parts = ((largest, largest_gradient), (average, average_gradient))
    for i, (pooled, gradient) in enumerate(parts):
        if gradient.numel() == 0 and x.numel():  # nothing reads this pooling
            continue
        gradient = gradient + pooled * slopes[i] + constants[i]
        with torch.enable_grad():
            leaf = x.detach().permute(0, 3, 1, 2).requires_grad_()
            out = F.max_pool2d(leaf, 3, stride, padding=1) if i == 0 else average_pool(leaf, stride)
        total = _add(total, _nhwc(torch.autograd.grad(out, leaf, gradient.permute(0, 3, 1, 2))[0]))
    return torch.zeros_like(x) if total is None else total


def activated(inputs: Tensors, scales: Tensor | None, shifts: Tensor | None, i: int) -> Tensor:
    """What convolution i reads: R(x), or R(scale_i x_i + shift_i)."""
    if scales is None or shifts is None:
        return F.relu(inputs[0])
    return F.relu(inputs[i] * scales[i] + shifts[i])


def _plane(
    inputs: Tensors,
    scales: Tensor | None,
    shifts: Tensor | None,
    i: int,
    weight: Tensor,
    dilation: int,
    offset: int,
    stride: int,
) -> Tensor:
    """taps_i * u_i."""
    return _nhwc(_convolved(activated(inputs, scales, shifts, i), weight, dilation, offset, stride))


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _nhwc(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `[C]`; deviations first, for digits where |mean| is large."""
    rows = image.flatten(0, 2)
    mean = rows.sum(0) / max(1, len(rows))
    return mean, (rows - mean).square().sum(0) / max(1, len(rows))


def _convolved(u: Tensor, weight: Tensor, dilation: int, offset: int, stride: int) -> Tensor:
    image = u.permute(0, 3, 1, 2)
    if weight.numel() == 0:
        return _even_sides(image, offset)[:, :, offset::stride, offset::stride]
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(image, weight, None, stride, padding, dilation, image.shape[1])


def _even_sides(image: Tensor, offset: int) -> Tensor:
    """The image with zeros beyond odd sides, where pixels beyond the first are read."""
    return F.pad(image, (0, image.shape[3] % 2, 0, image.shape[2] % 2)) if offset else image


def _gradients(
    gradient: Tensor,
    u: Tensor,
    weight: Tensor,
    dilation: int,
    offset: int,
    stride: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `_convolved` by u `[N, H, W, C]` and by the weight."""
    if weight.numel():
        image, grad = u.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
        du, dweight = depthwise_gradients(grad, image, weight, stride, dilation, wanted)
        return None if du is None else _nhwc(du), dweight
    if not wanted[0]:
        return None, None
    count, height, width, channels = u.shape
    du = u.new_zeros(count, height + 1, width + 1, channels)
    to = du[:, offset::stride, offset::stride]
    to[:, : gradient.shape[1], : gradient.shape[2]] = gradient
    return du[:, :height, :width].contiguous(), None
