"""SourcePlan: the parts of all operations on the edges that leave one state, in order for fusion.

A slot is the output of an edge. Dimensions: C channels, S the stride, n convolutions, Q poolings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_cnn.fused.parts import EPS, Part, Pooled, Pooling, SeparableConv, stacked
from sgas_cnn.kernels.protocol import Backend, Convolutions, Fold, Follow

ONE, ZERO = -1, -2  # places that stand for weights of 1 and 0
POOLS = (Pooling.MAX, Pooling.AVERAGE)  # as the backends' pool returns them


@dataclass(frozen=True)
class Use:
    """One part on an edge: its slot, and the place of its weight (None: the weight is 1)."""

    slot: int
    place: int | None
    part: Part


class Weights(NamedTuple):
    """The weights of separable convolutions."""

    taps: list[Tensor]
    pointwise: list[Tensor]


class Affine(NamedTuple):
    """Weights and biases of norms `[n, C]`; None stands for ones and zeros."""

    gamma: Tensor | None
    beta: Tensor | None


class Rows(NamedTuple):
    """Rows that `fold` mixes: their moments, the places of their weights, their slots."""

    row_of: list[int]
    places: list[int]
    slot_of: list[int]
    slots: int


class Followers(NamedTuple):
    """Norms, the row of the moments that each follows, and from and to which channel."""

    norms: list[Any]
    row_of: list[int]
    first_channels: list[int]
    last_channels: list[int]


class SourcePlan:
    """Everything about a source state that does not change until the next decision.

    `branches` are the convolutions that are mixed: those that have a `first`, then the direct ones,
    of which the dense ones are last.
    `taps` are those that read the state itself: the firsts, then the direct ones.
    """

    def __init__(self, uses: Sequence[Use], slots: int, stride: int) -> None:
        self.uses, self.slots, self.stride = tuple(uses), slots, stride
        convolved = [(u, u.part) for u in uses if isinstance(u.part, SeparableConv)]
        doubled = [(u, conv) for u, conv in convolved if conv.first is not None]
        direct = [(u, conv) for u, conv in convolved if conv.first is None]
        ordered = doubled + sorted(direct, key=lambda pair: pair[1].is_dense)
        self.num_doubled = len(doubled)
        self.branches = [conv for _, conv in ordered]
        self.slot_of = [u.slot for u, _ in ordered]
        self.places = [ONE if u.place is None else u.place for u, _ in ordered]
        self.firsts = [conv.first for _, conv in doubled if conv.first is not None]
        self.taps = self.firsts + self.branches[self.num_doubled :]
        self.pooled = [(u, u.part) for u in uses if isinstance(u.part, Pooled)]
        self.poolings = list(dict.fromkeys(part.pooling for _, part in self.pooled))
        self.pooling_norms: list[list[Any]] = [
            [part.norm for _, part in self.pooled if part.pooling is pooling]
            for pooling in self.poolings
        ]
        for norms in self.pooling_norms:
            alike = all((norm is None) == (norms[0] is None) for norm in norms)
            assert alike, "a pooling of a state is normed on all edges or on none"

    @cached_property
    def pools(self) -> list[Pooling]:
        """The poolings that have to be computed: all but the state itself."""
        return [pooling for pooling in self.poolings if pooling is not Pooling.NONE]

    @cached_property
    def normed(self) -> bool:
        """Whether norms follow the poolings."""
        return any(norms[0] is not None for norms in self.pooling_norms)

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, in the order in which `source` gives out gradients.

        Of `taps`, then of the second convolutions: taps, pointwise weights; norms' weights, and
        their biases, where they are.
        """
        taps = [b.taps.weight for b in self.convolutions if b.taps is not None]
        pointwise = [b.pointwise.weight for b in self.convolutions]
        affine = [
            p
            for name in ("weight", "bias")
            for b in self.convolutions
            if (p := getattr(b.norm, name)) is not None
        ]
        return [*taps, *pointwise, *affine]

    @cached_property
    def convolutions(self) -> list[SeparableConv]:
        """`taps` and the second convolutions."""
        return self.taps + self.branches[: self.num_doubled]

    @cached_property
    def num_taps(self) -> int:
        """How many of the parameters are taps."""
        return sum(branch.taps is not None for branch in self.convolutions)

    def weights(self, x: Tensor, parameters: Sequence[Any]) -> tuple[Weights, Weights]:
        """The weights of the convolutions of the state and of the second ones, of `parameters`.

        Taps are empty for pixels as they are.
        """
        nothing, of_taps = x.new_empty(0), iter(parameters[: self.num_taps])
        taps = [nothing if b.taps is None else next(of_taps) for b in self.convolutions]
        pointwise = list(parameters[self.num_taps :][: len(taps)])
        num = len(self.taps)
        return Weights(taps[:num], pointwise[:num]), Weights(taps[num:], pointwise[num:])

    def convolutions_of_state(self, x: Tensor, weights: Weights) -> Convolutions:
        """All that read the state."""
        dilations, offsets, first_rows = self._first_numbers
        return Convolutions(
            [x], None, None, weights.taps, dilations, offsets, weights.pointwise, first_rows,
            self.stride,
        )  # fmt: skip

    def convolutions_of_firsts(
        self, halves: Sequence[Tensor], scales: Tensor, shifts: Tensor, weights: Weights
    ) -> Convolutions:
        """The second convolutions, of R(s₁ h + bias₁) with scales s₁ and shifts bias₁."""
        dilations, offsets, first_rows = self._second_numbers
        return Convolutions(
            halves, scales, shifts, weights.taps, dilations, offsets, weights.pointwise, first_rows,
            1,
        )  # fmt: skip

    @cached_property
    def _first_numbers(self) -> tuple[list[int], list[int], list[int]]:
        return _numbers(self.taps)

    @cached_property
    def _second_numbers(self) -> tuple[list[int], list[int], list[int]]:
        return _numbers(self.branches[: self.num_doubled])

    @cached_property
    def rows_of_firsts(self) -> Rows:
        """The norms of the firsts."""
        num = self.num_doubled
        return Rows(list(range(num)), [ONE] * num, list(range(num)), num)

    @cached_property
    def rows(self) -> Rows:
        """All that is mixed: branches, then the poolings for each slot.

        The moments are those of `convolutions`, then of the poolings.
        """
        num, known = self.num_doubled, len(self.convolutions)
        row_of = [len(self.taps) + i for i in range(num)] + list(range(num, len(self.taps)))
        places, slot_of = list(self.places), list(self.slot_of)
        for slot in range(self.slots):
            for pooling, norms in zip(self.poolings, self.pooling_norms, strict=True):
                row_of.append(-1 if norms[0] is None else known + POOLS.index(pooling))
                places.append(ZERO)
                slot_of.append(slot)
        for use, part in self.pooled:
            at = use.slot * len(self.poolings) + self.poolings.index(part.pooling)
            places[len(self.branches) + at] = ONE if use.place is None else use.place
        return Rows(row_of, places, slot_of, self.slots)

    @cached_property
    def apart(self) -> list[tuple[SourcePlan, list[int]]]:
        """Plans of the poolings, of branches, and of those with a `first`, each with its slots.

        Their own slots count these.
        """
        kinds: list[list[Use]] = [[], [], []]
        for use in self.uses:
            branch = use.part if isinstance(use.part, SeparableConv) else None
            kinds[0 if branch is None else 1 if branch.first is None else 2].append(use)
        plans = []
        for uses in filter(None, kinds):
            slots = sorted({use.slot for use in uses})
            moved = [replace(use, slot=slots.index(use.slot)) for use in uses]
            plans.append((SourcePlan(moved, len(slots), self.stride), slots))
        return plans

    def fold(
        self, backend: Backend, mean: Tensor, var: Tensor, affine: Affine, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Factors, biases of slots, centres and 1/σ of all that is mixed."""
        return backend.fold(_folding(mean, var, self.rows, affine, weights))

    def fold_firsts(
        self, backend: Backend, mean: Tensor, var: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """s₁, bias₁, m and 1/σ of the norms of the firsts; the moments begin with theirs."""
        affine = affine_of(self.firsts, 0)
        return backend.fold(_folding(mean, var, self.rows_of_firsts, affine, None))

    def affine(self) -> Affine:
        """Weights and biases of the norms of all that is mixed."""
        return affine_of(self.branches, self.slots * len(self.poolings))

    def split(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the branches `[n, C]` and of the poolings `[slots, Q, C]`."""
        num = len(self.branches)
        return factors[:num], factors[num:].view(self.slots, len(self.poolings), factors.shape[1])

    @cached_property
    def followers(self) -> Followers:
        """All norms, with the moments that they follow."""
        convolutions = self.convolutions
        norms = [b.norm for b in convolutions]
        rows = list(range(len(norms)))
        first = [b.rows.start for b in convolutions]
        last = [b.rows.stop for b in convolutions]
        for pooling, others in zip(self.poolings, self.pooling_norms, strict=True):
            if others[0] is not None:
                norms += others
                rows += [len(convolutions) + POOLS.index(pooling)] * len(others)
                first += [0] * len(others)
                last += [len(norm.running_mean) for norm in others]
        return Followers(norms, rows, first, last)

    def follow(self, backend: Backend, mean: Tensor, var: Tensor, pixels: int) -> None:
        """The running moments of all norms follow those of a batch of P `pixels`."""
        norms, row_of, first_channels, last_channels = self.followers
        if not norms:
            return
        buffers = [norm._buffers for norm in norms]  # a module's own look-up is slow
        means, variances = (
            [held[name] for held in buffers] for name in ("running_mean", "running_var")
        )
        unbiased = pixels / max(1, pixels - 1)
        backend.follow(
            Follow(
                means, variances, mean, var, row_of, first_channels, last_channels, unbiased,
                norms[0].momentum,
            )
        )  # fmt: skip

    def running_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The running moments in the place of those of a batch."""
        mean, var = (
            self._running(x, name, value)
            for name, value in (("running_mean", 0.0), ("running_var", 1.0))
        )
        return mean, var

    def _running(self, x: Tensor, name: str, value: float) -> Tensor:
        """One of them, `[n, C]`; `value` in the channels that a convolution does not give."""
        moments = []
        if self.convolutions:
            of_norms = [getattr(b.norm, name) for b in self.convolutions]
            moments.append(stacked(self.convolutions, of_norms, value))
        if self.normed:
            pooled = [x.new_full((x.shape[-1],), value)] * len(POOLS)
            for pooling, norms in zip(self.poolings, self.pooling_norms, strict=True):
                if norms[0] is not None:
                    pooled[POOLS.index(pooling)] = getattr(norms[0], name)
            moments.append(torch.stack(pooled))
        return torch.cat(moments) if moments else x.new_empty(0, x.shape[-1])


def _numbers(convolutions: list[SeparableConv]) -> tuple[list[int], list[int], list[int]]:
    """Dilations, offsets and first rows."""
    return (
        [c.dilation for c in convolutions],
        [c.offset for c in convolutions],
        [c.first_row for c in convolutions],
    )


def _folding(mean: Tensor, var: Tensor, rows: Rows, affine: Affine, weights: Tensor | None) -> Fold:
    return Fold(
        mean, var, rows.row_of, affine.gamma, affine.beta, weights, rows.places, rows.slot_of,
        rows.slots, EPS,
    )  # fmt: skip


def affine_of(convolutions: list[SeparableConv], others: int) -> Affine:
    """Weights and biases of their norms, then ones and zeros for `others`.

    None where no convolution has them.
    """
    if all(c.norm.weight is None for c in convolutions):
        return Affine(None, None)
    gamma, beta = (
        _affine(convolutions, others, name, value)
        for name, value in (("weight", 1.0), ("bias", 0.0))
    )
    return Affine(gamma, beta)


def _affine(convolutions: list[SeparableConv], others: int, name: str, value: float) -> Tensor:
    """One of them, `[n + others, C]`; `value` where there is none."""
    of_norms = [getattr(c.norm, name) for c in convolutions]
    like = next(x for x in of_norms if x is not None)
    missing = like.new_full((convolutions[0].channels,), value)
    rows = [missing if x is None else x for x in of_norms]
    return F.pad(stacked(convolutions, rows), (0, 0, 0, others), value=value)
