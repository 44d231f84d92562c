"""The primitives in plain torch: what they compute, and how they run where nothing is compiled.

What they take says protocol.py, with its dimensions; P are the pixels of all images together after
the stride.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.kernels.protocol import (
    Convolutions,
    Mixture,
    MixtureBackward,
    Pool,
    PoolBackward,
    Projection,
    ProjectionBackward,
    Separable,
    SeparableBackward,
    SeparableSum,
)
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

PIXELS = (0, 1, 2)  # the dimensions of an image that sums run over


def separable(call: Separable) -> tuple[list[Tensor], Tensor, Tensor]:
    """Separable convolutions, and the moments of what comes out.

    y_i = pointwise_i (taps_i * R(x)), or with an input each R(scale_i x_i + shift_i) in the place
    of R(x); of a dense one pointwise_i * R(x). Returns y `[N, H/S, W/S, C]`, and with `moments`
    their means and biased variances over P pixels, `[n, C]`; else none of them.
    """
    outputs = [_output(call.convolutions, i) for i in range(len(call.convolutions.taps))]
    if not call.moments:
        nothing = outputs[0].new_empty(0, outputs[0].shape[-1])
        return outputs, nothing, nothing.clone()
    means, variances = zip(*(_moments(output) for output in outputs), strict=True)
    return outputs, torch.stack(means), torch.stack(variances)


def separable_sum(call: SeparableSum) -> list[Tensor]:
    """Separable convolutions summed by slot: before + bias + Σ factor · y, for inference."""
    return summed(separable, mixture, call)


def summed(
    convolve: Callable[[Separable], tuple[list[Tensor], Tensor, Tensor]],
    mix: Callable[[Mixture], list[Tensor]],
    call: SeparableSum,
) -> list[Tensor]:
    """`separable_sum` by the primitives `separable` and `mixture` of a backend."""
    outputs, _, _ = convolve(Separable(call.convolutions, moments=False))
    bias = call.bias
    nothing = bias.new_empty(len(bias), 0, bias.shape[1])
    return mix(
        Mixture(
            call.before, call.before_slots, outputs, call.slot_of, call.factors, [], nothing, bias
        )
    )


def separable_backward(
    call: SeparableBackward,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """The gradients of `separable`, where that of an output is given in pieces.

    Returns the gradients of the inputs, x = one of all plus `added`; those of taps and pointwise
    weights, empty where not wanted. With an input each, they are instead the gradients dv before R;
    then also Σ dv (x − centre) and Σ dv, `[n, C]`.
    """
    convolutions = call.convolutions
    inputs, mapped, like = convolutions.inputs, convolutions.scales is not None, call.factors
    before_relu, to_taps, to_pointwise = list[Tensor](), list[Tensor](), list[Tensor]()
    reached = torch.zeros_like(inputs[0])
    for i in range(len(convolutions.taps)):
        gradient = _piecewise(
            call.gradients[call.gradient_of[i]], call.outputs[i] if call.outputs else None,
            call.factors[i], _row(call.slopes, i), _row(call.constants, i),
        )  # fmt: skip
        u = activated(convolutions, i)
        du, *weights = _gradients(call, i, gradient, u)
        for to, weight in zip((to_taps, to_pointwise), weights, strict=True):
            to.append(like.new_empty(0) if weight is None else weight)
        if du is None:
            continue
        du = torch.where(u <= 0, torch.zeros_like(du), du)
        if mapped:
            before_relu.append(du)
        else:
            reached += du
    if mapped:
        pairs = zip(before_relu, inputs, strict=True)
        if call.centres is None:
            crossed = [(dv * x).sum(PIXELS) for dv, x in pairs]
        else:
            crossed = [
                (dv * (x - m)).sum(PIXELS) for (dv, x), m in zip(pairs, call.centres, strict=True)
            ]
        sums = torch.stack([dv.sum(PIXELS) for dv in before_relu])
        return before_relu, to_taps, to_pointwise, torch.stack(crossed), sums
    nothing, to_inputs = like.new_empty(0, like.shape[-1]), list[Tensor]()
    if call.wants_inputs:
        to_inputs = [reached if call.added is None else reached + call.added]
    return to_inputs, to_taps, to_pointwise, nothing, nothing.clone()


def projection(call: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """y = W R(x) + bias `[N, H, W, C]`; with `moments` those of y, `[1, C]`.

    Moments are mean and biased variance, else empty.
    """
    output = F.linear(F.relu(call.x), call.weight.flatten(1), call.bias)
    if not call.moments:
        nothing = output.new_empty(0, len(call.weight))
        return output, nothing, nothing.clone()
    mean, var = _moments(output)
    return output, mean.unsqueeze(0), var.unsqueeze(0)


def projection_backward(call: ProjectionBackward) -> tuple[Tensor, Tensor]:
    """The gradients of `projection` by x and W, empty where not wanted."""
    x, weight = call.x, call.weight
    gradient = _piecewise(call.gradient, call.output, call.factors, call.slopes, call.constants)
    to_x = to_weight = x.new_empty(0)
    if call.wants_x:
        reached = gradient @ weight.flatten(1)
        to_x = torch.where(x <= 0, torch.zeros_like(x), reached)
    if call.wants_weight:
        products = gradient.flatten(0, 2).t() @ F.relu(x).flatten(0, 2)
        to_weight = products.view(weight.shape)
    return to_x, to_weight


def mixture(call: Mixture) -> list[Tensor]:
    """The outputs of all slots: before + bias + Σ coefficient · linear + Σ factor · part."""
    outs, starts = [], dict(zip(call.before_slots, call.before, strict=True))
    like = call.parts[0] if len(call.parts) else call.linear[0]
    for slot, constant in enumerate(call.bias):
        total = starts[slot] + constant if slot in starts else constant  # a row, until it is used
        for image, factor in zip(call.linear, call.coefficients[slot], strict=True):
            total = torch.addcmul(total, image, factor)
        for part, target, factor in zip(call.parts, call.slot_of, call.factors, strict=True):
            if target == slot:
                total = torch.addcmul(total, part, factor)
        outs.append(total if total.dim() == like.dim() else total.expand_as(like).contiguous())
    return outs


def mixture_backward(call: MixtureBackward) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """What the gradients of the slots give, but for those of the parts.

    The gradients of the linear images, empty where not wanted; Σ g (part − centre) `[parts, C]`;
    Σ g (linear − centre) `[slots, linear, C]`; Σ g `[slots, C]`, the gradient of the bias.
    """
    gradients, like = call.gradients, call.gradients[0]
    num, channels = len(gradients), like.shape[-1]
    crossed = [
        (gradients[slot] * (part - centre)).sum(PIXELS)
        for part, slot, centre in zip(call.parts, call.slot_of, call.centres, strict=True)
    ]
    centred = [image - m for image, m in zip(call.linear, call.linear_centres, strict=True)]
    products = [(gradient * image).sum(PIXELS) for gradient in gradients for image in centred]
    to_linear = [
        sum(
            (g * call.coefficients[slot, q] for slot, g in enumerate(gradients)),
            start=torch.zeros_like(like),
        )
        if call.wants_linear
        else like.new_empty(0)
        for q in range(len(call.linear))
    ]
    return (
        to_linear,
        torch.stack(crossed) if crossed else like.new_empty(0, channels),
        (torch.stack(products) if products else like.new_empty(0)).view(num, -1, channels),
        torch.stack([gradient.sum(PIXELS) for gradient in gradients]),
    )


def pool(call: Pool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest and the mean of 3 × 3 pixels, `[N, H/S, W/S, C]`, and the moments of both.

    The largest is empty where it is not wanted. Pixels outside the image are left out. With
    `moments` means and variances `[2, C]` (biased).
    """
    x, image = call.x, call.x.permute(0, 3, 1, 2)
    if call.wants_largest:
        largest = _nhwc(F.max_pool2d(image, 3, call.stride, padding=1))
    else:
        largest = x.new_empty(0)
    average = _nhwc(average_pool(image, call.stride))
    if not call.moments:
        return largest, average, x.new_empty(0, x.shape[-1]), x.new_empty(0, x.shape[-1])
    pairs = [torch.var_mean(pooled.flatten(0, 2), 0, correction=0) for pooled in (largest, average)]
    return largest, average, torch.stack([m for _, m in pairs]), torch.stack([v for v, _ in pairs])


def pool_backward(call: PoolBackward) -> Tensor:
    """The gradient of x, plus `added`. Of equal pixels the first one takes that of the largest."""
    x, stride, total = call.x, call.stride, call.added
    poolings = (
        (call.largest, call.largest_gradient),
        (call.average, call.average_gradient),
    )
    for i, (pooled, gradient) in enumerate(poolings):
        if gradient.numel() == 0 and x.numel():  # nothing reads this pooling
            continue
        gradient = gradient + pooled * call.slopes[i] + call.constants[i]
        with torch.enable_grad():
            leaf = x.detach().permute(0, 3, 1, 2).requires_grad_()
            out = F.max_pool2d(leaf, 3, stride, padding=1) if i == 0 else average_pool(leaf, stride)
        reached = _nhwc(torch.autograd.grad(out, leaf, gradient.permute(0, 3, 1, 2))[0])
        total = reached if total is None else total + reached
    return torch.zeros_like(x) if total is None else total


def activated(convolutions: Convolutions, i: int) -> Tensor:
    """What convolution i reads: R(x), or R(scale_i x_i + shift_i)."""
    inputs, scales, shifts = convolutions.inputs, convolutions.scales, convolutions.shifts
    if scales is None or shifts is None:
        return F.relu(inputs[0])
    return F.relu(inputs[i] * scales[i] + shifts[i])


def _output(convolutions: Convolutions, i: int) -> Tensor:
    """y_i, with zeros in the channels that its pointwise weight does not give."""
    weight = convolutions.pointwise[i]
    if is_dense(weight):
        image = activated(convolutions, i).permute(0, 3, 1, 2)
        return _nhwc(F.conv2d(image, weight, padding=1))
    plane = _plane(convolutions, i)
    first, channels = convolutions.first_rows[i], plane.shape[-1]
    rows = plane @ weight.flatten(1).t()
    return F.pad(rows, (first, channels - first - len(weight)))


def _plane(convolutions: Convolutions, i: int) -> Tensor:
    """taps_i * u_i, or the pixels of u_i as they are; zeros beyond odd sides."""
    image = activated(convolutions, i).permute(0, 3, 1, 2)
    weight, stride = convolutions.taps[i], convolutions.stride
    if weight.numel():
        dilation = convolutions.dilations[i]
        padding = dilation * (weight.shape[-1] // 2)
        return _nhwc(F.conv2d(image, weight, None, stride, padding, dilation, image.shape[1]))
    offset = convolutions.offsets[i]
    if offset:
        image = F.pad(image, (0, image.shape[3] % 2, 0, image.shape[2] % 2))
    return _nhwc(image[:, :, offset::stride, offset::stride])


def is_dense(weight: Tensor) -> bool:
    """Whether a weight has 3 × 3 taps for each pair of channels."""
    return weight.shape[-1] > 1


def _gradients(
    call: SeparableBackward, i: int, gradient: Tensor, u: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of y_i by u_i, taps and pointwise weight, None where not wanted."""
    convolutions, wants_weight = call.convolutions, call.wants_pointwise[i]
    weight, first = convolutions.pointwise[i], convolutions.first_rows[i]
    wants_u = call.wants_inputs or convolutions.scales is not None
    if is_dense(weight):
        images, padding = (gradient.permute(0, 3, 1, 2), u.permute(0, 3, 1, 2)), [1, 1]
        wanted = [wants_u, wants_weight, False]
        du, dweight, _ = torch.ops.aten.convolution_backward(
            *images, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, wanted
        )
        return _nhwc(du) if wants_u else None, None, dweight if wants_weight else None
    rows, dweight = gradient[..., first : first + len(weight)], None
    if wants_weight:
        products = rows.flatten(0, 2).t() @ _plane(convolutions, i).flatten(0, 2)
        dweight = products.view(weight.shape)
    wishes = wants_u, call.wants_taps[i] and convolutions.taps[i].numel() > 0
    return *_plane_gradients(convolutions, i, rows @ weight.flatten(1), u, wishes), dweight


def _plane_gradients(
    convolutions: Convolutions, i: int, gradient: Tensor, u: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `_plane` by u_i `[N, H, W, C]` and by the taps, None where not wanted."""
    weight, stride = convolutions.taps[i], convolutions.stride
    if weight.numel():
        image, grad = u.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
        dilation = convolutions.dilations[i]
        du, dweight = depthwise_gradients(grad, image, weight, stride, dilation, wanted)
        return None if du is None else _nhwc(du), dweight
    if not wanted[0]:
        return None, None
    offset, (count, height, width, channels) = convolutions.offsets[i], u.shape
    du = u.new_zeros(count, height + 1, width + 1, channels)
    to = du[:, offset::stride, offset::stride]
    to[:, : gradient.shape[1], : gradient.shape[2]] = gradient
    return du[:, :height, :width].contiguous(), None


def _piecewise(
    gradient: Tensor,
    output: Tensor | None,
    factor: Tensor,
    slope: Tensor | None,
    constant: Tensor | None,
) -> Tensor:
    """factor · gradient + slope · output + constant."""
    total = gradient * factor
    if slope is not None and output is not None:
        total = total + output * slope
    return total if constant is None else total + constant


def _row(rows: Tensor | None, i: int) -> Tensor | None:
    return None if rows is None else rows[i]


def _nhwc(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `[C]`; deviations first, for digits where |mean| is large."""
    rows = image.flatten(0, 2)
    mean = rows.sum(0) / max(1, len(rows))
    return mean, (rows - mean).square().sum(0) / max(1, len(rows))
