"""The candidate operations of NAS-Bench-201, one class each, and their table.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search", ICLR 2020, section 2.1. R stands for ReLU, BN for batch norm; poolings have no norm.
Dimensions: B images, C channels, H × W pixels. All edges have stride 1.
A new operation is a class and a line in `NASBENCH201_TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from sgas_cnn.fused.parts import Branch, Form, Linear, Part
from sgas_cnn.ops.common import BatchNorm, Operation, SourceState, conv, conv_norm
from sgas_cnn.ops.image import SkipConnect, Zero, scaled


class NorConv(Operation):
    """BN(W * R(x)) with a full convolution of k × k taps."""

    def __init__(self, channels: int, stride: int, affine: bool, *, kernel: int) -> None:
        super().__init__(channels, stride, affine)
        self.lin = conv(channels, channels, kernel)
        self.norm = BatchNorm(channels, affine)

    def parts(self) -> Sequence[Part] | None:
        """The pixels and their 1 × 1 convolution; None with more taps."""
        if self.lin.kernel_size != (1, 1):
            return None
        return (Branch(None, self.lin, self.norm),)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H, W]`."""
        return conv_norm(state.relu, self.lin, self.norm, scale)


class AvgPool(Operation):
    """The mean of 3 × 3 pixels, those outside the image left out."""

    def parts(self) -> Sequence[Part]:
        """The pooling."""
        return (Linear(Form.AVERAGE),)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H, W]`."""
        return scaled(state.avg_pooled, scale)


NASBENCH201_TABLE: dict[str, Callable[[int, int, bool], Operation]] = {
    "none": Zero,
    "skip_connect": SkipConnect,
    "nor_conv_1x1": partial(NorConv, kernel=1),
    "nor_conv_3x3": partial(NorConv, kernel=3),
    "avg_pool_3x3": AvgPool,
}
