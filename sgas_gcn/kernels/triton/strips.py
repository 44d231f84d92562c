"""What the kernels over columns share: how rows are split into strips, and sums over these.

A program sums the columns of one strip of rows, tile by tile; another adds the strips. No sum
depends on who comes first. Dimensions: N rows, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

STRIPS = 128  # most strips of rows: about as many programs as a large GPU runs at a time
TILE = 2048  # numbers of a tile, of four warps
COLUMNS = 128  # most columns of a tile, where each column is computed by itself
THREADS = 128  # of four warps
TOGETHER = 32  # strips that are added at a time


def power_of_two(number: int) -> int:
    """The smallest power of 2 that is at least `number`; 1 for 0. Triton's own takes 5 µs."""
    return 1 << max(number - 1, 0).bit_length()


def ceil_div(number: int, by: int) -> int:
    """`number` / `by`, rounded up."""
    return -(-number // by)


@triton.jit
def rows_of_tile(strip, tiles, tile, ROWS: tl.constexpr):
    """The numbers of the rows of a strip's tile, int64 `[ROWS]`."""
    return (strip.to(tl.int64) * tiles + tile) * ROWS + tl.arange(0, ROWS)


@triton.jit
def added_strips(partial, strips, width, column, inside, TOGETHER: tl.constexpr):
    """The two sums of some columns over all strips, from `partial` `[strips, 2, width]`."""
    first = tl.zeros_like(column).to(tl.float64)
    second = tl.zeros_like(column).to(tl.float64)
    for start in range(0, strips, TOGETHER):
        strip = start + tl.arange(0, TOGETHER)
        known = (strip < strips)[:, None] & inside[None, :]
        place = strip[:, None] * (2 * width) + column[None, :]
        first += tl.sum(tl.load(partial + place, mask=known, other=0), axis=0)
        second += tl.sum(tl.load(partial + place + width, mask=known, other=0), axis=0)
    return first, second


@dataclass(frozen=True)
class Strips:
    """How N rows of some columns are split: `count` strips of `tiles` tiles `[rows, columns]`."""

    count: int
    tiles: int
    rows: int
    columns: int

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(num_rows: int, width: int, whole: bool = False, most: int = STRIPS) -> Strips:
        """The strips for rows of `width` columns; `whole`: a tile holds all of them."""
        columns = power_of_two(width)
        if not whole:
            columns = min(columns, COLUMNS)
        # At least a number for each thread: else several have the same, and write it in turn.
        rows = max(1, min(TILE // columns, max(power_of_two(num_rows), THREADS // columns)))
        tiles = max(1, ceil_div(num_rows, rows * most))
        return Strips(ceil_div(num_rows, rows * tiles), tiles, rows, columns)

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments that every kernel takes."""
        accumulates = tl.float64 if dtype == torch.float64 else tl.float32
        return {"ACC": accumulates, "ROWS": self.rows, "COLUMNS": self.columns}

    def blocks(self, width: int) -> int:
        """How many tiles side by side have all columns."""
        return ceil_div(width, self.columns)


def row_stride(x: Tensor) -> int:
    """The stride of the rows of `[N, D]`, whose columns lie side by side."""
    return x.stride(0) if len(x) > 1 else x.shape[1]


def side_by_side(x: Tensor) -> Tensor:
    """The tensor, copied where its columns do not lie side by side."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
