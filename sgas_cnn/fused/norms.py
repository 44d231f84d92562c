"""Batch norm behind a convolution, folded into one factor and one constant for each channel.

For y over P pixels with mean m and variance v, σ = sqrt(v + eps), and the weight a of the edge:

    a (γ (y - m) / σ + β) = s y + b,  s = a γ / σ,  b = a β - s m

With the gradient g of the output, X = Σ g (y - m) and G = Σ g:

    ds = X,  da = Σ (X γ / σ + β G),  dγ = a X / σ,  dβ = a G,  dv = -s X / (2 σ²)
    dy = s g + S y + c,  S = 2 dv / P,  c = -s G / P - S m

In evaluation mode m and v are running moments, and S = c = 0.

Dimensions: n convolutions, C channels; all are stacked, `[n, C]`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-5


class Folded(NamedTuple):
    """Norms as out = `factors` y + `bias`, and what led there.

    `gamma` and `beta` stand for ones and zeros where None, and so does `scales` a `[n]`.
    """

    factors: Tensor
    bias: Tensor
    mean: Tensor
    inverse: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    scales: Tensor | None


class Unfolded(NamedTuple):
    """Gradients of a `Folded`, and how they reach y: dy = factors g + slopes y + constants."""

    scales: Tensor
    gamma: Tensor
    beta: Tensor
    slopes: Tensor | None
    constants: Tensor | None


def fold(
    mean: Tensor, var: Tensor, affine: tuple[Tensor, Tensor] | None, scales: Tensor | None
) -> Folded:
    """Norms by the means and variances `[n, C]` of a batch, or running ones, folded.

    `affine` is (γ, β), `scales` a `[n]`; None stands for ones and zeros.
    """
    inverse = torch.rsqrt(var + EPS)
    gamma, beta = affine or (None, None)
    factors = _times(inverse, gamma, scales)
    bias = factors.mul(mean).neg_()
    if beta is not None:
        bias = bias + _times(beta, None, scales)
    return Folded(factors, bias, mean, inverse, gamma, beta, scales)


def unfold(folded: Folded, crossed: Tensor, sums: Tensor, pixels: int | None) -> Unfolded:
    """The gradients of `fold`, from X `crossed` and G `sums` `[n, C]`.

    `pixels` is P, None where the moments were running ones.
    """
    factors, gamma, scales = folded.factors, folded.gamma, folded.scales
    normalised = crossed * folded.inverse
    d_scales = _times(normalised, gamma, None)
    if folded.beta is not None:
        d_scales = d_scales + folded.beta * sums
    slopes = constants = None
    if pixels is not None:
        per_pixel = factors * (-1 / max(1, pixels))
        slopes = per_pixel * folded.inverse * normalised
        constants = torch.addcmul(per_pixel * sums, slopes, folded.mean, value=-1)
    return Unfolded(
        d_scales.sum(-1),
        _times(normalised, None, scales),
        _times(sums, None, scales),
        slopes,
        constants,
    )


def _times(x: Tensor, gamma: Tensor | None, scales: Tensor | None) -> Tensor:
    """`x` `[n, C]` times γ `[n, C]` and a `[n]`."""
    x = x if gamma is None else x * gamma
    return x if scales is None else x * scales.unsqueeze(-1)
