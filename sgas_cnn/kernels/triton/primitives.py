"""The primitives of torch_backend, in a few launches a call, however many convolutions it has.

Products of matrices are torch's, over all convolutions of a call at a time; kernels do the rest.
All are given tensors with elements. Dimensions: n convolutions, N images, H × W pixels, P pixels of
all images, C channels, S the stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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


def separable(*given: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable`."""
    *convolutions, moments = given
    bank = Bank.of(*convolutions)
    rows = torch.bmm(planes(bank).flatten(1, 3), bank.through.transpose(1, 2))
    outputs = rows.view(bank.num, *bank.outputs, bank.channels)
    return list(outputs.unbind()), *_moments(outputs, moments)


def separable_sum(*given: Any) -> list[Tensor]:
    """As `torch_backend.separable_sum`."""
    *convolutions, before, before_slots, slot_of, factors, bias = given
    outputs, nothing, _ = separable(*convolutions, False)
    no_forms = nothing.view(len(bias), 0, bias.shape[1])
    return mixture(before, before_slots, outputs, slot_of, factors, [], no_forms, bias)


def separable_backward(
    gradients: Sequence[Tensor],
    gradient_of: Sequence[int],
    factors: Tensor,
    outputs: Sequence[Tensor],
    slopes: Tensor | None,
    constants: Tensor | None,
    *given: Any,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """As `torch_backend.separable_backward`."""
    *convolutions, centres, added, wants_inputs, wants_taps, wants_pointwise = given
    pointwise, first_rows = convolutions[-3:-1]
    bank = Bank.of(*convolutions)
    ends = [(row, row + len(w)) for row, w in zip(first_rows, pointwise, strict=True)]
    dy = pulled(gradients, gradient_of, factors, outputs, slopes, constants, ends)
    dy = dy.flatten(1, 3)
    to_planes = torch.bmm(dy, bank.through).view(bank.num, *bank.outputs, bank.channels)
    to_taps = taps_gradient(bank, to_planes, wants_taps)
    to_pointwise = [dy.new_empty(0)] * bank.num
    if any(wants_pointwise):
        products = _products(dy, planes(bank).flatten(1, 3))
        to_pointwise = [
            rows[first:last].reshape(weight.shape) if wants else to_pointwise[0]
            for rows, (first, last), weight, wants in zip(
                products, ends, pointwise, wants_pointwise, strict=True
            )
        ]
    del dy  # as large as all outputs
    if bank.mapped:
        found, crossed, sums = planes_gradient.gradient_before_relu(bank, to_planes, centres)
        return list(found.unbind()), to_taps, to_pointwise, crossed, sums
    to_inputs = list[Tensor]()
    if wants_inputs:
        to_inputs = [planes_gradient.gradient_of_input(bank, to_planes, added)]
    return to_inputs, to_taps, to_pointwise, *_moments(to_planes, False)


def projection(
    x: Tensor, weight: Tensor, bias: Tensor | None, moments: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_backend.projection`."""
    output = F.linear(F.relu(x), weight.flatten(1), bias)
    return output, *_moments(output.contiguous().unsqueeze(0), moments)


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
    """As `torch_backend.projection_backward`."""
    whole = [(0, len(weight))]
    dy = pulled([gradient], [0], factors, [output], slopes, constants, whole).flatten(1, 3)
    to_x = to_weight = x.new_empty(0)
    if wants_x:
        reached = (dy[0] @ weight.flatten(1)).view(x.shape)
        to_x = torch.ops.aten.threshold_backward(reached, x.contiguous(), 0)
    if wants_weight:
        read = F.relu(x).contiguous().view(1, -1, x.shape[-1])
        to_weight = _products(dy, read)[0].view(weight.shape)
    return to_x, to_weight


def pool(x: Tensor, stride: int, moments: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_backend.pool`."""
    pooled = pooling.pool(x, stride)
    return pooled[0], pooled[1], *_moments(pooled, moments)


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
