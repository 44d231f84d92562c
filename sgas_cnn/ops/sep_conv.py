"""SeparableConv convolutions of k × k taps, twice.

    BN₂(W₂ (taps₂ * R(BN₁(W₁ (taps₁ * R(x))))))

R is ReLU, * a depthwise convolution, of which the first has the stride, W a 1 × 1 convolution.
Sources: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1; after
Chollet, "Xception", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.fused.parts import Part, SeparableConv
from sgas_cnn.ops.layers import BatchNorm, conv, depthwise
from sgas_cnn.ops.operation import Operation


class SepConv(Operation):
    """Twice R, depthwise k × k, 1 × 1, BN."""

    def __init__(self, channels: int, stride: int, affine: bool, *, kernel: int) -> None:
        super().__init__(channels, stride, affine)
        self.kernel = kernel
        self.dw1 = depthwise(channels, kernel, stride)
        self.pw1 = conv(channels, channels)
        self.norm1 = BatchNorm(channels, affine)
        self.dw2 = depthwise(channels, kernel)
        self.pw2 = conv(channels, channels)
        self.norm2 = BatchNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        h = self.norm1(self.pw1(self.dw1(F.relu(x))))
        return self.norm2(self.pw2(self.dw2(F.relu(h))))

    def parts(self) -> Sequence[Part]:
        """The second convolution, of the first."""
        first = SeparableConv(self.dw1, self.pw1, self.norm1)
        return (SeparableConv(self.dw2, self.pw2, self.norm2, first=first),)
