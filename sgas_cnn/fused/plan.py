"""SourcePlan: the parts of all operations on the edges that leave one state, in order for fusion.

A slot is the output of an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_cnn.fused.parts import EPS, MOMENTUM, Part, Pooled, Pooling, SeparableConv, stacked

ONE, ZERO = -1, -2  # places that stand for weights of 1 and 0
POOLS = (Pooling.MAX, Pooling.AVERAGE)  # as the backends' pool returns them


@dataclass(frozen=True)
class Use:
    """One part on an edge: its slot, and the place of its weight (None: the weight is 1)."""

    slot: int
    place: int | None
    part: Part


class Numbers(NamedTuple):
    """What separable convolutions are beside their weights, as backends take it."""

    dilations: list[int]
    offsets: list[int]
    first_rows: list[int]
    stride: int


class Weights(NamedTuple):
    """The weights of separable convolutions."""

    taps: list[Tensor]
    pointwise: list[Tensor]


class Rows(NamedTuple):
    """What `fold` takes of a plan: rows of the moments, places of weights, slots."""

    row_of: list[int]
    places: list[int]
    slot_of: list[int]


class SourcePlan:
    """Everything about a source state that does not change until the next decision.

    `branches` come with those that have a `first` before the direct ones. `taps` are what reads the
    state itself: the firsts, then the direct ones.
    """

    def __init__(self, uses: Sequence[Use], slots: int, stride: int) -> None:
        self.uses = tuple(uses)
        branches = [u for u in uses if isinstance(u.part, SeparableConv)]
        doubled = [u for u in branches if u.part.first is not None]  # type: ignore[union-attr]
        ordered = doubled + [u for u in branches if u not in doubled]
        self.slots, self.stride, self.num_doubled = slots, stride, len(doubled)
        self.branches: list[SeparableConv] = [u.part for u in ordered]  # type: ignore[misc]
        self.slot_of = [u.slot for u in ordered]
        self.places = [ONE if u.place is None else u.place for u in ordered]
        self.firsts = [b.first for b in self.branches[: self.num_doubled] if b.first is not None]
        self.taps: list[SeparableConv] = self.firsts + self.branches[self.num_doubled :]
        self.pooled_uses = [u for u in uses if isinstance(u.part, Pooled)]
        self.poolings: list[Pooling] = []
        self.pooling_norms: list[list[Any]] = []
        for use in self.pooled_uses:
            assert isinstance(use.part, Pooled)
            if use.part.pooling not in self.poolings:
                self.poolings.append(use.part.pooling)
                self.pooling_norms.append([])
            self.pooling_norms[self.poolings.index(use.part.pooling)].append(use.part.norm)
        for norms in self.pooling_norms:
            alike = all((norm is None) == (norms[0] is None) for norm in norms)
            assert alike, "a pooling of a state is normed on all edges or on none"

    @cached_property
    def pools(self) -> list[Pooling]:
        """The poolings that are needed."""
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

    @cached_property
    def first_taps(self) -> Numbers:
        """Dilations, offsets and first rows of the convolutions of the state, and the stride."""
        return _numbers(self.taps, self.stride)

    @cached_property
    def second_taps(self) -> Numbers:
        """Those of the second convolutions."""
        second = self.branches[: self.num_doubled]
        return Numbers([1] * len(second), [0] * len(second), [b.first_row for b in second], 1)

    def weights(self, x: Tensor, parameters: Sequence[Any]) -> tuple[Weights, Weights]:
        """The weights of the convolutions of the state and of the second ones, of `parameters`.

        Taps are empty for pixels as they are.
        """
        nothing, given = x.new_empty(0), iter(parameters[: self.num_taps])
        taps = [nothing if b.taps is None else next(given) for b in self.convolutions]
        pointwise = list(parameters[self.num_taps :][: len(taps)])
        num = len(self.taps)
        return Weights(taps[:num], pointwise[:num]), Weights(taps[num:], pointwise[num:])

    @cached_property
    def rows_of_firsts(self) -> Rows:
        """The norms of the firsts."""
        num = self.num_doubled
        return Rows(list(range(num)), [ONE] * num, list(range(num)))

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
        for use in self.pooled_uses:
            assert isinstance(use.part, Pooled)
            at = (
                len(self.branches)
                + use.slot * len(self.poolings)
                + self.poolings.index(use.part.pooling)
            )
            places[at] = ONE if use.place is None else use.place
        return Rows(row_of, places, slot_of)

    @cached_property
    def apart(self) -> list[tuple[SourcePlan, list[int]]]:
        """Plans of the linear parts, of branches, and of those with a `first`, each with its slots.

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

    def folded_firsts(self, backend: Any, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
        """s₁, bias₁, m and 1/σ of the norms of the firsts; the moments begin with theirs."""
        rows, affine = self.rows_of_firsts, affine_of(self.firsts, 0)
        folded: tuple[Tensor, ...] = backend.fold(
            mean, var, rows.row_of, *affine, None, rows.places, rows.slot_of, self.num_doubled, EPS
        )
        return folded

    def split(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the branches `[n, C]` and of the poolings `[slots, Q, C]`."""
        num = len(self.branches)
        return factors[:num], factors[num:].view(self.slots, len(self.poolings), factors.shape[1])

    @cached_property
    def followers(self) -> tuple[list[Any], list[int], list[int], list[int]]:
        """The norms, the row of the moments that each follows, and from and to which channel."""
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
        return norms, rows, first, last

    def follow(self, backend: Any, mean: Tensor, var: Tensor, pixels: int) -> None:
        """The running moments of all norms follow those of a batch of P `pixels`."""
        norms, *where = self.followers
        buffers = [norm._buffers for norm in norms]  # a module's own look-up is slow
        running = [[held[name] for held in buffers] for name in ("running_mean", "running_var")]
        backend.follow(*running, mean, var, *where, pixels / max(1, pixels - 1), MOMENTUM)

    def running_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The running moments in the place of those of a batch."""
        found = []
        for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
            parts = []
            if self.convolutions:
                given = [getattr(b.norm, name) for b in self.convolutions]
                parts.append(stacked(self.convolutions, given, value))
            if self.normed:
                pooled = [x.new_full((x.shape[-1],), value)] * len(POOLS)
                for pooling, norms in zip(self.poolings, self.pooling_norms, strict=True):
                    if norms[0] is not None:
                        pooled[POOLS.index(pooling)] = getattr(norms[0], name)
                parts.append(torch.stack(pooled))
            found.append(torch.cat(parts) if parts else x.new_empty(0, x.shape[-1]))
        return found[0], found[1]


def _numbers(convolutions: list[SeparableConv], stride: int) -> Numbers:
    return Numbers(
        [b.dilation for b in convolutions],
        [b.offset for b in convolutions],
        [b.first_row for b in convolutions],
        stride,
    )


def affine_of(branches: list[SeparableConv], others: int) -> tuple[Tensor | None, Tensor | None]:
    """Weights and biases of the norms of branches, then ones and zeros for `others`, `[n, C]` each.

    None where no branch has them.
    """
    if all(b.norm.weight is None for b in branches):
        return None, None
    found = []
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        given = [getattr(b.norm, name) for b in branches]
        size = branches[0].channels
        like = next(x for x in given if x is not None)
        rows = [like.new_full((size,), value) if x is None else x for x in given]
        found.append(F.pad(stacked(branches, rows), (0, 0, 0, others), value=value))
    return found[0], found[1]
