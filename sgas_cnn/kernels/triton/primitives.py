"""The primitives of torch_backend, in a few launches a call, however many convolutions it has.

Products of matrices are torch's, over all convolutions of a call at a time; kernels do the rest.
All take tensors with elements. Dimensions: n convolutions, N images, H × W pixels, P pixels of
all images, C channels, S the stride.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.kernels.protocol import (
    Mixture,
    Pool,
    Projection,
    ProjectionBackward,
    Separable,
    SeparableBackward,
    SeparableSum,
)
from sgas_cnn.kernels.triton import planes_gradient, pooling
from sgas_cnn.kernels.triton.bank import Bank
from sgas_cnn.kernels.triton.mixing import mixture
from sgas_cnn.kernels.triton.mixing_gradient import mixture_backward
from sgas_cnn.kernels.triton.moments import moments as moments_of
from sgas_cnn.kernels.triton.norms import fold, unfold
from sgas_cnn.kernels.triton.planes import planes
from sgas_cnn.kernels.triton.pooling import pool_backward
from sgas_cnn.kernels.triton.pulled import pulled
from sgas_cnn.kernels.triton.taps_gradient import taps_gradient

__all__ = [
    "fold",
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

PIXELS = 512  # of a product over pixels, where they divide: one over all leaves a GPU idle


def separable(call: Separable) -> tuple[list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable`."""
    bank = Bank.of(call.convolutions)
    rows = torch.bmm(planes(bank).flatten(1, 3), bank.through.transpose(1, 2))
    outputs = rows.view(bank.num, *bank.outputs, bank.channels)
    return list(outputs.unbind()), *_moments(outputs, call.moments)


def separable_sum(call: SeparableSum) -> list[Tensor]:
    """As `torch_backend.separable_sum`."""
    outputs, nothing, _ = separable(Separable(call.convolutions, moments=False))
    bias = call.bias
    none = nothing.view(len(bias), 0, bias.shape[1])
    return mixture(
        Mixture(call.before, call.before_slots, outputs, call.slot_of, call.factors, [], none, bias)
    )


def separable_backward(
    call: SeparableBackward,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable_backward`."""
    pointwise, first_rows = call.convolutions.pointwise, call.convolutions.first_rows
    bank = Bank.of(call.convolutions)
    ends = [(row, row + len(w)) for row, w in zip(first_rows, pointwise, strict=True)]
    dy = pulled(
        call.gradients, call.gradient_of, call.factors, call.outputs, call.slopes, call.constants,
        ends,
    ).flatten(1, 3)  # fmt: skip
    to_planes = torch.bmm(dy, bank.through).view(bank.num, *bank.outputs, bank.channels)
    to_taps = taps_gradient(bank, to_planes, call.wants_taps)
    to_pointwise = [dy.new_empty(0)] * bank.num
    if any(call.wants_pointwise):
        products = _products(dy, planes(bank).flatten(1, 3))
        to_pointwise = [
            rows[first:last].reshape(weight.shape) if wants else to_pointwise[0]
            for rows, (first, last), weight, wants in zip(
                products, ends, pointwise, call.wants_pointwise, strict=True
            )
        ]
    del dy  # as large as all outputs
    if bank.mapped:
        before_relu, crossed, sums = planes_gradient.gradient_before_relu(
            bank, to_planes, call.centres
        )
        return list(before_relu.unbind()), to_taps, to_pointwise, crossed, sums
    to_inputs = list[Tensor]()
    if call.wants_inputs:
        to_inputs = [planes_gradient.gradient_of_input(bank, to_planes, call.added)]
    return to_inputs, to_taps, to_pointwise, *_moments(to_planes, False)


def projection(call: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_backend.projection`."""
    output = F.linear(F.relu(call.x), call.weight.flatten(1), call.bias)
    return output, *_moments(output.contiguous().unsqueeze(0), call.moments)


def projection_backward(call: ProjectionBackward) -> tuple[Tensor, Tensor]:
    """As `torch_backend.projection_backward`."""
    x, weight, whole = call.x, call.weight, [(0, len(call.weight))]
    dy = pulled(
        [call.gradient], [0], call.factors, [call.output], call.slopes, call.constants, whole
    ).flatten(1, 3)
    to_x = to_weight = x.new_empty(0)
    if call.wants_x:
        reached = (dy[0] @ weight.flatten(1)).view(x.shape)
        to_x = torch.ops.aten.threshold_backward(reached, x.contiguous(), 0)
    if call.wants_weight:
        read = F.relu(x).contiguous().view(1, -1, x.shape[-1])
        to_weight = _products(dy, read)[0].view(weight.shape)
    return to_x, to_weight


def pool(call: Pool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_backend.pool`."""
    pooled = pooling.pool(call.x, call.stride)
    largest = pooled[0] if call.wants_largest else call.x.new_empty(0)
    return largest, pooled[1], *_moments(pooled, call.moments)


def _moments(images: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Means and variances `[n, C]` of images `[n, N, H, W, C]`; empty where not wanted."""
    if wanted:
        return moments_of(images)
    channels = images.shape[-1]
    return images.new_empty(0, channels), images.new_empty(0, channels)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """left' right `[n, C, D]` of `[n, P, C]` and `[n, P, D]`, a part of the pixels at a time."""
    num, pixels, channels = left.shape
    parts = math.gcd(pixels, 2 ** max(0, (pixels // PIXELS).bit_length() - 1))
    pieces = left.reshape(num * parts, -1, channels).transpose(1, 2)
    products = torch.bmm(pieces, right.reshape(num * parts, -1, right.shape[2]))
    return products.view(num, parts, channels, -1).sum(1) if parts > 1 else products
