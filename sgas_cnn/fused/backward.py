"""The backward pass of `source`: from the gradients of the slots to all that went in.

Dimensions as in `source`; of the branches the first ones are doubled (have a first half, h).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sgas_cnn.fused.linear import pool_corrections, pool_gradient, unfold_scales
from sgas_cnn.fused.norms import Folded, Unfolded, unfold
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
        self.halves, self.outputs = kept["halves"], kept["outputs"]
        self.weights, self.second_weights = plan.weights(self.x, kept["weights"])
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
        like = self.outputs[0] if self.outputs else self.images[0]
        gradients = [torch.zeros_like(like) if g is None else g.contiguous() for g in given]
        self.pixels = like[..., 0].numel()
        centres = x.new_empty(0, x.shape[-1]) if self.folded is None else self.folded.mean
        to_linear, crossed, linear_crossed, sums = self.backend.mixture_backward(
            gradients, self.outputs, plan.slot_of, centres, self.images, self.mean,
            self.linear_scales.unsqueeze(-1) * self.inverse, self.wants_state,
        )  # fmt: skip
        tables = plan.tables(x.device)
        branches = None
        if self.folded is not None:
            branches = unfold(self.folded, crossed, sums[tables.slots], self._pixels_of_batch)
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
        to_state, parameters = self._through_branches(gradients, branches, added)
        return [to_state, to_weights, *before, *parameters]

    @property
    def _pixels_of_batch(self) -> int | None:
        return self.pixels if self.training else None

    def _through_branches(
        self, gradients: list[Tensor], branches: Unfolded, added: Tensor | None
    ) -> tuple[Tensor | None, Gradients]:
        """The gradient of the state, and of all parameters."""
        plan, num = self.plan, self.plan.num_doubled
        assert self.folded is not None
        wants_taps, wants_pointwise = self._wanted_weights()
        taps, pointwise = list[Tensor](), list[Tensor]()
        halves = None
        sources, reached_from = list(gradients), plan.slot_of[num:]
        factors, slopes, constants = self.folded.factors, branches.slopes, branches.constants
        if num:
            assert self.first is not None
            dilations, offsets, rows, stride = plan.second_taps
            wanted = wants_taps[len(plan.taps) :], wants_pointwise[len(plan.taps) :]
            before_relu, taps, pointwise, crossed, sums = self.backend.separable_backward(
                gradients, plan.slot_of[:num], factors[:num], self.outputs[:num],
                _part(slopes, 0, num), _part(constants, 0, num), self.halves, self.first.factors,
                self.first.bias, self.second_weights.taps, dilations, offsets,
                self.second_weights.pointwise, rows, stride, self.first.mean, None, True, *wanted,
            )  # fmt: skip
            halves = unfold(self.first, crossed, sums, self._pixels_of_batch)
            reached_from = [*range(plan.slots, plan.slots + num), *reached_from]
            sources += before_relu
            factors = torch.cat([self.first.factors, factors[num:]])
            slopes = _joined(halves.slopes, _part(slopes, num))
            constants = _joined(halves.constants, _part(constants, num))
        wanted = wants_taps[: len(plan.taps)], wants_pointwise[: len(plan.taps)]
        to_state = None
        first_taps: Gradients = [None] * len(plan.taps)
        first_pointwise: Gradients = [None] * len(plan.taps)
        if self.wants_state or any(chain(*wanted)):
            dilations, offsets, rows, stride = plan.first_taps
            to_states, first_taps, first_pointwise, _, _ = self.backend.separable_backward(
                sources, reached_from, factors, [*self.halves, *self.outputs[num:]], slopes,
                constants, [self.x], None, None, self.weights.taps, dilations, offsets,
                self.weights.pointwise, rows, stride, None, added, self.wants_state, *wanted,
            )  # fmt: skip
            to_state = to_states[0] if self.wants_state else None
        weights = [*first_taps, *taps], [*first_pointwise, *pointwise]
        return to_state, self._parameters(*weights, halves, branches)

    def _wanted_weights(self) -> tuple[list[bool], list[bool]]:
        """Which taps and which pointwise weights of the plan's convolutions want a gradient."""
        plan = self.plan
        wanted = iter(self.wants_parameters[: plan.num_taps])
        taps = [b.taps is not None and next(wanted) for b in plan.convolutions]
        return taps, list(self.wants_parameters[plan.num_taps :][: len(taps)])

    def _parameters(
        self, taps: Gradients, pointwise: Gradients, halves: Unfolded | None, branches: Unfolded
    ) -> Gradients:
        """The gradients of the plan's parameters, in its order; None where not wanted."""
        plan, num = self.plan, self.plan.num_doubled
        convolutions = plan.convolutions
        found = [g for b, g in zip(convolutions, taps, strict=True) if b.taps is not None]
        found += pointwise
        if len(found) < len(self.wants_parameters):
            places = [(branches, i) for i in range(num, len(plan.branches))]
            places += [(branches, i) for i in range(num)]
            if halves is not None:
                places = [(halves, i) for i in range(num)] + places
            for name in ("gamma", "beta"):
                for branch, (unfolded, i) in zip(convolutions, places, strict=True):
                    if branch.norm.weight is not None:
                        found.append(branch.own_rows(getattr(unfolded, name)[i]))
        return [g if w else None for g, w in zip(found, self.wants_parameters, strict=True)]


def _part(rows: Tensor | None, start: int, stop: int | None = None) -> Tensor | None:
    return None if rows is None else rows[start:stop]


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Both, one behind the other."""
    return None if first is None or second is None else torch.cat([first, second])
