"""Extrema and moments of h = ReLU(target_i + source_j) over edges, and their gradient.

Batch norm over edges, then a maximum, needs no more of them (`sgas_gcn.ops.common`). h is computed
again wherever it is needed and kept nowhere. With L the loss, c = ∂L/∂Σh and q = 2·∂L/∂Σh², each
edge has ∂L/∂h = c + q·h, to which the chosen edge of a node adds the gradient of the extremum; it
passes where h > 0. Dimensions: N nodes, E edges, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.maxima import first_largest
from sgas_gcn.kernels.triton.rows import Tile, contiguous, edge_tile, grid, row_bounds

NODES = 16  # nodes whose moments one program adds up


@triton.jit
def relu(x):
    """max(x, 0); NaN of NaN, as in torch, which tl.maximum passes over where it is compiled."""
    return tl.maximum(x, 0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _stats_kernel(
    target,
    source,
    sign,
    offsets,
    index,
    selected,
    chosen_edge,
    totals,
    squares,
    num_rows,
    num_edges,
    width,
    NODES: tl.constexpr,
    ACC: tl.constexpr,
    EDGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    group = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < width
    signs = tl.load(sign + channel, mask=inside, other=0).to(ACC)
    total = tl.zeros([CHANNELS], tl.float64)
    square = tl.zeros([CHANNELS], tl.float64)
    for row in range(group * NODES, tl.minimum(group * NODES + NODES, num_rows)):
        first, last = row_bounds(offsets, row, num_rows, num_edges)
        here = tl.cast(row, tl.int64) * width + channel
        own = tl.load(target + here, mask=inside, other=0).to(ACC)
        best = tl.full([CHANNELS], float("-inf"), ACC)
        chosen = tl.full([CHANNELS], -1, tl.int32)
        row_total = tl.zeros([CHANNELS], ACC)
        row_square = tl.zeros([CHANNELS], ACC)
        # h of the node's first edge: the others are added up as deviations from it.
        node = tl.load(index + first, mask=first < last, other=0)
        near = tl.load(source + tl.cast(node, tl.int64) * width + channel, mask=inside, other=0)
        near = relu(own + near.to(ACC))
        for start in range(first, last, EDGES):
            edge = start + tl.arange(0, EDGES)
            there, known, place = edge_tile(index, edge, last, channel, width)
            value = tl.load(source + place, mask=known, other=0).to(ACC)
            h = tl.where(known, relu(own[None, :] + value) - near[None, :], 0)
            row_total += tl.sum(h, axis=0)
            row_square += tl.sum(h * h, axis=0)
            signed = tl.where(there[:, None], value * signs[None, :], float("-inf"))
            best, chosen = first_largest(signed, start, best, chosen)
        one = row_total.to(tl.float64)
        reference = near.to(tl.float64)
        sums = one + reference * (last - first).to(tl.float64)
        total += sums
        square += row_square.to(tl.float64) + reference * (one + sums)
        outermost = own + signs * tl.where(chosen < 0, 0, best)
        extremum = tl.where(chosen < 0, 0, relu(outermost))
        tl.store(selected + here, extremum, mask=inside)
        # Where the ReLU is flat no edge takes the gradient, so none is noted.
        tl.store(chosen_edge + here, tl.where(extremum > 0, chosen, -1), mask=inside)
    at = group.to(tl.int64) * width + channel
    tl.store(totals + at, total, mask=inside)
    tl.store(squares + at, square, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _grad_target_kernel(
    target,
    source,
    grad,
    chosen_edge,
    constant,
    slope,
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
    here = row.to(tl.int64) * width + channel
    own = tl.load(target + here, mask=inside, other=0).to(ACC)
    c = tl.load(constant + channel, mask=inside, other=0).to(ACC)
    q = tl.load(slope + channel, mask=inside, other=0).to(ACC)
    chosen = tl.load(chosen_edge + here, mask=inside, other=-1)
    total = tl.load(grad + here, mask=chosen >= 0, other=0).to(ACC)
    first, last = row_bounds(offsets, row, num_rows, num_edges)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        _, known, place = edge_tile(index, edge, last, channel, width)
        value = tl.load(source + place, mask=known, other=0)
        h = own[None, :] + value.to(ACC)
        total += tl.sum(tl.where(known & (h > 0), c[None, :] + q[None, :] * h, 0), axis=0)
    tl.store(out + here, total, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def _grad_source_kernel(
    target,
    source,
    grad,
    chosen_edge,
    constant,
    slope,
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
    here = row.to(tl.int64) * width + channel
    own = tl.load(source + here, mask=inside, other=0).to(ACC)
    c = tl.load(constant + channel, mask=inside, other=0).to(ACC)
    q = tl.load(slope + channel, mask=inside, other=0).to(ACC)
    total = tl.zeros([CHANNELS], ACC)
    first, last = row_bounds(offsets, row, num_rows, num_edges)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        there, known, place = edge_tile(index, edge, last, channel, width)
        ours = tl.load(number + edge, mask=there, other=0).to(tl.int32)
        h = tl.load(target + place, mask=known, other=0).to(ACC) + own[None, :]
        flow = tl.where(known & (h > 0), c[None, :] + q[None, :] * h, 0)
        took = tl.load(chosen_edge + place, mask=known, other=-1) == ours[:, None]
        flow += tl.load(grad + place, mask=took, other=0).to(ACC)
        total += tl.sum(flow, axis=0)
    tl.store(out + here, total, mask=inside)


def relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, offsets: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Extrema `[N, D]` by `sign` `[D]`, Σh and Σh² float64 `[D]`, and the chosen edge int32.

    The chosen edge `[N, D]` is the first that had the extremum, -1 where that is 0.
    """
    target, source, sign = contiguous(target, source, sign)
    num_rows, width = target.shape
    selected, chosen = torch.empty_like(target), torch.empty_like(target, dtype=torch.int32)
    groups = triton.cdiv(num_rows, NODES)
    sums = target.new_empty(2, groups, width, dtype=torch.float64)
    if target.numel():
        tile = Tile.of(width)
        _stats_kernel[grid(groups, width, tile)](
            target,
            source,
            sign,
            offsets,
            index,
            selected,
            chosen,
            sums[0],
            sums[1],
            num_rows,
            index.numel(),
            width,
            NODES=NODES,
            **tile.options(target.dtype),
        )
    totals, squares = sums.sum(1).unbind(0)
    return selected, totals.clone(), squares.clone(), chosen


def relu_stats_gradients(
    grads: Sequence[Tensor],
    saved: Sequence[Tensor],
    incoming: Sequence[Tensor],
    outgoing: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradients of target and source, `[N, D]` each.

    `grads` are those of the extrema `[N, D]`, of Σh and of Σh² `[D]`; `saved` are target, source
    and chosen edge; `incoming` offsets and sources; `outgoing` the edges sorted by source.
    """
    grad, constant, slope = contiguous(grads[0], grads[1], 2 * grads[2])
    target, source, chosen = contiguous(*saved)
    grad_target, grad_source = torch.empty_like(target), torch.empty_like(source)
    if target.numel():
        num_rows, width = target.shape
        tile = Tile.of(width)
        read = (target, source, grad, chosen, constant, slope)
        sizes = (num_rows, incoming[1].numel(), width)
        options = tile.options(target.dtype)
        programs = grid(num_rows, width, tile)
        _grad_target_kernel[programs](*read, *incoming, grad_target, *sizes, **options)
        _grad_source_kernel[programs](*read, *outgoing, grad_source, *sizes, **options)
    return grad_target, grad_source
