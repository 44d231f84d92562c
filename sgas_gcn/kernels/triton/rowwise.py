"""Backward of what is computed row by row: skips, division by the length, dot products by head.

The mathematics and the arguments are those of `torch_columns`. Sums over rows are float64, strip
by strip, and then over strips. Dimensions: N rows, m edges or heads, C channels of each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.strips import Strips, row_stride, rows_of_tile, side_by_side

MOST = 1024  # strips of rows where nothing is summed over them


@triton.jit(do_not_specialize=["num_rows", "tiles", "edges"])
def _skip_kernel(
    grad,
    x,
    scale,
    grad_x,
    partial,
    num_rows,
    edges,
    channels,
    grad_stride,
    x_stride,
    out_stride,
    tiles,
    SCALED: tl.constexpr,
    WANTED: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    strip = tl.program_id(0)
    own = tl.arange(0, COLUMNS)
    inside = own < channels
    for edge in range(edges):
        total = tl.zeros([COLUMNS], tl.float64)
        for tile in range(tiles):
            row = rows_of_tile(strip, tiles, tile, ROWS)
            known = (row < num_rows)[:, None] & inside[None, :]
            at = row[:, None] * grad_stride + (edge * channels + own)[None, :]
            g = tl.load(grad + at, mask=known, other=0).to(ACC)
            here = row[:, None] * x_stride + own[None, :]
            value = tl.load(x + here, mask=known, other=0).to(ACC)
            total += tl.sum(g * value, axis=0).to(tl.float64)
            if WANTED:
                if SCALED:
                    g = g * tl.load(scale + edge).to(ACC)
                to = row[:, None] * out_stride + own[None, :]
                g += tl.load(grad_x + to, mask=known, other=0).to(ACC)
                tl.store(grad_x + to, g, mask=known)
                tl.debug_barrier()  # the next edge's load may be another thread's
        at = partial + strip * edges + edge + tl.arange(0, 1)
        tl.store(at, tl.sum(total[None, :], axis=1))


@triton.jit(do_not_specialize=["num_rows", "tiles", "edges", "inverse_stride"])
def _length_kernel(
    grad,
    y,
    coefficients,
    inverse,
    scale,
    out,
    partial,
    num_rows,
    edges,
    channels,
    width,
    grad_stride,
    y_stride,
    inverse_stride,
    out_stride,
    tiles,
    FLOOR: tl.constexpr,
    AFFINE: tl.constexpr,
    SCALED: tl.constexpr,
    WANTED: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    strip = tl.program_id(0)
    edge = tl.program_id(1)
    own = tl.arange(0, COLUMNS)
    inside = own < channels
    column = edge * channels + own
    if AFFINE:
        slope = tl.load(coefficients + column, mask=inside, other=0).to(ACC)[None, :]
        shift = tl.load(coefficients + width + column, mask=inside, other=0).to(ACC)[None, :]
    total = tl.zeros([ROWS], tl.float64)
    for tile in range(tiles):
        row = rows_of_tile(strip, tiles, tile, ROWS)
        there = row < num_rows
        known = there[:, None] & inside[None, :]
        g = tl.load(grad + row[:, None] * grad_stride + column[None, :], mask=known, other=0)
        g = g.to(ACC)
        z = tl.load(y + row[:, None] * y_stride + column[None, :], mask=known, other=0).to(ACC)
        if AFFINE:
            z = z * slope + shift
        by = tl.load(inverse + row * inverse_stride + edge, mask=there, other=0).to(ACC)
        unit = z * by[:, None]
        along = tl.sum(tl.where(known, g * unit, 0), axis=1)
        total += along.to(tl.float64)
        if WANTED:
            # A length below the floor does not depend on z.
            kept = along * (by * tl.full([1], FLOOR, ACC) < 1).to(ACC)
            factor = by
            if SCALED:
                factor = factor * tl.load(scale + edge).to(ACC)
            flow = (g - kept[:, None] * unit) * factor[:, None]
            if not AFFINE:
                flow = flow * (z > 0).to(ACC)
            to = row[:, None] * out_stride + column[None, :]
            tl.store(out + to, flow, mask=known)
    at = partial + strip * edges + edge + tl.arange(0, 1)
    tl.store(at, tl.sum(total[None, :], axis=1))


@triton.jit(do_not_specialize=["num_rows", "tiles", "heads"])
def _dots_kernel(
    values,
    vectors,
    shifts,
    first,
    second,
    num_rows,
    heads,
    channels,
    width,
    stride,
    tiles,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    head = tl.program_id(1)
    own = tl.arange(0, COLUMNS)
    inside = own < channels
    column = head * channels + own
    one = tl.load(vectors + column, mask=inside, other=0).to(ACC)[None, :]
    other = tl.load(vectors + width + column, mask=inside, other=0).to(ACC)[None, :]
    one_shift = tl.load(shifts + head).to(ACC)
    other_shift = tl.load(shifts + heads + head).to(ACC)
    for tile in range(tiles):
        row = rows_of_tile(tl.program_id(0), tiles, tile, ROWS)
        there = row < num_rows
        known = there[:, None] & inside[None, :]
        value = tl.load(values + row[:, None] * stride + column[None, :], mask=known, other=0)
        value = value.to(ACC)
        at = row * heads + head
        tl.store(first + at, tl.sum(value * one, axis=1) + one_shift, mask=there)
        tl.store(second + at, tl.sum(value * other, axis=1) + other_shift, mask=there)


@triton.jit(do_not_specialize=["num_rows", "tiles", "heads"])
def _dots_backward_kernel(
    values,
    first,
    second,
    partial,
    num_rows,
    heads,
    channels,
    width,
    stride,
    tiles,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    strip = tl.program_id(0)
    head = tl.program_id(1)
    own = tl.arange(0, COLUMNS)
    inside = own < channels
    column = head * channels + own
    one = tl.zeros([COLUMNS], tl.float64)
    other = tl.zeros([COLUMNS], tl.float64)
    for tile in range(tiles):
        row = rows_of_tile(strip, tiles, tile, ROWS)
        there = row < num_rows
        known = there[:, None] & inside[None, :]
        value = tl.load(values + row[:, None] * stride + column[None, :], mask=known, other=0)
        value = value.to(ACC)
        at = row * heads + head
        of_first = tl.load(first + at, mask=there, other=0).to(ACC)[:, None]
        of_second = tl.load(second + at, mask=there, other=0).to(ACC)[:, None]
        one += tl.sum(value * of_first, axis=0).to(tl.float64)
        other += tl.sum(value * of_second, axis=0).to(tl.float64)
    at = strip * 2 * width + column
    tl.store(partial + at, one, mask=inside)
    tl.store(partial + at + width, other, mask=inside)


def skip_backward(grad: Tensor, x: Tensor, scale: Tensor | None, grad_x: Tensor | None) -> Tensor:
    """As `torch_columns.skip_backward`."""
    grad, x = side_by_side(grad), side_by_side(x)
    num_rows, channels = x.shape
    edges = grad.shape[1] // max(channels, 1)
    strips = Strips.of(num_rows, channels, whole=True)
    partial = grad.new_empty(strips.count, edges, dtype=torch.float64)
    if grad.numel():
        out = x if grad_x is None else grad_x
        _skip_kernel[(strips.count,)](
            grad,
            x,
            x if scale is None else scale.contiguous(),
            out,
            partial,
            num_rows,
            edges,
            channels,
            row_stride(grad),
            row_stride(x),
            row_stride(out),
            strips.tiles,
            SCALED=scale is not None,
            WANTED=grad_x is not None,
            **strips.options(grad.dtype),
        )
    return partial.sum(0)


def length_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor | None,
    inverse: Tensor,
    scale: Tensor | None,
    floor: float,
    out: Tensor | None,
) -> Tensor:
    """As `torch_columns.length_backward`."""
    grad, y, inverse = side_by_side(grad), side_by_side(y), side_by_side(inverse)
    (num_rows, width), edges = y.shape, inverse.shape[1]
    channels = width // max(edges, 1)
    strips = Strips.of(num_rows, channels, whole=True)
    partial = grad.new_empty(strips.count, edges, dtype=torch.float64)
    if grad.numel():
        to = y if out is None else out
        _length_kernel[strips.count, edges](
            grad,
            y,
            y if coefficients is None else coefficients.contiguous(),
            inverse,
            y if scale is None else scale.contiguous(),
            to,
            partial,
            num_rows,
            edges,
            channels,
            width,
            row_stride(grad),
            row_stride(y),
            row_stride(inverse),
            row_stride(to),
            strips.tiles,
            FLOOR=floor,
            AFFINE=coefficients is not None,
            SCALED=scale is not None,
            WANTED=out is not None,
            **strips.options(grad.dtype),
        )
    return partial.sum(0)


def head_dots(values: Tensor, vectors: Tensor, shifts: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """As `torch_columns.head_dots`."""
    values, vectors, shifts = side_by_side(values), vectors.contiguous(), shifts.contiguous()
    num_rows, width = values.shape
    first, second = values.new_empty(num_rows, heads), values.new_empty(num_rows, heads)
    channels = width // heads
    strips = Strips.of(num_rows, channels, whole=True, most=MOST)
    if strips.count:
        _dots_kernel[strips.count, heads](
            values,
            vectors,
            shifts,
            first,
            second,
            num_rows,
            heads,
            channels,
            width,
            row_stride(values),
            strips.tiles,
            **strips.options(values.dtype),
        )
    return first, second


def head_dots_backward(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """As `torch_columns.head_dots_backward`."""
    values, first, second = side_by_side(values), first.contiguous(), second.contiguous()
    (num_rows, width), heads = values.shape, first.shape[1]
    channels = width // max(heads, 1)
    strips = Strips.of(num_rows, channels, whole=True)
    partial = values.new_empty(strips.count, 2, width, dtype=torch.float64)
    if values.numel():
        _dots_backward_kernel[strips.count, heads](
            values,
            first,
            second,
            partial,
            num_rows,
            heads,
            channels,
            width,
            row_stride(values),
            strips.tiles,
            **strips.options(values.dtype),
        )
    return partial.sum(0)
