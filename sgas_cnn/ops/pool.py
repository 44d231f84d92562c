"""Pooling of 3 × 3 pixels, those outside the image left out: the largest, or the mean.

    BN(max of x over 3 × 3)    BN(mean of x over 3 × 3)

The norm, without weight and bias, is there in a search alone; NAS-Bench-201 has none at all.
Sources: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1; Dong and
Yang, "NAS-Bench-201", ICLR 2020, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.fused.parts import Part, Pooled, Pooling
from sgas_cnn.kernels.torch_pool import average_pool
from sgas_cnn.ops.layers import BatchNorm
from sgas_cnn.ops.operation import Operation


class Pool(Operation):
    """A pooling of the state, the largest pixel or the mean; with `normed` its BN in a search."""

    def __init__(
        self, channels: int, stride: int, affine: bool, *, pooling: Pooling, normed: bool = True
    ) -> None:
        super().__init__(channels, stride, affine)
        self.pooling, self.normed = pooling, normed
        self.norm = BatchNorm(channels, affine=False) if normed and not affine else None

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        if self.pooling is Pooling.MAX:
            pooled = F.max_pool2d(x, 3, self.stride, padding=1)
        else:
            pooled = average_pool(x, self.stride)
        return pooled if self.norm is None else self.norm(pooled)

    def parts(self) -> Sequence[Part]:
        """The pooling."""
        return (Pooled(self.pooling, self.norm),)
