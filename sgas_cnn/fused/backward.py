"""The backward pass of `source`: from the gradients of the slots to all that went in.

Dimensions as in `source`; n branches, of which the first ones are `doubled` (have a first half).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sgas_cnn.fused.linear import pool_corrections, pool_gradient, unfold_scales
from sgas_cnn.fused.norms import Folded, Unfolded, unfold
from sgas_cnn.fused.parts import Branch
from sgas_cnn.fused.plan import SourcePlan
from sgas_cnn.kernels import backend_of

Gradients = list[Any]


class SourceBackward:
    """One backward pass; `kept` is what the forward pass saved, by name.

    `wanted` says for the state, the weights, what was before, and the parameters of the plan
    whether a gradient is asked for.
    """

    def __init__(
        self,
        plan: SourcePlan,
        training: bool,
        kept: Mapping[str, Sequence[Tensor]],
        wanted: Sequence[bool],
    ) -> None:
        self.plan, self.training = plan, training
        (self.x,) = kept["x"]
        self.halves, self.planes, self.taps = kept["halves"], kept["planes"], kept["taps"]
        pooled = iter(kept["images"])
        self.images = [self.x if form.reads_state else next(pooled) for form in plan.forms]
        self.mean, self.inverse, self.linear_scales = kept["linear"]
        self.first = Folded(*kept["first"]) if kept["first"] else None
        self.folded = Folded(*kept["folded"]) if kept["folded"] else None
        self.backend = backend_of(self.x)
        self.wants_state, self.wants_weights = wanted[:2]
        self.wants_before = wanted[2 : 2 + plan.slots]
        self.wants_parameters = wanted[2 + plan.slots :]

    def run(self, given: Sequence[Tensor | None], scales_size: int) -> Gradients:
        """Gradients of the state, the weights, what was before, and the parameters."""
        plan, x = self.plan, self.x
        like = self.planes[0] if self.planes else self.images[0]
        gradients = [torch.zeros_like(like) if g is None else g.contiguous() for g in given]
        self.pixels = like[..., 0].numel()
        channels = x.shape[-1]
        centres = None if self.folded is None else self.folded.centres
        if centres is None:
            centres = x.new_zeros(len(plan.branches), channels)
        to_linear, crossed, linear_crossed, sums = self.backend.mixture_backward(
            gradients, [self.planes[i] for i in plan.plane_of], plan.slot_of, centres,
            self.images, self.mean, self.linear_scales.unsqueeze(-1) * self.inverse,
        )  # fmt: skip
        tables = plan.tables(x.device)
        branches = None
        if self.folded is not None:
            branches = unfold(self.folded, crossed, sums[tables.slots], self.pixels)
        to_weights = None
        if self.wants_weights:
            to_weights = x.new_zeros(scales_size)
            to_weights.index_add_(
                0, tables.linear, unfold_scales(linear_crossed, self.inverse).flatten()
            )
            if branches is not None:
                to_weights.index_add_(0, tables.branches, branches.scales)
            to_weights = to_weights[2:]
        before = [g if w else None for g, w in zip(gradients, self.wants_before, strict=True)]
        if not self.wants_state and not any(self.wants_parameters):
            return [None, to_weights, *before, *[None] * len(self.wants_parameters)]
        added = None
        if self.wants_state:
            corrections = None
            if self.training and plan.normed:
                corrections = pool_corrections(
                    plan, self.linear_scales, linear_crossed, sums, self.mean, self.inverse,
                    self.pixels,
                )  # fmt: skip
            added = pool_gradient(plan, self.backend, x, self.images, to_linear, corrections)
        if branches is None:
            return [added, to_weights, *before]
        to_state, parameters = self._through_planes(gradients, branches, added)
        return [to_state, to_weights, *before, *parameters]

    def _through_planes(
        self, gradients: list[Tensor], branches: Unfolded, added: Tensor | None
    ) -> tuple[Tensor | None, Gradients]:
        """The gradient of the state, and of all parameters."""
        plan, num = self.plan, self.plan.num_doubled
        assert self.folded is not None
        slopes, constants = self._per_plane(branches.slopes), self._per_plane(branches.constants)
        second: Gradients = []
        halves = None
        sources, matrices = list(gradients), [self.folded.matrices[num:]]
        pulled = [(plan.slot_of[b], plan.plane_of[b]) for b in range(num, len(plan.branches))]
        if num:
            assert self.first is not None
            before_relu, second, crossed, sums = self.backend.depthwise_backward(
                gradients, plan.slot_of[:num], range(num), self.folded.matrices[:num],
                self.planes[:num], _part(slopes, 0, num), _part(constants, 0, num),
                self.halves, self.first.matrices, self.first.bias, self.first.centres,
                self.taps[len(self.taps) - num :], [1] * num, [0] * num, 1, None, True,
                self._wanted_taps(second=True),
            )  # fmt: skip
            halves = unfold(self.first, crossed, sums, self.pixels)
            pulled = [(plan.slots + i, i) for i in range(num)] + pulled
            matrices.insert(0, self.first.matrices)
            sources += before_relu
        taps_wanted = self._wanted_taps(second=False)
        to_state, first_taps = None, [None] * len(plan.taps)
        if self.wants_state or any(taps_wanted):
            to_states, first_taps, _, _ = self.backend.depthwise_backward(
                sources, [source for source, _ in pulled], [plane for _, plane in pulled],
                torch.cat(matrices), [*self.halves, *self.planes[num:]],
                _joined(halves and halves.slopes, _part(slopes, num)),
                _joined(halves and halves.constants, _part(constants, num)),
                [self.x], None, None, None, plan.weights_of_taps(self.x, self.taps),
                plan.dilations, plan.offsets, plan.stride, added, self.wants_state, taps_wanted,
            )  # fmt: skip
            to_state = to_states[0] if self.wants_state else None
        taps = [g for b, g in zip(plan.taps, first_taps, strict=True) if b.taps is not None]
        return to_state, self._parameters([*taps, *second], halves, branches)

    def _per_plane(self, per_branch: Tensor | None) -> Tensor | None:
        """What branches add to the gradients of their planes, by plane."""
        if per_branch is None or not self.plan.planes_shared:
            return per_branch
        total = per_branch.new_zeros(len(self.planes), *per_branch.shape[1:])
        return total.index_add(0, self.plan.tables(self.x.device).planes, per_branch)

    def _wanted_taps(self, second: bool) -> list[bool]:
        """Which taps want a gradient: of the second convolutions, or of those of the state."""
        plan = self.plan
        wanted = iter(self.wants_parameters[: plan.num_taps])
        of_state = [b.taps is not None and next(wanted) for b in plan.taps]
        return list(wanted) if second else of_state

    def _parameters(
        self, taps: Gradients, halves: Unfolded | None, branches: Unfolded
    ) -> Gradients:
        """The gradients of the plan's parameters, in its order; None where not wanted."""
        plan = self.plan
        both: list[tuple[Branch, Unfolded, int]] = []
        if halves is not None:
            both += [(branch, halves, i) for i, branch in enumerate(plan.firsts)]
        both += [(branch, branches, i) for i, branch in enumerate(plan.branches)]
        found: Gradients = list(taps)
        weights = [u.weights.unbind() for u in (halves, branches) if u is not None]
        for (branch, _, _), rows in zip(both, chain(*weights), strict=True):
            whole = rows if branch.whole else rows[branch.rows]
            found.append(whole.view(branch.pointwise.weight.shape))
        for name in ("gamma", "beta"):
            for branch, unfolded, i in both:
                if branch.norm.weight is not None:
                    found.append(getattr(unfolded, name)[i])
        return [g if w else None for g, w in zip(found, self.wants_parameters, strict=True)]


def _part(rows: Tensor | None, start: int, stop: int | None = None) -> Tensor | None:
    return None if rows is None else rows[start:stop]


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Both, one behind the other."""
    return torch.cat([first, second]) if first is not None and second is not None else second
