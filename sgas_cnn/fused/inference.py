"""All operations on all edges that leave one state, without gradients.

    out_e = before_e + Σ_b (s_b W_b (taps_b * R(·)) + bias_b) + Σ_q (s_eq Q_q + bias_eq)

as in source.py, with norms by their running statistics. Where kernels are compiled for the CPU, a
convolution is added to its edge as it is made: it has no image of its own, and norm and mixture
have no pass. Elsewhere its image is made first.
First halves, poolings and the state are images, and the latter two are mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sgas.native.precision import without_autocast
from sgas_cnn.fused.linear import linear_images
from sgas_cnn.fused.plan import SourcePlan
from sgas_cnn.kernels.backend import backend_of
from sgas_cnn.kernels.protocol import Mixture, Separable, SeparableSum


@without_autocast
def sum_source(
    plan: SourcePlan, x: Tensor, weights: Tensor | None, *before: Tensor | None
) -> list[Tensor]:
    """The outputs `[N, H/S, W/S, C]` of all slots; images are `[N, H, W, C]`, `weights` flat."""
    outs: list[Any] = list(before)
    for kind, slots in plan.apart:
        started = [place for place, slot in enumerate(slots) if outs[slot] is not None]
        starts = [outs[slots[place]] for place in started]
        for slot, out in zip(slots, _sum(kind, x, weights, starts, started), strict=True):
            outs[slot] = out
    return outs


def _sum(
    plan: SourcePlan,
    x: Tensor,
    weights: Tensor | None,
    before: Sequence[Tensor],
    started: Sequence[int],
) -> list[Tensor]:
    """`sum_source` for parts of one kind; `before` are those of the slots `started`."""
    backend = backend_of(x)
    mean, var = plan.running_moments(x)
    factors, bias, *_ = plan.fold(backend, mean, var, plan.affine(), weights)
    if plan.poolings:
        images, _ = linear_images(plan, backend, x, False)
        of_poolings = plan.split(factors)[1]
        return backend.mixture(
            Mixture(before, started, [], [], factors[:0], images, of_poolings, bias)
        )
    weights_of_state, second_weights = plan.weights(x, plan.parameters())
    convolutions = plan.convolutions_of_state(x, weights_of_state)
    if plan.num_doubled:
        halves, _, _ = backend.separable(Separable(convolutions, moments=False))
        scales, shifts, *_ = plan.fold_firsts(backend, mean, var)
        convolutions = plan.convolutions_of_firsts(halves, scales, shifts, second_weights)
    return backend.separable_sum(
        SeparableSum(convolutions, before, started, plan.slot_of, factors, bias)
    )
