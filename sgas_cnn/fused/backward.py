"""The backward pass of `source`: from the gradients of the slots to all that went in.

Dimensions as in `source`; of the branches the first ones are doubled (have a first half, h).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgas_cnn.fused.linear import pool_gradient
from sgas_cnn.fused.parts import Pooling
from sgas_cnn.fused.plan import SourcePlan
from sgas_cnn.kernels import backend_of

Gradients = list[Any]


class Unfolded(NamedTuple):
    """Gradients of folded norms, `[n, C]`, and how they reach y: s g + `slopes` y + `constants`."""

    weights: Tensor
    gamma: Tensor
    beta: Tensor
    slopes: Tensor
    constants: Tensor


class SourceBackward:
    """One backward pass; `kept` is what the forward pass saved, by name.

    `wanted` says for the state, the weights, what was before, and the parameters of the plan
    whether a gradient is asked for.
    """

    def __init__(
        self,
        plan: SourcePlan,
        training: bool,
        kept: Mapping[str, Sequence[Any]],
        wanted: Sequence[bool],
    ) -> None:
        self.plan, self.training = plan, training
        (self.x,), (self.scales,) = kept["x"], kept["scales"]
        self.halves, self.outputs = kept["halves"], kept["outputs"]
        self.weights, self.second_weights = plan.weights(self.x, kept["weights"])
        pooled = iter(kept["images"])
        self.images = [
            self.x if pooling is Pooling.NONE else next(pooled) for pooling in plan.poolings
        ]
        self.first, self.folded = kept["first"], kept["folded"]
        self.backend = backend_of(self.x)
        self.wants_state, self.wants_weights = wanted[:2]
        self.wants_before = wanted[2 : 2 + plan.slots]
        self.wants_parameters = wanted[2 + plan.slots :]

    def run(self, given: Sequence[Tensor | None]) -> Gradients:
        """Gradients of the state, the weights, what was before, and the parameters."""
        plan = self.plan
        like = self.outputs[0] if self.outputs else self.images[0]
        gradients = [torch.zeros_like(like) if g is None else g.contiguous() for g in given]
        self.pixels = like[..., 0].numel() if self.training else 0
        to_linear, unfolded = self._through_mixture(gradients)
        to_weights = unfolded.weights if self.wants_weights else None
        before = [g if w else None for g, w in zip(gradients, self.wants_before, strict=True)]
        if not self.wants_state and not any(self.wants_parameters):
            return [None, to_weights, *before, *[None] * len(self.wants_parameters)]
        added, num_branches = None, len(plan.branches)
        if self.wants_state:
            slopes, constants = unfolded.slopes[num_branches:], unfolded.constants[num_branches:]
            if plan.slots > 1:
                shape = plan.slots, len(plan.poolings), slopes.shape[1]
                slopes, constants = slopes.view(shape).sum(0), constants.view(shape).sum(0)
            added = pool_gradient(
                plan, self.backend, self.x, self.images, to_linear, slopes, constants
            )
        if not plan.branches:
            return [added, to_weights, *before]
        to_state, parameters = self._through_branches(gradients, unfolded, added)
        return [to_state, to_weights, *before, *parameters]

    def _through_mixture(self, gradients: list[Tensor]) -> tuple[list[Tensor], Unfolded]:
        """The gradients of the poolings, and of all that was folded."""
        plan = self.plan
        factors, centres, inverse, gamma, beta = self.folded
        of_parts, of_linear = centres[: len(self.outputs)], centres[len(self.outputs) :]
        to_linear, crossed, linear_crossed, sums = self.backend.mixture_backward(
            gradients, self.outputs, plan.slot_of, of_parts, self.images,
            of_linear[: len(plan.poolings)], plan.split(factors)[1], self.wants_state,
        )  # fmt: skip
        rows = plan.rows
        return to_linear, Unfolded(
            *self.backend.unfold(
                factors, centres, inverse, rows.row_of, gamma, beta, self.scales, rows.places,
                rows.slot_of, torch.cat([crossed, linear_crossed.flatten(0, 1)]), sums, self.pixels,
            )
        )  # fmt: skip

    def _through_branches(
        self, gradients: list[Tensor], branches: Unfolded, added: Tensor | None
    ) -> tuple[Tensor | None, Gradients]:
        """The gradient of the state, and of all parameters."""
        plan, num, last = self.plan, self.plan.num_doubled, len(self.plan.branches)
        wants_taps, wants_pointwise = self._wanted_weights()
        taps, pointwise, halves = list[Tensor](), list[Tensor](), None
        sources, reached_from = list(gradients), plan.slot_of[num:]
        direct = self.folded[0][num:last], branches.slopes[num:last], branches.constants[num:last]
        if num:
            before_relu, taps, pointwise, halves = self._through_second(
                gradients, branches, wants_taps[len(plan.taps) :], wants_pointwise[len(plan.taps) :]
            )
            reached_from = [*range(plan.slots, plan.slots + num), *reached_from]
            sources += before_relu
            firsts = self.first[0], halves.slopes, halves.constants
            first, slope, constant = (torch.cat(b) for b in zip(firsts, direct, strict=True))
            direct = first, slope, constant
        wanted = wants_taps[: len(plan.taps)], wants_pointwise[: len(plan.taps)]
        to_state = None
        first_taps: Gradients = [None] * len(plan.taps)
        first_pointwise: Gradients = [None] * len(plan.taps)
        if self.wants_state or any(chain(*wanted)):
            factors, slopes, constants = direct
            dilations, offsets, rows, stride = plan.first_taps
            to_states, first_taps, first_pointwise, _, _ = self.backend.separable_backward(
                sources, reached_from, factors, [*self.halves, *self.outputs[num:]],
                *self._corrections(slopes, constants), [self.x], None, None, self.weights.taps,
                dilations, offsets, self.weights.pointwise, rows, stride, None, added,
                self.wants_state, *wanted,
            )  # fmt: skip
            to_state = to_states[0] if self.wants_state else None
        weights = [*first_taps, *taps], [*first_pointwise, *pointwise]
        return to_state, self._parameters(*weights, halves, branches)

    def _through_second(
        self,
        gradients: list[Tensor],
        branches: Unfolded,
        wants_taps: list[bool],
        wants_pointwise: list[bool],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Unfolded]:
        """The gradients before R of second convolutions, of their weights, of the norms of h."""
        plan, num = self.plan, self.plan.num_doubled
        factors, bias, centres, inverse, gamma, beta = self.first
        dilations, offsets, rows, stride = plan.second_taps
        before_relu, taps, pointwise, crossed, sums = self.backend.separable_backward(
            gradients, plan.slot_of[:num], self.folded[0][:num], self.outputs[:num],
            *self._corrections(branches.slopes[:num], branches.constants[:num]), self.halves,
            factors, bias, self.second_weights.taps, dilations, offsets,
            self.second_weights.pointwise, rows, stride, centres, None, True, wants_taps,
            wants_pointwise,
        )  # fmt: skip
        row_of, places, slot_of = plan.rows_of_firsts
        halves = self.backend.unfold(
            factors, centres, inverse, row_of, gamma, beta, None, places, slot_of, crossed, sums,
            self.pixels,
        )  # fmt: skip
        return before_relu, taps, pointwise, Unfolded(*halves)

    def _corrections(
        self, slopes: Tensor, constants: Tensor
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Slopes and constants in training mode; without the batch's moments they are zero."""
        return (slopes, constants) if self.training else (None, None)

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
