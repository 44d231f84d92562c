"""What the kernels over columns share: how rows are split into strips, and sums over these.

A program sums the columns of one strip of rows, tile by tile; another adds the strips. No sum
depends on who comes first. Dimensions: N rows, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

STRIPS = 128  # most strips of rows: about as many programs as a large GPU runs at a time
TILE = 2048  # numbers of a tile, of four warps
COLUMNS = 128  # most columns of a tile, where each column is computed by itself
TOGETHER = 32  # strips that are added at a time


@triton.jit
def rows_of_tile(strip, steps, step, ROWS: tl.constexpr):
    """The numbers of the rows of a strip's tile, int64 `[ROWS]`."""
    return (strip.to(tl.int64) * steps + step) * ROWS + tl.arange(0, ROWS)


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
    """How N rows of some columns are split: `count` strips of `steps` tiles `[rows, columns]`."""

    count: int
    steps: int
    rows: int
    columns: int

    @classmethod
    def of(cls, num_rows: int, width: int, whole: bool = False, most: int = STRIPS) -> Strips:
        """The strips for rows of `width` columns; `whole`: a tile holds all of them."""
        columns = triton.next_power_of_2(max(width, 1))
        if not whole:
            columns = min(columns, COLUMNS)
        rows = max(1, min(TILE // columns, triton.next_power_of_2(max(num_rows, 1))))
        steps = max(1, triton.cdiv(num_rows, rows * most))
        return cls(triton.cdiv(num_rows, rows * steps), steps, rows, columns)

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments that every kernel takes."""
        accumulates = tl.float64 if dtype == torch.float64 else tl.float32
        return {"ACC": accumulates, "ROWS": self.rows, "COLUMNS": self.columns}

    def blocks(self, width: int) -> int:
        """How many tiles side by side have all columns."""
        return triton.cdiv(width, self.columns)


def row_stride(x: Tensor) -> int:
    """The stride of the rows of `[N, D]`, whose columns lie side by side."""
    return x.stride(0) if len(x) > 1 else x.shape[1]


def side_by_side(x: Tensor) -> Tensor:
    """The tensor, copied where its columns do not lie side by side."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
