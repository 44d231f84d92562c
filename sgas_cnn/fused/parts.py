"""The parts that fused operations are made of.

An operation whose `Operation.parts` answers with these is evaluated together with all others on its
state. They hold modules, not tensors, so that they stay true when a network moves to a device.
Dimensions: C channels, k × k taps, S the stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Form(Enum):
    """What a linear part multiplies: the state, or one of its poolings of 3 × 3 pixels."""

    LARGEST = "largest"
    AVERAGE = "average"
    STATE = "state"

    @property
    def reads_state(self) -> bool:
        """True for the state itself."""
        return self is Form.STATE


@dataclass(frozen=True)
class Linear:
    """The form of the state, or its BN; the norm (a `BatchNorm`) has no weight and bias."""

    form: Form
    norm: nn.Module | None = None


@dataclass(frozen=True)
class Branch:
    """BN(W * (taps * R(x))), or with `first`, R(first(x)) in the place of R(x).

    `taps` is a depthwise convolution; without, the pixels (S h + offset, S w + offset) are taken as
    they are. `pointwise` `[rows, C, 1, 1]` gives the channels from `first_row` on, and `norm`, a
    `BatchNorm`, treats these.
    """

    taps: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.Module
    dilation: int = 1
    offset: int = 0
    first_row: int = 0
    first: Branch | None = None

    @cached_property
    def rows(self) -> slice:
        """The channels that it gives."""
        return slice(self.first_row, self.first_row + self.pointwise.out_channels)

    @property
    def channels(self) -> int:
        """C."""
        return self.pointwise.in_channels

    @cached_property
    def whole(self) -> bool:
        """Whether it gives all C channels."""
        return self.pointwise.out_channels == self.pointwise.in_channels

    def own_rows(self, x: Tensor) -> Tensor:
        """`x` `[C]` with zeros in the channels that this branch does not give."""
        return x if self.whole else self.filled(x[self.rows])

    def filled(self, rows: Tensor, value: float = 0.0) -> Tensor:
        """`rows`, along dimension 0 those of this branch, in C rows; `value` in the others."""
        missing = self.channels - self.rows.stop
        padding = [0, 0] * (rows.dim() - 1) + [self.first_row, missing]
        return F.pad(rows, padding, value=value)


def stacked(branches: list[Branch], tensors: list[Tensor], value: float = 0.0) -> Tensor:
    """A tensor of each branch's rows, or some of its norm's C channels, as `[n, C, …]`."""
    if all(branch.whole for branch in branches):
        return torch.stack(tensors)
    parts = [
        t if b.whole else b.filled(t[b.rows] if len(t) == b.channels else t, value)
        for b, t in zip(branches, tensors, strict=True)
    ]
    return torch.stack(parts)


Part = Linear | Branch
