"""A separable convolution of k × k taps with dilation 2.

    BN(W (taps * R(x)))

R is ReLU, * a depthwise convolution of dilation 2 with the stride, W a 1 × 1 convolution.
Sources: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1; after Yu
and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.fused.parts import Part, SeparableConv
from sgas_cnn.ops.layers import BatchNorm, conv, depthwise
from sgas_cnn.ops.operation import Operation


class DilConv(Operation):
    """R, depthwise k × k of dilation 2, 1 × 1, BN."""

    def __init__(self, channels: int, stride: int, affine: bool, *, kernel: int) -> None:
        super().__init__(channels, stride, affine)
        self.kernel = kernel
        self.dw = depthwise(channels, kernel, stride, dilation=2)
        self.pw = conv(channels, channels)
        self.norm = BatchNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        return self.norm(self.pw(self.dw(F.relu(x))))

    def parts(self) -> Sequence[Part]:
        """The convolution."""
        return (SeparableConv(self.dw, self.pw, self.norm),)
