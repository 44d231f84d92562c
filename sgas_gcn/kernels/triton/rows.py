"""What the kernels over compressed rows share: bounds of a row, tile sizes, the type of sums.

Dimensions: N rows, E edges, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.strips import ceil_div, power_of_two

CHANNELS = 128  # most channels of a tile, where each channel is computed by itself
EDGES = 16  # most edges of a tile
TILE = 1024  # numbers that one warp holds in registers (32 a thread) beside its sums


@triton.jit
def row_bounds(offsets, row, num_rows, num_edges):
    """First edge of a row and the one after its last; `offsets` are `[N]` or `[N + 1]`."""
    first = tl.load(offsets + row)
    last = tl.load(offsets + row + 1, mask=row + 1 < num_rows, other=num_edges)
    return first, last.to(first.dtype)


@triton.jit
def edge_tile(index, edge, last, channel, width):
    """Of the edges `edge` of a row: which are there, and where their nodes' channels stand.

    `there` and `known` are masks `[EDGES]` and `[EDGES, CHANNELS]`, `place` is of `known`'s shape.
    """
    there = edge < last
    node = tl.load(index + edge, mask=there, other=0).to(tl.int64)
    known = there[:, None] & (channel < width)[None, :]
    return there, known, node[:, None] * width + channel[None, :]


@dataclass(frozen=True)
class Tile:
    """Edges × channels that a program works on at a time, and the warps that it takes."""

    edges: int
    channels: int
    num_warps: int

    @classmethod
    def of(cls, width: int, whole: bool = False) -> Tile:
        """The tile for rows of `width` channels; `whole`: one that holds all of them."""
        channels = power_of_two(width)
        if not whole:
            channels = min(channels, CHANNELS)
        edges = max(1, min(EDGES, TILE // channels))
        return cls(edges, channels, max(1, min(8, channels // TILE)))

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments that every kernel takes."""
        return {
            "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
            "EDGES": self.edges,
            "CHANNELS": self.channels,
            "num_warps": self.num_warps,
        }


def grid(num_rows: int, width: int, tile: Tile) -> tuple[int, int]:
    """One program for each row and each tile of its channels."""
    return num_rows, ceil_div(width, tile.channels)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of sums of numbers of type `dtype`: float64 of float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def contiguous(*tensors: Tensor) -> list[Tensor]:
    """The tensors, each without gaps."""
    return [tensor.contiguous() for tensor in tensors]
