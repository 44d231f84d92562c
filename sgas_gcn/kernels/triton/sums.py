"""Sum over the edges of each row; its gradient is the same sum over the edges sorted by source.

Dimensions: N rows, E edges, D channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.rows import Tile, edge_tile, grid, row_bounds


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _sum_kernel(
    x,
    offsets,
    index,
    out,
    num_rows,
    num_edges,
    width,
    ACC: tl.constexpr,
    EDGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < width
    first, last = row_bounds(offsets, row, num_rows, num_edges)
    total = tl.zeros([CHANNELS], ACC)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        _, known, place = edge_tile(index, edge, last, channel, width)
        value = tl.load(x + place, mask=known, other=0)
        total += tl.sum(value.to(ACC), axis=0)
    tl.store(out + row.to(tl.int64) * width + channel, total, mask=inside)


def row_sum(x: Tensor, offsets: Tensor, index: Tensor) -> Tensor:
    """Sums `[N, D]` of the rows of `x` `[N, D]` that `index` int `[E]` names, run by run."""
    x = x.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        num_rows, width = x.shape
        tile = Tile.of(width)
        _sum_kernel[grid(num_rows, width, tile)](
            x, offsets, index, out, num_rows, index.numel(), width, **tile.options(x.dtype)
        )
    return out
