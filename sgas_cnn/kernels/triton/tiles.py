"""How P pixels of C channels are divided among programs, and the type of sums.

Dimensions: N images, P pixels of all images together, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

CHANNELS = 64  # most channels of a tile
TILE = 1024  # pixels × channels of a tile
STRIPS = 64  # most programs that share a sum over all pixels


@dataclass(frozen=True)
class Tiles:
    """`count` programs go through `turns` tiles each, for each of `blocks` parts of the channels.

    A tile is `pixels` × `channels`.
    """

    count: int
    turns: int
    pixels: int
    channels: int
    blocks: int

    @classmethod
    def of(cls, num_pixels: int, channels: int, most: int | None = None) -> Tiles:
        """The tiles of an image; `most`: how many programs there may be, else one a tile."""
        width = min(triton.next_power_of_2(max(channels, 1)), CHANNELS)
        pixels = min(max(TILE // width, 1), triton.next_power_of_2(max(num_pixels, 1)))
        tiles = triton.cdiv(num_pixels, pixels)
        turns = 1 if most is None else max(1, triton.cdiv(tiles, most))
        return cls(triton.cdiv(tiles, turns), turns, pixels, width, triton.cdiv(channels, width))

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments that every kernel takes."""
        return {"ACC": accumulates(dtype), "PIXELS": self.pixels, "CHANNELS": self.channels}


def accumulates(dtype: torch.dtype) -> Any:
    """Triton's type of sums of numbers of type `dtype`: float64 of float64, else float32."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def split_pixel(pixel, height, width):
    """The image, row and column of a pixel that is counted over all images."""
    column = pixel % width
    row = (pixel // width) % height
    return pixel // (width * height), row, column


@triton.jit
def tile_of(strip, turns, turn, num_pixels, PIXELS: tl.constexpr):
    """The pixels of a program's tile, int32 `[PIXELS]`, and which of them are there."""
    pixel = (strip * turns + turn) * PIXELS + tl.arange(0, PIXELS)
    return pixel, pixel < num_pixels


@triton.jit
def places_of(pixel, channel, channels):
    """Where channels of pixels stand in an image, int64 `[PIXELS, CHANNELS]`."""
    return pixel.to(tl.int64)[:, None] * channels + channel[None, :]


@triton.jit
def relu(x):
    """max(x, 0); NaN of NaN, as in torch, where a compiled tl.maximum would give 0."""
    return tl.where(x <= 0, 0.0, x)
