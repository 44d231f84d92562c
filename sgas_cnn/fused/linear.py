"""The linear parts of a mixture: the state and its poolings.

Dimensions: N images, H × W pixels, C channels, S the stride, Q poolings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sgas_cnn.fused.parts import Pooling
from sgas_cnn.fused.plan import POOLS, SourcePlan


def linear_images(
    plan: SourcePlan, backend: Any, x: Tensor, moments: bool
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """The poolings `[N, H/S, W/S, C]` of the state `x`, itself among them.

    With `moments`, where norms follow, also the means and variances `[2, C]` of both poolings.
    """
    pooled: list[Tensor] = []
    found: list[tuple[Tensor, Tensor]] = []
    if plan.pools:
        *pooled, mean, var = backend.pool(x, plan.stride, moments and plan.normed)
        found = [(mean, var)] if moments and plan.normed else []
    return [x if f is Pooling.NONE else pooled[POOLS.index(f)] for f in plan.poolings], found


def pool_gradient(
    plan: SourcePlan,
    backend: Any,
    x: Tensor,
    images: Sequence[Tensor],
    gradients: Sequence[Tensor],
    slopes: Tensor,
    constants: Tensor,
) -> Tensor | None:
    """What the linear parts give to the gradient of the state `x` `[N, H, W, C]`.

    The poolings have the gradients `gradient + slope · image + constant`, `[Q, C]`.
    """
    added = gradients[plan.poolings.index(Pooling.NONE)] if Pooling.NONE in plan.poolings else None
    if not plan.pools:
        return added
    nothing = x.new_empty(0)
    given, places = list[Tensor](), list[int]()
    for pooling in POOLS:
        known = pooling in plan.poolings
        q = plan.poolings.index(pooling) if known else 0
        given += [images[q], gradients[q]] if known else [nothing, nothing]
        places.append(q)
    largest, to_largest, average, to_average = given
    if places == [0, 1]:  # a search's
        slopes, constants = slopes[:2], constants[:2]
    else:  # a list as index would be brought to the device, which waits
        slopes, constants = (torch.stack([rows[q] for q in places]) for rows in (slopes, constants))
    return backend.pool_backward(
        x, largest, average, to_largest, to_average, slopes, constants, added, plan.stride
    )
