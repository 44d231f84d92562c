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

from sgas.precision import without_autocast
from sgas_cnn.fused.linear import linear_images
from sgas_cnn.fused.parts import EPS
from sgas_cnn.fused.plan import SourcePlan, affine_of
from sgas_cnn.kernels import backend_of


@without_autocast
def sum_source(
    plan: SourcePlan, x: Tensor, weights: Tensor | None, *before: Tensor | None
) -> list[Tensor]:
    """The outputs `[N, H/S, W/S, C]` of all slots; images are `[N, H, W, C]`, `weights` flat."""
    outs: list[Any] = list(before)
    for part, slots in plan.apart:
        started = [place for place, slot in enumerate(slots) if outs[slot] is not None]
        given = [outs[slots[place]] for place in started]
        for slot, out in zip(slots, _sum(part, x, weights, given, started), strict=True):
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
    rows, affine = plan.rows, affine_of(plan.branches, plan.slots * len(plan.poolings))
    factors, bias, *_ = backend.fold(
        mean, var, rows.row_of, *affine, weights, rows.places, rows.slot_of, plan.slots, EPS
    )
    if plan.poolings:
        images, _ = linear_images(plan, backend, x, False)
        of_poolings = plan.split(factors)[1]
        outs: list[Tensor] = backend.mixture(
            before, started, [], [], factors[:0], images, of_poolings, bias
        )
        return outs
    first, second = plan.weights(x, plan.parameters())
    taps = plan.first_taps
    read: tuple[Any, ...] = [x], None, None
    if plan.num_doubled:
        halves = backend.separable(
            *read, first.taps, taps.dilations, taps.offsets, first.pointwise, taps.first_rows,
            taps.stride, False,
        )[0]  # fmt: skip
        scales, shifts, *_ = plan.folded_firsts(backend, mean, var)
        read, first, taps = (halves, scales, shifts), second, plan.second_taps
    outs = backend.separable_sum(
        *read, first.taps, taps.dilations, taps.offsets, first.pointwise, taps.first_rows,
        taps.stride, before, started, plan.slot_of, factors, bias,
    )  # fmt: skip
    return outs
