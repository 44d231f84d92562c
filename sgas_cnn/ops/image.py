"""The candidate operations on images, one class each, and their table.

Source: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1, as used by
Li et al., "SGAS", CVPR 2020. R stands for ReLU, which comes before the convolution; BN for batch
norm. While searching, norms have no weight and bias, and each pooling is followed by one.

Dimensions: B images, C channels, H × W pixels, k × k taps, S the stride (1 or 2).
A new operation is a class and a line in `IMAGE_OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_cnn.fused.parts import Branch, Form, Linear, Part
from sgas_cnn.fused.projection import relu_conv, relu_conv_bias
from sgas_cnn.kernels import depthwise_conv
from sgas_cnn.ops.common import (
    BatchNorm,
    Operation,
    SourceState,
    conv,
    conv_norm,
    copy_statistics,
)


class Zero(Operation):
    """`none`: zeros. In a mixture it only takes softmax mass from the others."""

    def parts(self) -> Sequence[Part]:
        """None that add anything."""
        return ()

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Zeros `[B, C, H/S, W/S]`."""
        return torch.zeros_like(state.x[:, :, :: self.stride, :: self.stride])


class Pool(Operation):
    """The pooling `form` of the state; while searching, its BN."""

    def __init__(self, channels: int, stride: int, affine: bool, *, form: Form) -> None:
        super().__init__(channels, stride, affine)
        self.form = form
        self.norm = None if affine else BatchNorm(channels, affine=False)

    @classmethod
    def evaluate(
        cls, ops: Sequence[Any], state: SourceState, scales: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Outputs `[B, C, H/S, W/S]`; pooled and normalised once for all edges.

        The norms of these edges have always seen the same input, so one speaks for all.
        """
        first, *others = [op.norm for op in ops]
        largest = ops[0].form is Form.LARGEST
        pooled = state.max_pooled if largest else state.avg_pooled
        if first is not None:
            pooled = first(pooled)
            copy_statistics(first, others)
        return [scaled(pooled, scale) for scale in scales]

    def parts(self) -> Sequence[Part]:
        """The pooling."""
        return (Linear(self.form, self.norm),)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        return self.evaluate([self], state, [scale])[0]


class SkipConnect(Operation):
    """x."""

    skips = True

    def parts(self) -> Sequence[Part]:
        """The state."""
        return (Linear(Form.STATE),)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The state `[B, C, H, W]`."""
        return scaled(state.x, scale)


class FactorizedReduce(Operation):
    """The skip of stride 2: BN of two 1 × 1 convolutions of R(x), on even and on odd pixels.

    Each gives half of the channels. The odd pixels of an image with an odd side end in zeros (the
    authors' form takes even sides alone).
    """

    def __init__(
        self, channels: int, stride: int, affine: bool, in_channels: int | None = None
    ) -> None:
        super().__init__(channels, stride, affine)
        self.even = conv(in_channels or channels, channels // 2)
        self.odd = conv(in_channels or channels, channels // 2)
        self.norm = BatchNorm(channels, affine)

    def parts(self) -> Sequence[Part] | None:
        """Even and odd pixels, each with half of the channels; None where C changes."""
        if self.even.in_channels != self.channels:
            return None
        half = self.even.out_channels
        return (
            Branch(None, self.even, self.norm),
            Branch(None, self.odd, self.norm, offset=1, first_row=half),
        )

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H/2, W/2]` for a state of any number of channels."""
        x = state.x
        even = x[:, :, ::2, ::2]
        odd = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1::2, 1::2]
        if self.norm.at_inference and scale is None:
            weight, bias = self.norm.folded(torch.cat([self.even.weight, self.odd.weight]))
            half = self.even.out_channels
            return torch.cat(
                [
                    relu_conv_bias(even, weight[:half], bias[:half]),
                    relu_conv_bias(odd, weight[half:], bias[half:]),
                ],
                dim=1,
            )
        halves = relu_conv(even, self.even.weight), relu_conv(odd, self.odd.weight)
        return self.norm(torch.cat(halves, dim=1), scale)


def skip_connect(channels: int, stride: int, affine: bool) -> Operation:
    """The skip of a stride."""
    return (SkipConnect if stride == 1 else FactorizedReduce)(channels, stride, affine)


class SepConv(Operation):
    """Twice R, depthwise k × k, 1 × 1, BN; the first depthwise convolution has the stride.

    After Chollet, "Xception", CVPR 2017.
    """

    def __init__(self, channels: int, stride: int, affine: bool, *, kernel: int) -> None:
        super().__init__(channels, stride, affine)
        self.dw1 = depthwise(channels, kernel)
        self.pw1 = conv(channels, channels)
        self.norm1 = BatchNorm(channels, affine)
        self.dw2 = depthwise(channels, kernel)
        self.pw2 = conv(channels, channels)
        self.norm2 = BatchNorm(channels, affine)

    def parts(self) -> Sequence[Part]:
        """The second convolution, of the first."""
        first = Branch(self.dw1, self.pw1, self.norm1)
        return (Branch(self.dw2, self.pw2, self.norm2, first=first),)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        first = depthwise_conv(state.relu, self.dw1.weight, self.stride)
        h = F.relu_(self.norm1(self.pw1(first)))
        return self.norm2(self.pw2(depthwise_conv(h, self.dw2.weight)), scale)


class DilConv(Operation):
    """R, depthwise k × k of dilation 2 with the stride, 1 × 1, BN.

    After Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016.
    """

    def __init__(self, channels: int, stride: int, affine: bool, *, kernel: int) -> None:
        super().__init__(channels, stride, affine)
        self.dw = depthwise(channels, kernel)
        self.pw = conv(channels, channels)
        self.norm = BatchNorm(channels, affine)

    def parts(self) -> Sequence[Part]:
        """The convolution."""
        return (Branch(self.dw, self.pw, self.norm, dilation=2),)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        h, dilation = state.dilated_relu
        h = depthwise_conv(h, self.dw.weight, dilation=dilation)
        return state.joined(self.norm(self.pw(h), scale))


class FactorizedConv7x7(Operation):
    """R, 1 × 7 with the stride along rows, 7 × 1 with the stride along columns, BN.

    Of AmoebaNet (Real et al., AAAI 2019), full convolutions; no search offers it.
    """

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(channels, stride, affine)
        self.row = nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False)
        self.column = nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False)
        self.norm = BatchNorm(channels, affine)

    def forward(self, state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The output `[B, C, H/S, W/S]`."""
        return conv_norm(self.row(state.relu), self.column, self.norm, scale)


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """`x` `[B, C, H, W]` times `scale` `[C]`; None stands for ones."""
    return x if scale is None else x * scale.view(-1, 1, 1)


def depthwise(channels: int, kernel: int) -> nn.Conv2d:
    """The weights of a depthwise convolution; `depthwise_conv` says how they are applied."""
    return nn.Conv2d(channels, channels, kernel, groups=channels, bias=False)


IMAGE_OPERATIONS: dict[str, Callable[[int, int, bool], Operation]] = {
    "none": Zero,
    "max_pool_3x3": partial(Pool, form=Form.LARGEST),
    "avg_pool_3x3": partial(Pool, form=Form.AVERAGE),
    "skip_connect": skip_connect,
    "sep_conv_3x3": partial(SepConv, kernel=3),
    "sep_conv_5x5": partial(SepConv, kernel=5),
    "dil_conv_3x3": partial(DilConv, kernel=3),
    "dil_conv_5x5": partial(DilConv, kernel=5),
    "sep_conv_7x7": partial(SepConv, kernel=7),
    "conv_7x1_1x7": FactorizedConv7x7,
}
