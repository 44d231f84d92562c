"""The primitives in plain torch: what they compute, and how they run where nothing is compiled.

Dimensions: N images, H × W pixels, C channels, S the stride (1 or 2), P pixels of all images
together after the stride, k × k taps. Images are `[N, H, W, C]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.kernels.depthwise import depthwise_conv, depthwise_gradients

Tensors = Sequence[Tensor]
Numbers = Sequence[int]


def depthwise(
    inputs: Tensors,
    matrices: Tensor | None,
    shifts: Tensor | None,
    weights: Tensors,
    dilations: Numbers,
    offsets: Numbers,
    stride: int,
    moments: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Depthwise convolutions of one state by all `weights`, and the moments of each.

    plane_i = weight_i * R(x), or weight_i * R(matrix_i x_i + shift_i) with an input each. A weight
    is `[C, 1, k, k]`, padded to keep the size, or empty for the pixel (S h + offset, S w + offset)
    as it is. Returns planes `[N, H/S, W/S, C]`, and with `moments` their means `[planes, C]` and
    covariances `[planes, C, C]` over P pixels (biased); else none of them.
    """
    planes = []
    for i, (weight, dilation, offset) in enumerate(zip(weights, dilations, offsets, strict=True)):
        u = activated(inputs, matrices, shifts, i)
        planes.append(_nhwc(_convolved(u, weight, dilation, offset, stride)))
    channels = inputs[0].shape[-1]
    if not moments:
        return planes, inputs[0].new_empty(0, channels), inputs[0].new_empty(0, channels, channels)
    means, covariances = zip(*(_moments(plane) for plane in planes), strict=True)
    return planes, torch.stack(means), torch.stack(covariances)


def depthwise_backward(
    gradients: Tensors,
    pulled_gradients: Numbers,
    pulled_planes: Numbers,
    pulled_matrices: Tensor,
    planes: Tensors,
    slopes: Tensor | None,
    constants: Tensor | None,
    inputs: Tensors,
    matrices: Tensor | None,
    shifts: Tensor | None,
    centres: Tensor | None,
    weights: Tensors,
    dilations: Numbers,
    offsets: Numbers,
    stride: int,
    added: Tensor | None,
    wants_inputs: bool,
    wants_weights: Sequence[bool],
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """The gradients of `depthwise`, where the gradient of a plane is given in pieces.

    dplane_i = Σ A' g + slope_i plane_i + constant_i over the matrices A `[C, C]` through which
    gradients reach plane i. Returns the gradients of the inputs, x = one of all planes plus
    `added`; those of the weights, empty where not wanted. With an input each, they are instead the
    gradients dv before R; then also Σ dv (x − centre)' `[planes, C, C]` and Σ dv `[planes, C]`.
    """
    like, num = inputs[0], len(weights)
    to_inputs: list[Tensor] = []
    to_weights, crossed, sums = [], [], []
    reached = torch.zeros_like(like)
    for i, weight in enumerate(weights):
        gradient = None if constants is None else constants[i].expand_as(planes[i])
        for which, plane, matrix in zip(
            pulled_gradients, pulled_planes, pulled_matrices, strict=True
        ):
            if plane == i:
                gradient = _add(gradient, gradients[which] @ matrix)
        if slopes is not None:
            gradient = _add(gradient, planes[i] @ slopes[i])
        assert gradient is not None, f"no gradient reaches plane {i}"
        u = activated(inputs, matrices, shifts, i)
        wanted = (wants_inputs or matrices is not None, wants_weights[i] and weight.numel() > 0)
        du, dweight = _gradients(gradient, u, weight, dilations[i], offsets[i], stride, wanted)
        to_weights.append(like.new_empty(0) if dweight is None else dweight)
        if du is None:
            continue
        du = torch.where(u <= 0, torch.zeros_like(du), du)
        if matrices is None:
            reached += du
        else:
            to_inputs.append(du)
            x = inputs[i] if centres is None else inputs[i] - centres[i]
            crossed.append(du.flatten(0, 2).t() @ x.flatten(0, 2))
            sums.append(du.sum((0, 1, 2)))
    if matrices is None:
        if wants_inputs:
            to_inputs = [reached if added is None else reached + added]
        channels = like.shape[-1]
        return (
            to_inputs,
            to_weights,
            like.new_empty(0, channels, channels),
            like.new_empty(0, channels),
        )
    assert len(crossed) == num
    return to_inputs, to_weights, torch.stack(crossed), torch.stack(sums)


def mixture(
    before: Tensors,
    before_slots: Numbers,
    planes: Tensors,
    slot_of: Numbers,
    matrices: Tensors,
    first_rows: Numbers,
    linear: Tensors,
    coefficients: Tensor,
    bias: Tensor,
) -> list[Tensor]:
    """The outputs of all slots: before + bias + Σ coefficient · linear + Σ matrix plane.

    What was `before` is given for the slots that had something, which `before_slots` names.

    `coefficients` are `[slots, linear, C]`, `bias` `[slots, C]`; each plane goes to one slot, each
    linear image to all. A matrix `[rows, C]` gives the channels from its first row on.
    """
    outs, starts = [], dict(zip(before_slots, before, strict=True))
    for slot, constant in enumerate(bias):
        total = starts.get(slot)
        for image, factor in zip(linear, coefficients[slot], strict=True):
            total = image * factor if total is None else torch.addcmul(total, image, factor)
        for plane, target, matrix, row in zip(planes, slot_of, matrices, first_rows, strict=True):
            if target == slot:
                missing = plane.shape[-1] - row - len(matrix)
                total = _add(total, F.pad(plane @ matrix.t(), (row, missing)))
        like = planes[0] if len(planes) else linear[0]
        outs.append(constant.expand_as(like).contiguous() if total is None else total + constant)
    return outs


def mixture_backward(
    gradients: Tensors,
    planes: Tensors,
    slot_of: Numbers,
    centres: Tensor,
    linear: Tensors,
    linear_centres: Tensor,
    coefficients: Tensor,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """What the gradients `[N, H, W, C]` of the slots give, but for those of the planes.

    The gradients of the linear images; Σ g (plane − centre)' `[planes, C, C]`; Σ g (linear −
    centre) `[slots, linear, C]`; Σ g `[slots, C]`, the gradient of the bias.
    """
    num, channels = len(gradients), gradients[0].shape[-1]
    rows = [g.flatten(0, 2) for g in gradients]
    crossed = [
        rows[slot].t() @ (plane.flatten(0, 2) - centre)
        for plane, slot, centre in zip(planes, slot_of, centres, strict=True)
    ]
    apart = [
        image.flatten(0, 2) - centre for image, centre in zip(linear, linear_centres, strict=True)
    ]
    products = [(row * image).sum(0) for row in rows for image in apart]
    to_linear = [
        sum(
            (g * coefficients[slot, q] for slot, g in enumerate(gradients)),
            start=torch.zeros_like(gradients[0]),
        )
        for q in range(len(linear))
    ]
    like = gradients[0]
    return (
        to_linear,
        torch.stack(crossed) if crossed else like.new_empty(0, channels, channels),
        (torch.stack(products) if products else like.new_empty(0)).view(num, -1, channels),
        torch.stack([row.sum(0) for row in rows]),
    )


def pool(x: Tensor, stride: int, moments: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest and the mean of 3 × 3 pixels, `[N, H/S, W/S, C]`, and the moments of both.

    Pixels outside the image are left out. With `moments` means and variances `[2, C]` (biased).
    """
    image = x.permute(0, 3, 1, 2)
    largest = _nhwc(F.max_pool2d(image, 3, stride, padding=1))
    average = _nhwc(F.avg_pool2d(image, 3, stride, padding=1, count_include_pad=False))
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
            out = (
                F.max_pool2d(leaf, 3, stride, padding=1)
                if i == 0
                else F.avg_pool2d(leaf, 3, stride, padding=1, count_include_pad=False)
            )
        total = _add(total, _nhwc(torch.autograd.grad(out, leaf, gradient.permute(0, 3, 1, 2))[0]))
    return torch.zeros_like(x) if total is None else total


def activated(inputs: Tensors, matrices: Tensor | None, shifts: Tensor | None, i: int) -> Tensor:
    """What plane i convolves: R(x), or R(matrix_i x_i + shift_i)."""
    if matrices is None or shifts is None:
        return F.relu(inputs[0])
    return F.relu(inputs[i] @ matrices[i].t() + shifts[i])


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _nhwc(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _moments(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[C]` and covariance `[C, C]`; deviations first, for digits where |mean| is large."""
    rows = plane.flatten(0, 2)
    mean = rows.sum(0) / max(1, len(rows))
    apart = rows - mean
    return mean, apart.t() @ apart / max(1, len(rows))


def _convolved(u: Tensor, weight: Tensor, dilation: int, offset: int, stride: int) -> Tensor:
    image = u.permute(0, 3, 1, 2)
    if weight.numel() == 0:
        return _even_sides(image, offset)[:, :, offset::stride, offset::stride]
    return depthwise_conv(image, weight, stride, dilation)


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
