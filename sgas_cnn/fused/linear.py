"""The linear parts of a mixture: the state and its poolings, with their norms.

For an image Q of a form, with mean m, variance v and 1/σ (0 and 1 where no norm follows) and the
weight a of an edge e:

    coefficient = a / σ,  bias -= coefficient m
    da = Σ g (Q - m) / σ,  dv = -1/(2 σ³) Σ_e a Σ g (Q - m)
    dQ = Σ_e coefficient g + slope Q + constant,  slope = 2 dv / P,
    constant = -Σ_e coefficient Σ g / P - slope m

slope and constant are zero in evaluation mode, where m and v are running statistics.
Dimensions: Q forms, N images, H × W pixels, C channels, P pixels of all images together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas_cnn.fused.norms import EPS
from sgas_cnn.fused.parts import Form
from sgas_cnn.fused.plan import SourcePlan
from sgas_cnn.fused.statistics import Followers, unbiased

POOLS = (Form.LARGEST, Form.AVERAGE)  # as the backends' pool returns them


def linear_images(
    plan: SourcePlan, backend: Any, x: Tensor, training: bool, followers: Followers
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Images `[N, H/S, W/S, C]` of the forms of the state `x`, and m and 1/σ `[Q, C]` of each."""
    pooled: list[Tensor] = []
    by_batch = training and plan.normed
    if plan.pools:
        *pooled, means, variances = backend.pool(x, plan.stride, by_batch)
    zeros, ones = x.new_zeros(x.shape[-1]), x.new_ones(x.shape[-1])
    images, mean, inverse = [], [], []
    for form, norms in zip(plan.forms, plan.form_norms, strict=True):
        images.append(x if form is Form.STATE else pooled[POOLS.index(form)])
        m, v = zeros, None
        if norms[0] is not None and by_batch:
            m, v = means[POOLS.index(form)], variances[POOLS.index(form)]
            spread = unbiased(v, images[-1][..., 0].numel())
            for norm in norms:
                followers.add(norm, m, spread)
        elif norms[0] is not None:
            m, v = norms[0].running_mean, norms[0].running_var
        mean.append(m)
        inverse.append(ones if v is None else torch.rsqrt(v + EPS))
    if not images:
        return [], x.new_empty(0, x.shape[-1]), x.new_empty(0, x.shape[-1])
    return images, torch.stack(mean), torch.stack(inverse)


def unfold_scales(crossed: Tensor, inverse: Tensor) -> Tensor:
    """da `[slots, Q]`, from Σ g (Q - m) `[slots, Q, C]`."""
    return (crossed * inverse).sum(-1)


def pool_corrections(
    plan: SourcePlan,
    scales: Tensor,
    crossed: Tensor,
    sums: Tensor,
    mean: Tensor,
    inverse: Tensor,
    pixels: int,
) -> tuple[Tensor, Tensor]:
    """slope and constant `[Q, C]` in training mode; zeros where no norm follows.

    `scales` are a `[slots, Q]`, `crossed` Σ g (Q - m) `[slots, Q, C]`, `sums` Σ g `[slots, C]`.
    """
    per_form = (scales.unsqueeze(-1) * crossed).sum(0)
    slopes = -per_form * inverse.pow(3) / max(1, pixels)
    constants = -inverse * (scales.t() @ sums) / max(1, pixels) - slopes * mean
    for q, norms in enumerate(plan.form_norms):
        if norms[0] is None:
            slopes[q].zero_()
            constants[q].zero_()
    return slopes, constants


def pool_gradient(
    plan: SourcePlan,
    backend: Any,
    x: Tensor,
    images: list[Tensor],
    gradients: list[Tensor],
    corrections: tuple[Tensor, Tensor] | None,
) -> Tensor | None:
    """What the linear parts give to the gradient of the state `x` `[N, H, W, C]`."""
    added = gradients[plan.forms.index(Form.STATE)] if Form.STATE in plan.forms else None
    if not plan.pools:
        return added
    nothing, none = x.new_empty(0), x.new_zeros(2, x.shape[-1])
    given: list[Tensor] = []
    slopes, constants = none, none.clone()
    for i, form in enumerate(POOLS):
        if form not in plan.forms:
            given += [nothing, nothing]
            continue
        q = plan.forms.index(form)
        given += [images[q], gradients[q]]
        if corrections is not None:
            slopes[i], constants[i] = corrections[0][q], corrections[1][q]
    largest, d_largest, average, d_average = given
    return backend.pool_backward(
        x, largest, average, d_largest, d_average, slopes, constants, added, plan.stride
    )
