"""Batch norm inside fused functions: y = ReLU(h), then γ (y − μ) / σ + β, for m edges side by side.

With G the gradient of w · norm(y) (w the weight of the edge), r = 1/σ, k = γ r, and sums over n
rows: c = Σ G y − μ Σ G gives the gradients w r c of γ, w Σ G of β and Σ (k c + β Σ G) of w; that of
y is w k (G − ΣG/n − (y − μ) r² c/n), and of h the same where y > 0. In evaluation mode μ and σ are
constants and the last two terms of it are gone.
Dimensions: N rows, D = m·C columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgas_gcn.constants import EPS, MOMENTUM
from sgas_gcn.fused.call import Call
from sgas_gcn.kernels import pointwise

NORM = ("norm.weight", "norm.bias")


def coefficients(call: Call, sums: Tensor, count: int) -> Tensor:
    """The norm's coefficients `[4, D]` from `sums` `[2, D]` of `count` rows; moves statistics."""
    norms = [module.norm for module in call.modules]
    return pointwise.norm_coefficients(
        sums,
        count,
        call.weights["norm.weight"],
        call.weights["norm.bias"],
        [norm.running_mean for norm in norms],
        [norm.running_var for norm in norms],
        call.state.training,
        MOMENTUM,
        EPS,
    )


def relu_norm(call: Call, h: Tensor) -> Tensor:
    """ReLU of `h` `[N, D]` in place, and the coefficients of its norm."""
    norms = [module.norm for module in call.modules]
    return pointwise.relu_norm_(
        h,
        0.0,
        call.weights["norm.weight"],
        call.weights["norm.bias"],
        [norm.running_mean for norm in norms],
        [norm.running_var for norm in norms],
        call.state.training,
        MOMENTUM,
        EPS,
    )


def gradients(
    call: Call,
    sums: Tensor,
    coefs: Tensor,
    scale: Tensor | None,
    count: int,
    like: Tensor,
) -> tuple[Tensor, Tensor]:
    """Leaves the gradients of γ and β; the factors `[3, D]` of that of y, and Σ (k c + β Σ G)."""
    factors, affine, of_scale = pointwise.norm_gradients(
        sums, coefs, scale, count, call.state.training, like
    )
    if call.state.needs_weights:
        call.gradients["norm.weight"], call.gradients["norm.bias"] = affine
    return factors, of_scale


def relu_norm_backward(
    call: Call, grad: Tensor, y: Tensor, coefs: Tensor, scale: Tensor | None, of_scale: bool = True
) -> Tensor | None:
    """The gradient of h, from that of scale · norm(y); None where only the scale's is wanted.

    Leaves the gradients of γ, β and, if `of_scale`, of the scale.
    """
    state = call.state
    out = torch.empty_like(y, memory_format=torch.contiguous_format) if state.full else None
    affine, found = pointwise.relu_norm_backward(
        grad, y, coefs, scale, call.num_edges, state.training, 0.0, out
    )
    if of_scale:
        call.grad_scale = found
    if state.needs_weights:
        call.gradients["norm.weight"], call.gradients["norm.bias"] = affine
    return out


def signs(weights: Sequence[Tensor], like: Tensor) -> Tensor:
    """−1 where a norm's weight is negative and else 1, `[D]`."""
    return torch.where(torch.cat(tuple(weights)) < 0, -1.0, 1.0).to(like.dtype)
