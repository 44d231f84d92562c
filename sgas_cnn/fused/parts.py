"""The parts that fused operations are made of: poolings of the state, and separable convolutions.

An operation whose `Operation.parts` answers with these runs together with all others on its state.
They hold modules, not tensors, so that they stay true when a network moves to a device.
Dimensions: C channels, k × k taps, S the stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5  # of all norms
MOMENTUM = 0.1


class Pooling(Enum):
    """A pooling of 3 × 3 pixels, those outside the image left out; NONE is the state itself."""

    MAX = "max"
    AVERAGE = "average"
    NONE = "none"


@dataclass(frozen=True)
class Pooled:
    """A pooling of the state, or its BN; the norm (a `BatchNorm`) has no weight and bias."""

    pooling: Pooling
    norm: nn.Module | None = None


@dataclass(frozen=True)
class SeparableConv:
    """BN(W (taps * R(x))), or with `first`, R(first(x)) in the place of R(x).

    `taps` is a depthwise convolution; without, the pixels (S h + offset, S w + offset) are taken as
    they are. `pointwise` `[rows, C, 1, 1]` gives the channels from `first_row` on, and `norm`, a
    `BatchNorm`, treats these. The stride is that of the edge, in the first of two.
    A dense one has no taps of channels but a `pointwise` `[C, C, 3, 3]`; it has stride 1 and reads
    the state.
    """

    taps: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.Module
    offset: int = 0
    first_row: int = 0
    first: SeparableConv | None = None

    @property
    def dilation(self) -> int:
        """The dilation of the taps."""
        return 1 if self.taps is None else self.taps.dilation[0]

    @cached_property
    def rows(self) -> slice:
        """The channels that it gives."""
        return slice(self.first_row, self.first_row + self.pointwise.out_channels)

    @property
    def channels(self) -> int:
        """C."""
        return self.pointwise.in_channels

    @property
    def is_dense(self) -> bool:
        """Whether its weight has taps for each pair of channels."""
        return self.pointwise.kernel_size != (1, 1)

    @cached_property
    def whole(self) -> bool:
        """Whether it gives all C channels."""
        return self.pointwise.out_channels == self.pointwise.in_channels

    def own_rows(self, x: Tensor) -> Tensor:
        """`x` `[C]` with zeros in the channels that it does not give."""
        return x if self.whole else self.filled(x[self.rows])

    def filled(self, rows: Tensor, value: float = 0.0) -> Tensor:
        """`rows`, along dimension 0 the channels that it gives, as C; `value` in the others."""
        missing = self.channels - self.rows.stop
        padding = [0, 0] * (rows.dim() - 1) + [self.first_row, missing]
        return F.pad(rows, padding, value=value)


Part = Pooled | SeparableConv


def stacked(convolutions: list[SeparableConv], tensors: list[Tensor], value: float = 0.0) -> Tensor:
    """A tensor of each convolution's rows, or some of its norm's C channels, as `[n, C, …]`."""
    if all(convolution.whole for convolution in convolutions):
        return torch.stack(tensors)
    padded = [
        t if c.whole else c.filled(t[c.rows] if len(t) == c.channels else t, value)
        for c, t in zip(convolutions, tensors, strict=True)
    ]
    return torch.stack(padded)
