"""The plain supernet and derived network of images, as in DARTS's own model files.

Operations of Liu et al., "DARTS", ICLR 2019, section 3.1: ReLU, convolution, batch norm, in torch's
default layout. Dimensions: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.common import NUM_INPUTS, Cell, CellNetwork, Plan, layers

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class Zero(nn.Module):
    """`none`: zeros."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros `[B, C, H / stride, W / stride]`."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    """BN of two 1 × 1 convolutions of R(x), on even and on odd pixels."""

    def __init__(self, in_channels: int, channels: int, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[B, C, H / 2, W / 2]`."""
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def conv(in_channels: int, channels: int) -> nn.Conv2d:
    """A 1 × 1 convolution."""
    return nn.Conv2d(in_channels, channels, 1, bias=False)


def depthwise(channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    """A depthwise convolution that keeps the size at stride 1."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(
        channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
    )


def relu_conv_norm(in_channels: int, channels: int, affine: bool) -> nn.Sequential:
    """BN(W R(x))."""
    norm = nn.BatchNorm2d(channels, affine=affine)
    return layers(act=nn.ReLU(), lin=conv(in_channels, channels), norm=norm)


def sep_conv(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """Twice R, depthwise, 1 × 1, BN."""
    return layers(
        act1=nn.ReLU(),
        dw1=depthwise(channels, kernel, stride),
        pw1=conv(channels, channels),
        norm1=nn.BatchNorm2d(channels, affine=affine),
        act2=nn.ReLU(),
        dw2=depthwise(channels, kernel, 1),
        pw2=conv(channels, channels),
        norm2=nn.BatchNorm2d(channels, affine=affine),
    )


def dil_conv(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """R, depthwise of dilation 2, 1 × 1, BN."""
    return layers(
        act=nn.ReLU(),
        dw=depthwise(channels, kernel, stride, dilation=2),
        pw=conv(channels, channels),
        norm=nn.BatchNorm2d(channels, affine=affine),
    )


def pool(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """3 × 3 pooling; in a search (not `affine`) with a norm after it."""
    pooling = (
        nn.MaxPool2d(3, stride, padding=1)
        if name == "max_pool_3x3"
        else nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    )
    if affine:
        return pooling
    return layers(pool=pooling, norm=nn.BatchNorm2d(channels, affine=False))


def make_op(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """The operation of a name; `affine` as in a derived network."""
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    if name.endswith("pool_3x3"):
        return pool(name, channels, stride, affine)
    kernel = int(name[-1])
    make = sep_conv if name.startswith("sep_conv") else dil_conv
    return make(channels, kernel, stride, affine)


class PlainImage(CellNetwork):
    """Logits `[B, num_classes]` for images `[B, 3, H, W]`; `plans` by kind, normal and reduce."""

    def __init__(
        self,
        plans: Mapping[str, Plan],
        *,
        search: bool,
        num_classes: int = 10,
        channels: int = 16,
        num_cells: int = 8,
    ) -> None:
        super().__init__(plans, search)
        stem = 3 * channels
        self.stem = layers(
            lin=nn.Conv2d(3, stem, 3, padding=1, bias=False), norm=nn.BatchNorm2d(stem)
        )
        self.cells = nn.ModuleList()
        before, last, reduced = stem, stem, False
        for number in range(num_cells):
            reduces = number in (num_cells // 3, 2 * num_cells // 3)
            channels *= 2 if reduces else 1
            kind = "reduce" if reduces else "normal"
            self.cells.append(
                make_cell(plans[kind], kind, (before, last), channels, reduced, affine=not search)
            )
            before, last = last, len(plans[kind].concat) * channels
            reduced = reduces
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the mean over the last cell's pixels."""
        stem = self.stem(images)
        last = self.run_cells(stem, stem, lambda cell, features: ())[-1]
        return cast("Tensor", self.classifier(last.mean(dim=(2, 3))))


def make_cell(
    plan: Plan,
    kind: str,
    in_channels: tuple[int, int],
    channels: int,
    after_reduction: bool,
    affine: bool,
) -> Cell:
    """A cell; a reducing one has stride 2 on the edges that leave its inputs."""
    before, last = in_channels
    pre0: nn.Module = (
        FactorizedReduce(before, channels, affine)
        if after_reduction
        else relu_conv_norm(before, channels, affine)
    )

    def make(name: str, source: int) -> nn.Module:
        stride = 2 if kind == "reduce" and source < NUM_INPUTS else 1
        return make_op(name, channels, stride, affine)

    return Cell(pre0, relu_conv_norm(last, channels, affine), plan, make, kind)
