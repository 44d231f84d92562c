"""Batch norm behind a pointwise convolution, from the moments of what the convolution reads.

For y = W d over P pixels, with mean m and covariance K of d (Gram matrix, centred):

    mean(y) = W m,  var(y) = diag(W K W'),  σ = sqrt(var(y) + eps)
    a (γ (y - mean(y)) / σ + β) = M d + b,  M = diag(s) W,  s = a γ / σ,  b = a β - s mean(y)

so that y itself never exists. With the gradient g of the output, X = Σ g (d - m)' and G = Σ g:

    ds = diag(X W'),  da = Σ (ds γ / σ + β G),  dγ = a ds / σ,  dβ = a G
    dv = -a γ ds / (2 σ³) for var(y),  dW = diag(s) X + 2 diag(dv) W K
    dd = M' g + S d + c,  S = 2/P W' diag(dv) W,  c = -M' G / P - S m

In evaluation mode the running moments μ, σ² stand for those of y; X is then Σ g d',
ds = diag(X W') - μ G, dW = diag(s) X and dd = M' g.

Dimensions: n convolutions, C channels in and out; all are stacked, `[n, C]` and `[n, C, C]`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-5


class Folded(NamedTuple):
    """Norms folded into their convolutions: out = `matrices` d + `bias`, and what led there.

    `mean` and `var` are those of y; `centres` m and `covariance` K only in training mode. `gamma`
    and `beta` stand for ones and zeros where None, and so does `scales` a `[n]`.
    """

    weights: Tensor
    matrices: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    inverse: Tensor
    centres: Tensor | None
    covariance: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    scales: Tensor | None


class Unfolded(NamedTuple):
    """Gradients of a `Folded`, and how they reach d: dd = matrices' g + slopes d + constants."""

    weights: Tensor
    scales: Tensor
    gamma: Tensor
    beta: Tensor
    slopes: Tensor | None
    constants: Tensor | None


def fold(
    weights: Tensor,
    moments: tuple[Tensor, Tensor] | None,
    running: tuple[Tensor, Tensor] | None,
    affine: tuple[Tensor, Tensor] | None,
    scales: Tensor | None,
) -> Folded:
    """Norms of the convolutions `weights` `[n, C, C]`, folded.

    By the `moments` (m, K) of what they read, in evaluation mode by the `running` (μ, σ²) of what
    they give. `affine` is (γ, β), `scales` a `[n]`; None stands for ones and zeros.
    """
    if moments is not None:
        centres, covariance = moments
        mean = (weights * centres.unsqueeze(1)).sum(-1)
        var = ((weights @ covariance) * weights).sum(-1).clamp_min(0)
    else:
        assert running is not None
        (mean, var), centres, covariance = running, None, None
    inverse = torch.rsqrt(var + EPS)
    gamma, beta = affine or (None, None)
    factor = _times(inverse, gamma, scales)
    bias = -factor * mean
    if beta is not None:
        bias = bias + _times(beta, None, scales)
    matrices = factor.unsqueeze(-1) * weights
    return Folded(
        weights, matrices, bias, mean, var, inverse, centres, covariance, gamma, beta, scales
    )


def unfold(folded: Folded, crossed: Tensor, sums: Tensor, pixels: int) -> Unfolded:
    """The gradients of `fold`, from X `crossed` `[n, C, C]` and G `sums` `[n, C]`."""
    weights, inverse, gamma, scales = folded.weights, folded.inverse, folded.gamma, folded.scales
    d_factor = (crossed * weights).sum(-1)
    if folded.covariance is None:
        d_factor = d_factor - folded.mean * sums
    normalised = d_factor * inverse
    d_scales = _times(normalised, gamma, None)
    if folded.beta is not None:
        d_scales = d_scales + folded.beta * sums
    d_weights = _times(inverse, gamma, scales).unsqueeze(-1) * crossed
    slopes = constants = None
    if folded.covariance is not None and folded.centres is not None:
        d_var = _times(-0.5 * normalised * inverse.square(), gamma, scales).unsqueeze(-1)
        pulled = 2 * d_var * weights
        d_weights = torch.baddbmm(d_weights, pulled, folded.covariance)
        slopes = weights.transpose(1, 2) @ pulled.div_(max(1, pixels))
        rows = torch.stack([sums / -max(1, pixels), -folded.centres], 1)  # [n, 2, C]
        both = torch.stack([folded.matrices, slopes], 1)  # [n, 2, C, C]
        constants = (rows.unsqueeze(-1) * both).sum((1, 2))
    return Unfolded(
        d_weights,
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
