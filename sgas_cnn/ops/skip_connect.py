"""The skip: x, and where the stride is 2 a factorized reduction, which halves the image.

    x    or    BN([W x₀, W' x₁]),  x₀ = R(x) at even rows and columns, x₁ = R(x) at odd ones

R is ReLU; W and W' give half of the channels each. The odd pixels of an image with an odd side end
in zeros (the authors' form takes even sides alone).
Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.fused.parts import Part, Pooled, Pooling, SeparableConv
from sgas_cnn.ops.layers import BatchNorm, conv, even_pixels, odd_pixels
from sgas_cnn.ops.operation import Operation


class SkipConnect(Operation):
    """x."""

    skips = True

    def forward(self, x: Tensor) -> Tensor:
        """The state `[B, C, H, W]`."""
        return x

    def parts(self) -> Sequence[Part]:
        """The state."""
        return (Pooled(Pooling.NONE),)


class FactorizedReduce(Operation):
    """BN([W x₀, W' x₁]) with the even and the odd pixels of R(x)."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(channels, stride, affine)
        self.even = conv(channels, channels // 2)
        self.odd = conv(channels, channels // 2)
        self.norm = BatchNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H/2, W/2]`."""
        h = F.relu(x)
        halves = self.even(even_pixels(h)), self.odd(odd_pixels(h))
        return self.norm(torch.cat(halves, dim=1))

    def parts(self) -> Sequence[Part]:
        """Even and odd pixels, each with half of the channels."""
        half = self.even.out_channels
        return (
            SeparableConv(None, self.even, self.norm),
            SeparableConv(None, self.odd, self.norm, offset=1, first_row=half),
        )


def skip_connect(channels: int, stride: int, affine: bool) -> Operation:
    """The skip of a stride."""
    return (SkipConnect if stride == 1 else FactorizedReduce)(channels, stride, affine)
