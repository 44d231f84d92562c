"""A full convolution of k × k taps.

    BN(W * R(x))

R is ReLU. Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural
Architecture Search", ICLR 2020, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.fused.parts import Part, SeparableConv
from sgas_cnn.ops.layers import BatchNorm, conv
from sgas_cnn.ops.operation import Operation


class NorConv(Operation):
    """R, k × k, BN; of stride 1 alone, as all edges of its space."""

    def __init__(self, channels: int, stride: int, affine: bool, *, kernel: int) -> None:
        super().__init__(channels, stride, affine)
        self.kernel = kernel
        self.lin = conv(channels, channels, kernel)
        self.norm = BatchNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H, W]`."""
        return self.norm(self.lin(F.relu(x)))

    def parts(self) -> Sequence[Part]:
        """The convolution of the pixels, without taps of their own."""
        return (SeparableConv(None, self.lin, self.norm),)
