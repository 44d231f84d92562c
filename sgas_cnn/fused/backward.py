"""The backward pass of `source`: from the gradients of the slots to all that went in.

Dimensions as in `source`; of the branches the first ones are doubled (have a first half, h).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgas_cnn.fused.linear import pool_gradient
from sgas_cnn.fused.parts import Pooling
from sgas_cnn.fused.plan import Affine, Rows, SourcePlan
from sgas_cnn.kernels.backend import backend_of
from sgas_cnn.kernels.protocol import MixtureBackward, SeparableBackward, Unfold

Gradients = list[Any]


class Kept(NamedTuple):
    """What the forward pass saves, in groups of tensors.

    `first` are the folded norms of h, `folded` those of all that is mixed: factors, centres, 1/σ,
    γ and β; `weights` are those of the convolutions, `scales` those of the operations.
    """

    x: Sequence[Any]
    halves: Sequence[Any]
    outputs: Sequence[Any]
    images: Sequence[Any]
    first: Sequence[Any]
    folded: Sequence[Any]
    weights: Sequence[Any]
    scales: Sequence[Any]


class Unfolded(NamedTuple):
    """Gradients of folded norms, `[n, C]`, and how they reach y: s g + `slopes` y + `constants`."""

    weights: Tensor
    gamma: Tensor
    beta: Tensor
    slopes: Tensor
    constants: Tensor


class SourceBackward:
    """One backward pass; `kept` is what the forward pass saved.

    `wanted` says for the state, the weights, what was before, and the parameters of the plan
    whether a gradient is asked for.
    """

    def __init__(
        self, plan: SourcePlan, training: bool, kept: Kept, wanted: Sequence[bool]
    ) -> None:
        self.plan, self.training = plan, training
        (self.x,), (self.scales,) = kept.x, kept.scales
        self.halves, self.outputs = kept.halves, kept.outputs
        self.weights, self.second_weights = plan.weights(self.x, kept.weights)
        pooled = iter(kept.images)
        self.images = [
            self.x if pooling is Pooling.NONE else next(pooled) for pooling in plan.poolings
        ]
        self.first, self.folded = kept.first, kept.folded
        self.backend = backend_of(self.x)
        self.wants_state, self.wants_weights = wanted[:2]
        self.wants_before = wanted[2 : 2 + plan.slots]
        self.wants_parameters = wanted[2 + plan.slots :]

    def run(self, of_slots: Sequence[Tensor | None]) -> Gradients:
        """Gradients of the state, the weights, what was before, and the parameters."""
        plan = self.plan
        like = self.outputs[0] if self.outputs else self.images[0]
        gradients = [torch.zeros_like(like) if g is None else g.contiguous() for g in of_slots]
        self.pixels = like[..., 0].numel() if self.training else 0
        to_linear, unfolded = self._through_mixture(gradients)
        to_weights = unfolded.weights if self.wants_weights else None
        before = [g if w else None for g, w in zip(gradients, self.wants_before, strict=True)]
        if not self.wants_state and not any(self.wants_parameters):
            return [None, to_weights, *before, *[None] * len(self.wants_parameters)]
        added = self._through_linear(to_linear, unfolded) if self.wants_state else None
        if not plan.branches:
            return [added, to_weights, *before]
        to_state, parameters = self._through_branches(gradients, unfolded, added)
        return [to_state, to_weights, *before, *parameters]

    def _through_mixture(self, gradients: list[Tensor]) -> tuple[list[Tensor], Unfolded]:
        """The gradients of the poolings, and of all that was folded."""
        plan = self.plan
        factors, centres, inverse, gamma, beta = self.folded
        of_branches, of_linear = centres[: len(self.outputs)], centres[len(self.outputs) :]
        to_linear, crossed, linear_crossed, sums = self.backend.mixture_backward(
            MixtureBackward(
                gradients, self.outputs, plan.slot_of, of_branches, self.images,
                of_linear[: len(plan.poolings)], plan.split(factors)[1], self.wants_state,
            )
        )  # fmt: skip
        crossed = torch.cat([crossed, linear_crossed.flatten(0, 1)])
        affine = Affine(gamma, beta)
        unfolded = self._unfolded(
            factors, centres, inverse, plan.rows, affine, self.scales, crossed, sums
        )
        return to_linear, unfolded

    def _through_linear(self, to_linear: list[Tensor], unfolded: Unfolded) -> Tensor | None:
        """What the poolings give to the gradient of the state."""
        plan, num = self.plan, len(self.plan.branches)
        slopes, constants = unfolded.slopes[num:], unfolded.constants[num:]
        if not plan.normed:  # all are zeros
            slopes, constants = slopes[:1], constants[:1]
        elif plan.slots > 1:
            shape = plan.slots, len(plan.poolings), slopes.shape[1]
            slopes, constants = slopes.view(shape).sum(0), constants.view(shape).sum(0)
        return pool_gradient(plan, self.backend, self.x, self.images, to_linear, slopes, constants)

    def _through_branches(
        self, gradients: list[Tensor], branches: Unfolded, added: Tensor | None
    ) -> tuple[Tensor | None, Gradients]:
        """The gradient of the state, and of all parameters."""
        plan, num, last = self.plan, self.plan.num_doubled, len(self.plan.branches)
        wants_taps, wants_pointwise = self._wanted_weights()
        taps, pointwise, halves = list[Tensor](), list[Tensor](), None
        sources, reached_from = list(gradients), plan.slot_of[num:]
        factors, slopes = self.folded[0][num:last], branches.slopes[num:last]
        constants = branches.constants[num:last]
        if num:
            before_relu, taps, pointwise, halves = self._through_second(
                gradients, branches, wants_taps[len(plan.taps) :], wants_pointwise[len(plan.taps) :]
            )
            reached_from = [*range(plan.slots, plan.slots + num), *reached_from]
            sources += before_relu
            factors = torch.cat([self.first[0], factors])
            slopes = torch.cat([halves.slopes, slopes])
            constants = torch.cat([halves.constants, constants])
        wanted = wants_taps[: len(plan.taps)], wants_pointwise[: len(plan.taps)]
        to_state = None
        first_taps: Gradients = [None] * len(plan.taps)
        first_pointwise: Gradients = [None] * len(plan.taps)
        if self.wants_state or any(chain(*wanted)):
            to_states, first_taps, first_pointwise, _, _ = self.backend.separable_backward(
                SeparableBackward(
                    sources, reached_from, factors, [*self.halves, *self.outputs[num:]],
                    self._correction(slopes), self._correction(constants),
                    plan.convolutions_of_state(self.x, self.weights), None, added,
                    self.wants_state, *wanted,
                )
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
        second = plan.convolutions_of_firsts(self.halves, factors, bias, self.second_weights)
        before_relu, taps, pointwise, crossed, sums = self.backend.separable_backward(
            SeparableBackward(
                gradients, plan.slot_of[:num], self.folded[0][:num], self.outputs[:num],
                self._correction(branches.slopes[:num]), self._correction(branches.constants[:num]),
                second, centres, None, True, wants_taps, wants_pointwise,
            )
        )  # fmt: skip
        rows, affine = plan.rows_of_firsts, Affine(gamma, beta)
        halves = self._unfolded(factors, centres, inverse, rows, affine, None, crossed, sums)
        return before_relu, taps, pointwise, halves

    def _unfolded(
        self,
        factors: Tensor,
        centres: Tensor,
        inverse: Tensor,
        rows: Rows,
        affine: Affine,
        weights: Tensor | None,
        crossed: Tensor,
        sums: Tensor,
    ) -> Unfolded:
        """The gradients of what was folded from Σ g (y − m) and Σ g."""
        return Unfolded(
            *self.backend.unfold(
                Unfold(
                    factors, centres, inverse, rows.row_of, affine.gamma, affine.beta, weights,
                    rows.places, rows.slot_of, crossed, sums, self.pixels,
                )
            )
        )  # fmt: skip

    def _correction(self, rows: Tensor) -> Tensor | None:
        """Slopes or constants in training mode; without the batch's moments they are zero."""
        return rows if self.training else None

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
        gradients = [g for b, g in zip(convolutions, taps, strict=True) if b.taps is not None]
        gradients += pointwise
        if len(gradients) < len(self.wants_parameters):
            places = [(branches, i) for i in range(num, len(plan.branches))]
            places += [(branches, i) for i in range(num)]
            if halves is not None:
                places = [(halves, i) for i in range(num)] + places
            norms = list(zip(convolutions, places, strict=True))
            gradients += [
                b.own_rows(unfolded.gamma[i])
                for b, (unfolded, i) in norms
                if b.norm.weight is not None
            ]
            gradients += [
                b.own_rows(unfolded.beta[i])
                for b, (unfolded, i) in norms
                if b.norm.bias is not None
            ]
        return [g if w else None for g, w in zip(gradients, self.wants_parameters, strict=True)]
