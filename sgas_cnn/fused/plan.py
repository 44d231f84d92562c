"""SourcePlan: the parts of all operations on the edges that leave one state, in order for fusion.

A slot is the output of an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sgas_cnn.fused.parts import Branch, Form, Linear, Part, stacked

ONE, ZERO = 0, 1  # places of the constants before the weights


@dataclass(frozen=True)
class Use:
    """One part on an edge: its slot, and the place of its weight (None: the weight is 1)."""

    slot: int
    place: int | None
    part: Part


class Tables(NamedTuple):
    """Places of the scales of branches `[n]` and of linear parts `[slots · forms]`; the slot of
    each branch `[n]`."""

    branches: Tensor
    linear: Tensor
    slots: Tensor


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


class SourcePlan:
    """Everything about a source state that does not change until the next decision.

    `branches` come with those that have a `first` before the direct ones. `taps` are what reads the
    state itself: the firsts, then the direct ones.
    """

    def __init__(self, uses: Sequence[Use], slots: int, stride: int) -> None:
        branches = [u for u in uses if isinstance(u.part, Branch)]
        doubled = [u for u in branches if u.part.first is not None]  # type: ignore[union-attr]
        ordered = doubled + [u for u in branches if u not in doubled]
        self.slots, self.stride, self.num_doubled = slots, stride, len(doubled)
        self.branches: list[Branch] = [u.part for u in ordered]  # type: ignore[misc]
        self.slot_of = [u.slot for u in ordered]
        self.places = [u.place for u in ordered]
        self.firsts = [b.first for b in self.branches[: self.num_doubled] if b.first is not None]
        self.taps: list[Branch] = self.firsts + self.branches[self.num_doubled :]
        self.linear_uses = [u for u in uses if isinstance(u.part, Linear)]
        self.forms: list[Form] = []
        self.form_norms: list[list[Any]] = []
        for use in self.linear_uses:
            assert isinstance(use.part, Linear)
            if use.part.form not in self.forms:
                self.forms.append(use.part.form)
                self.form_norms.append([])
            self.form_norms[self.forms.index(use.part.form)].append(use.part.norm)
        for norms in self.form_norms:
            alike = all((norm is None) == (norms[0] is None) for norm in norms)
            assert alike, "a form of a state is normed on all edges or on none"
        self._tables: dict[torch.device, Tables] = {}

    @cached_property
    def pools(self) -> list[Form]:
        """The poolings that are needed."""
        return [form for form in self.forms if form is not Form.STATE]

    @cached_property
    def normed(self) -> bool:
        """Whether norms follow the poolings."""
        return any(norms[0] is not None for norms in self.form_norms)

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
    def convolutions(self) -> list[Branch]:
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

    def tables(self, device: torch.device) -> Tables:
        """Where everything stands, as tensors on a device."""
        if device not in self._tables:
            linear = [ZERO] * (self.slots * len(self.forms))
            for use in self.linear_uses:
                assert isinstance(use.part, Linear)
                at = use.slot * len(self.forms) + self.forms.index(use.part.form)
                linear[at] = _place(use.place)
            found = ([_place(p) for p in self.places], linear, self.slot_of)
            self._tables[device] = Tables(
                *(torch.tensor(numbers, dtype=torch.int64, device=device) for numbers in found)
            )
        return self._tables[device]


def _place(place: int | None) -> int:
    """The place among the constants and the weights."""
    return ONE if place is None else place + 2


def _numbers(convolutions: list[Branch], stride: int) -> Numbers:
    return Numbers(
        [b.dilation for b in convolutions],
        [b.offset for b in convolutions],
        [b.first_row for b in convolutions],
        stride,
    )


def running_moments(branches: list[Branch]) -> tuple[Tensor, Tensor]:
    """The running means and variances of the norms of branches, `[n, C]` each."""
    return (
        stacked(branches, [b.norm.running_mean for b in branches]),  # type: ignore[misc]
        stacked(branches, [b.norm.running_var for b in branches], 1.0),  # type: ignore[misc]
    )


def affine_of(branches: list[Branch]) -> tuple[Tensor, Tensor] | None:
    """Weights and biases of the norms of branches, `[n, C]` each; None where all have none."""
    if all(b.norm.weight is None for b in branches):
        return None
    found = []
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        given = [getattr(b.norm, name) for b in branches]
        size = branches[0].channels
        like = next(x for x in given if x is not None)
        rows = [like.new_full((size,), value) if x is None else x for x in given]
        found.append(stacked(branches, rows))
    return found[0], found[1]
