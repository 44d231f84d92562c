"""The linear images of a mixture: the state and its poolings.

Dimensions: N images, H × W pixels, C channels, S the stride, Q poolings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgas_cnn.fused.parts import Pooling
from sgas_cnn.fused.plan import POOLS, SourcePlan
from sgas_cnn.kernels.protocol import Backend, Pool, PoolBackward


def linear_images(
    plan: SourcePlan, backend: Backend, x: Tensor, moments: bool
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """The poolings `[N, H/S, W/S, C]` of the state `x`, itself among them.

    With `moments`, where norms follow, also the means and variances `[2, C]` of both.
    """
    if not plan.pools:
        return [x] * len(plan.poolings), []
    normed = moments and plan.normed
    largest, average, mean, var = backend.pool(
        Pool(x, plan.stride, normed, normed or Pooling.MAX in plan.poolings)
    )
    images = {Pooling.MAX: largest, Pooling.AVERAGE: average, Pooling.NONE: x}
    return [images[pooling] for pooling in plan.poolings], [(mean, var)] if normed else []


def pool_gradient(
    plan: SourcePlan,
    backend: Backend,
    x: Tensor,
    images: Sequence[Tensor],
    gradients: Sequence[Tensor],
    slopes: Tensor,
    constants: Tensor,
) -> Tensor | None:
    """What the poolings give to the gradient of the state `x` `[N, H, W, C]`.

    They have the gradients `gradient + slope · image + constant`, `[Q, C]`.
    """
    place = {pooling: q for q, pooling in enumerate(plan.poolings)}
    added = gradients[place[Pooling.NONE]] if Pooling.NONE in place else None
    if not plan.pools:
        return added
    nothing = x.new_empty(0)
    largest, average = (images[place[p]] if p in place else nothing for p in POOLS)
    to_largest, to_average = (gradients[place[p]] if p in place else nothing for p in POOLS)
    places = [place.get(pooling, 0) for pooling in POOLS]
    if not plan.normed:
        slopes, constants = (rows.expand(len(POOLS), -1) for rows in (slopes, constants))
    elif places == [0, 1]:  # a search's
        slopes, constants = slopes[:2], constants[:2]
    else:  # a list as index would be brought to the device, which waits
        slopes, constants = (torch.stack([rows[q] for q in places]) for rows in (slopes, constants))
    return backend.pool_backward(
        PoolBackward(
            x, largest, average, to_largest, to_average, slopes, constants, added, plan.stride
        )
    )
