"""A full convolution of 7 × 7 pixels in two factors; no search offers it.

    BN(V * (W * R(x)))

R is ReLU, W has 1 × 7 taps with the stride along rows, V 7 × 1 taps with the stride along columns.
Source: AmoebaNet, Real et al., "Regularized Evolution for Image Classifier Architecture Search",
AAAI 2019.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sgas_cnn.ops.layers import BatchNorm
from sgas_cnn.ops.operation import Operation


class FactorizedConv7x7(Operation):
    """R, 1 × 7, 7 × 1, BN."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(channels, stride, affine)
        self.row = nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False)
        self.column = nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False)
        self.norm = BatchNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        return self.norm(self.column(self.row(F.relu(x))))
