"""Maximum over the edges of each row, with the edge that had it first, and its gradient.

The edge is kept, not its source: where a row reads one node twice, the gradient goes there once.
Dimensions: N rows, E edges, D channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.rows import Tile, contiguous, edge_tile, grid, row_bounds


@triton.jit
def first_largest(value, first, best, chosen):
    """The running maxima and their edges after a tile that begins with edge `first`.

    Of equal values the lowest edge has it; a NaN is above all, as in torch. `chosen` is -1 until a
    row's first tile, whose value counts even where it is -inf.
    """
    unknown = value != value  # compiled, tl.max passes over a NaN
    lost, where = tl.max(
        unknown.to(tl.int32), axis=0, return_indices=True, return_indices_tie_break_left=True
    )
    value = tl.where(unknown, float("-inf"), value)
    top, position = tl.max(value, axis=0, return_indices=True, return_indices_tie_break_left=True)
    top = tl.where(lost > 0, float("nan"), top)
    position = tl.where(lost > 0, where, position)
    better = (top > best) | (chosen < 0) | ((lost > 0) & (best == best))
    return tl.where(better, top, best), tl.where(better, (first + position).to(tl.int32), chosen)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _max_kernel(
    x,
    offsets,
    index,
    out,
    chosen_edge,
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
    best = tl.full([CHANNELS], float("-inf"), ACC)
    chosen = tl.full([CHANNELS], -1, tl.int32)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        _, known, place = edge_tile(index, edge, last, channel, width)
        value = tl.load(x + place, mask=known, other=float("-inf")).to(ACC)
        best, chosen = first_largest(value, start, best, chosen)
    here = row.to(tl.int64) * width + channel
    tl.store(out + here, tl.where(chosen < 0, 0, best), mask=inside)
    tl.store(chosen_edge + here, chosen, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _chosen_sum_kernel(
    grad,
    chosen_edge,
    offsets,
    index,
    number,
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
        there, known, place = edge_tile(index, edge, last, channel, width)
        ours = tl.load(number + edge, mask=there, other=0).to(tl.int32)
        took = tl.load(chosen_edge + place, mask=known, other=-1) == ours[:, None]
        total += tl.sum(tl.load(grad + place, mask=took, other=0).to(ACC), axis=0)
    tl.store(out + row.to(tl.int64) * width + channel, total, mask=inside)


def row_max(x: Tensor, offsets: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima `[N, D]` of rows of `x` `[N, D]`, and the edge int32 `[N, D]` that had each first.

    A row without edges has the maximum 0 and the edge -1.
    """
    x = x.contiguous()
    out, chosen = torch.empty_like(x), torch.empty_like(x, dtype=torch.int32)
    if out.numel():
        num_rows, width = x.shape
        tile = Tile.of(width)
        _max_kernel[grid(num_rows, width, tile)](
            x, offsets, index, out, chosen, num_rows, index.numel(), width, **tile.options(x.dtype)
        )
    return out, chosen


def chosen_sum(
    grad: Tensor, chosen: Tensor, offsets: Tensor, index: Tensor, number: Tensor
) -> Tensor:
    """The entries of `grad` `[N, D]`, each added at the source of its `chosen` edge: `[N, D]`.

    `offsets`, `index` and `number` are the edges sorted by source: runs, targets, edge numbers.
    """
    grad, chosen = contiguous(grad, chosen)
    out = torch.empty_like(grad)
    if out.numel():
        num_rows, width = grad.shape
        tile = Tile.of(width)
        _chosen_sum_kernel[grid(num_rows, width, tile)](
            grad,
            chosen,
            offsets,
            index,
            number,
            out,
            num_rows,
            index.numel(),
            width,
            **tile.options(grad.dtype),
        )
    return out
