"""Sizes of a depthwise convolution, and how its kernels divide the work.

Dimensions: B images, C channels, H × W pixels of the input, P × Q of the output, k × k taps. The
padding, dilation · (k // 2), keeps the size at stride 1. All images are channels-last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS = 64  # most channels of a tile
TILE = 1024  # pixels × channels of a tile


@triton.jit
def split_pixel(pixel, height, width):
    """The image, row and column of a pixel that is counted over all images."""
    column = pixel % width
    row = (pixel // width) % height
    return pixel // (width * height), row, column


@dataclass(frozen=True)
class Geometry:
    """The convolution of `shape` (B, C, H, W) with k × k taps, and its output of P × Q pixels."""

    shape: tuple[int, int, int, int]
    kernel: int
    stride: int
    dilation: int

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Geometry:
        """The convolution of `x` `[B, C, H, W]` by `weight` `[C, 1, k, k]`."""
        batch, channels, height, width = x.shape
        return cls((batch, channels, height, width), weight.shape[-1], stride, dilation)

    @property
    def output(self) -> tuple[int, int, int, int]:
        """B, C, P, Q."""
        batch, channels, height, width = self.shape
        return batch, channels, -(-height // self.stride), -(-width // self.stride)

    @property
    def sizes(self) -> tuple[int, ...]:
        """C, H, W, P, Q, as every kernel takes them."""
        return (*self.shape[1:], *self.output[2:])

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments that every kernel takes."""
        channels = min(triton.next_power_of_2(max(self.shape[1], 1)), CHANNELS)
        return {
            "KERNEL": self.kernel,
            "STRIDE": self.stride,
            "DILATION": self.dilation,
            "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
            "PIXELS": TILE // channels,
            "CHANNELS": channels,
        }


def pixel_grid(num_pixels: int, channels: int, options: Mapping[str, Any]) -> tuple[int, int]:
    """One program for each tile of pixels of all images, and each tile of channels."""
    return (
        triton.cdiv(num_pixels, options["PIXELS"]),
        triton.cdiv(channels, options["CHANNELS"]),
    )


def channels_last(x: Tensor) -> Tensor:
    """`x` `[B, C, H, W]` without gaps, channels innermost."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_images(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Channels-last images of a shape, their values not set."""
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
