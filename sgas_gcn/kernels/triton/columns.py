"""Batch norm column by column: sums over rows, what follows from them, and how rows are changed.

The mathematics and the arguments are those of `kernels.torch_columns`. Sums of a tile run in the
type of the rows, those of tiles in float64. Dimensions: N rows, D = m·C columns of m edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.triton.strips import (
    TILE,
    TOGETHER,
    Strips,
    added_strips,
    ceil_div,
    power_of_two,
    row_stride,
    rows_of_tile,
    side_by_side,
)


@triton.jit
def leaky_relu(value, SLOPE: tl.constexpr):
    """`value` where it is above 0, else `SLOPE` times it; NaN of NaN."""
    return tl.where(value > 0, value, value * tl.full([1, 1], SLOPE, value.dtype))


@triton.jit(do_not_specialize=["num_rows", "tiles"])
def _activation_sums_kernel(
    h,
    partial,
    num_rows,
    width,
    stride,
    tiles,
    SLOPE: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    strip = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    total = tl.zeros([COLUMNS], tl.float64)
    square = tl.zeros([COLUMNS], tl.float64)
    for tile in range(tiles):
        row = rows_of_tile(strip, tiles, tile, ROWS)
        known = (row < num_rows)[:, None] & inside[None, :]
        place = row[:, None] * stride + column[None, :]
        value = tl.load(h + place, mask=known, other=0).to(ACC)
        if SLOPE != 1:
            value = leaky_relu(value, SLOPE)
            tl.store(h + place, value, mask=known)
        # As deviations from the tile's first row: see `square_sums` of torch_columns.
        first = tl.sum(tl.where((row == tl.min(row, axis=0))[:, None], value, 0), axis=0)
        apart = tl.where(known, value - first[None, :], 0)
        one = tl.sum(apart, axis=0).to(tl.float64)
        near = first.to(tl.float64)
        sums = one + near * tl.sum((row < num_rows).to(tl.float64), axis=0)
        total += sums
        square += tl.sum(apart * apart, axis=0).to(tl.float64) + near * (one + sums)
    at = strip * 2 * width + column
    tl.store(partial + at, total, mask=inside)
    tl.store(partial + at + width, square, mask=inside)


@triton.jit(do_not_specialize=["strips", "count"])
def _coefficients_kernel(
    partial,
    stacked,
    coefficients,
    moved,
    strips,
    count,
    width,
    TRAINING: tl.constexpr,
    MOMENTUM: tl.constexpr,
    EPS: tl.constexpr,
    ACC: tl.constexpr,
    TOGETHER: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    weight = tl.load(stacked + column, mask=inside, other=0).to(tl.float64)
    bias = tl.load(stacked + width + column, mask=inside, other=0).to(tl.float64)
    old_mean = tl.load(stacked + 2 * width + column, mask=inside, other=0)
    old_var = tl.load(stacked + 3 * width + column, mask=inside, other=0)
    if TRAINING:
        total, square = added_strips(partial, strips, width, column, inside, TOGETHER)
        rows = tl.maximum(count, 1).to(tl.float64)
        mean = total / rows
        var = square / rows - mean * mean
        var = tl.where(var < 0, 0, var)  # and NaN where it is
        unbiased = (var * (rows / tl.maximum(rows - 1, 1))).to(ACC)
        by = tl.full([1], MOMENTUM, ACC)
        tl.store(moved + column, old_mean + by * (mean.to(ACC) - old_mean), mask=inside)
        tl.store(moved + width + column, old_var + by * (unbiased - old_var), mask=inside)
    else:
        mean = old_mean.to(tl.float64)
        var = old_var.to(tl.float64)
    inverse = 1 / tl.sqrt(var + tl.full([1], EPS, tl.float64))
    slope = weight * inverse
    tl.store(coefficients + column, slope, mask=inside)
    tl.store(coefficients + width + column, bias - slope * mean, mask=inside)
    tl.store(coefficients + 2 * width + column, mean, mask=inside)
    tl.store(coefficients + 3 * width + column, inverse, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "tiles"])
def _column_sums_kernel(
    grad,
    y,
    mask,
    partial,
    num_rows,
    width,
    shared,
    grad_stride,
    y_stride,
    tiles,
    MASKED: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    strip = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    total = tl.zeros([COLUMNS], tl.float64)
    product = tl.zeros([COLUMNS], tl.float64)
    for tile in range(tiles):
        row = rows_of_tile(strip, tiles, tile, ROWS)
        there = row < num_rows
        known = there[:, None] & inside[None, :]
        g = tl.load(grad + row[:, None] * grad_stride + column[None, :], mask=known, other=0)
        g = g.to(ACC)
        at = row[:, None] * y_stride + (column % shared)[None, :]
        value = tl.load(y + at, mask=known, other=0).to(ACC)
        # As deviations from the tile's first row; rows that are not counted have values of 0.
        first = tl.sum(tl.where((row == tl.min(row, axis=0))[:, None], value, 0), axis=0)
        near = tl.zeros([ROWS, COLUMNS], ACC) + first[None, :]
        counted = g
        if MASKED:
            by = tl.load(mask + row, mask=there, other=0).to(ACC)[:, None]
            near = near * by
            counted = g * by
        sums = tl.sum(counted, axis=0).to(tl.float64)
        total += sums
        product += tl.sum(g * (value - near), axis=0).to(tl.float64) + first.to(tl.float64) * sums
    at = strip * 2 * width + column
    tl.store(partial + at, total, mask=inside)
    tl.store(partial + at + width, product, mask=inside)


@triton.jit(do_not_specialize=["strips", "count"])
def _gradients_kernel(
    partial,
    coefficients,
    scale,
    factors,
    affine,
    of_scale,
    of_edge,
    strips,
    count,
    channels,
    width,
    TRAINING: tl.constexpr,
    SCALED: tl.constexpr,
    TOGETHER: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    edge = tl.program_id(0)
    own = tl.arange(0, COLUMNS)
    inside = own < channels
    column = edge * channels + own
    total, product = added_strips(partial, strips, width, column, inside, TOGETHER)
    slope = tl.load(coefficients + column, mask=inside, other=0)
    shift = tl.load(coefficients + width + column, mask=inside, other=0)
    mean = tl.load(coefficients + 2 * width + column, mask=inside, other=0)
    inverse = tl.load(coefficients + 3 * width + column, mask=inside, other=0)
    centred = product - mean * total
    along = slope * centred + (shift + slope * mean) * total
    tl.store(of_scale + column, along, mask=inside)
    tl.store(of_edge + edge + tl.arange(0, 1), tl.sum(along[None, :], axis=1))
    by = tl.full([1], 1, tl.float64)
    if SCALED:
        by = tl.load(scale + edge + tl.arange(0, 1)).to(tl.float64)
    first = by * slope
    tl.store(factors + column, first, mask=inside)
    if TRAINING:
        rows = tl.maximum(count, 1).to(tl.float64)
        third = -first * inverse * inverse * centred / rows
        second = -first * total / rows - third * mean
    else:
        third = tl.zeros([COLUMNS], tl.float64)
        second = tl.zeros([COLUMNS], tl.float64)
    tl.store(factors + width + column, second, mask=inside)
    tl.store(factors + 2 * width + column, third, mask=inside)
    tl.store(affine + column, by * inverse * centred, mask=inside)
    tl.store(affine + width + column, by * total, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "tiles"])
def _factors_kernel(
    grad,
    y,
    factors,
    out,
    num_rows,
    width,
    grad_stride,
    y_stride,
    out_stride,
    tiles,
    SLOPE: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    strip = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    first = tl.load(factors + column, mask=inside, other=0).to(ACC)[None, :]
    second = tl.load(factors + width + column, mask=inside, other=0).to(ACC)[None, :]
    third = tl.load(factors + 2 * width + column, mask=inside, other=0).to(ACC)[None, :]
    for tile in range(tiles):
        row = rows_of_tile(strip, tiles, tile, ROWS)
        known = (row < num_rows)[:, None] & inside[None, :]
        g = tl.load(grad + row[:, None] * grad_stride + column[None, :], mask=known, other=0)
        value = tl.load(y + row[:, None] * y_stride + column[None, :], mask=known, other=0).to(ACC)
        flow = g.to(ACC) * first + second + value * third
        if SLOPE != 1:
            bent = flow * tl.full([1, 1], SLOPE, ACC)
            flow = tl.where(value > 0, flow, bent)
        tl.store(out + row[:, None] * out_stride + column[None, :], flow, mask=known)


def activation_sums(h: Tensor, negative_slope: float) -> Tensor:
    """Leaky ReLU in place; float64 `[strips, 2, D]`: sums of the results and of their squares."""
    num_rows, width = h.shape
    strips = Strips.of(num_rows, width)
    partial = h.new_empty(strips.count, 2, width, dtype=torch.float64)
    if partial.numel():
        _activation_sums_kernel[strips.count, strips.blocks(width)](
            h,
            partial,
            num_rows,
            width,
            row_stride(h),
            strips.tiles,
            SLOPE=negative_slope,
            **strips.options(h.dtype),
        )
    return partial


def coefficients_of(
    partial: Tensor,
    count: int,
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """`torch_columns.norm_coefficients` from the sums of strips `[strips, 2, D]`."""
    running = [*running_mean, *running_var]
    stacked = torch.cat([*weight, *bias, *running])
    width = stacked.numel() // 4
    coefficients = stacked.new_empty(4, width, dtype=torch.float64)
    moved = stacked.new_empty(2 * len(running_mean), width // max(len(running_mean), 1))
    if width:
        columns = min(power_of_two(width), 64)
        _coefficients_kernel[(ceil_div(width, columns),)](
            partial,
            stacked,
            coefficients,
            moved,
            len(partial),
            count,
            width,
            TRAINING=training,
            MOMENTUM=momentum,
            EPS=eps,
            ACC=tl.float64 if stacked.dtype == torch.float64 else tl.float32,
            TOGETHER=TOGETHER,
            COLUMNS=columns,
        )
    if training and count:
        torch._foreach_copy_(running, list(moved.unbind()))
    return coefficients


def sums_of_columns(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """`torch_columns.column_sums` of each strip: float64 `[strips, 2, D]`."""
    grad, y = side_by_side(grad), side_by_side(y)
    num_rows, width = grad.shape
    strips = Strips.of(num_rows, width)
    partial = grad.new_empty(strips.count, 2, width, dtype=torch.float64)
    if partial.numel():
        _column_sums_kernel[strips.count, strips.blocks(width)](
            grad,
            y,
            grad if mask is None else mask.contiguous(),
            partial,
            num_rows,
            width,
            y.shape[1],
            row_stride(grad),
            row_stride(y),
            strips.tiles,
            MASKED=mask is not None,
            **strips.options(grad.dtype),
        )
    return partial


def gradients_of(
    partial: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    edges: int,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`torch_columns.norm_gradients` from the sums of strips, and the last by edge `[edges]`.

    Factors `[3, D]`, gradients `[2, D]` in the type of `like`, float64 `[D]` and `[edges]`.
    """
    width = coefficients.shape[1]
    factors = coefficients.new_empty(3, width)
    affine = like.new_empty(2, width)
    of_scale, of_edge = coefficients.new_empty(width), coefficients.new_empty(edges)
    if edges:
        channels = width // edges
        columns = power_of_two(channels)
        _gradients_kernel[(edges,)](
            partial,
            coefficients.contiguous(),
            coefficients if scale is None else scale.contiguous(),
            factors,
            affine,
            of_scale,
            of_edge,
            len(partial),
            count,
            channels,
            width,
            TRAINING=training,
            SCALED=scale is not None,
            TOGETHER=max(1, min(TOGETHER, TILE // columns)),  # more would not fit into registers
            COLUMNS=columns,
        )
    return factors, affine, of_scale, of_edge


def by_factors(
    grad: Tensor, y: Tensor, factors: Tensor, negative_slope: float, out: Tensor
) -> None:
    """`torch_columns.apply_factors`; the columns of `out` lie side by side."""
    grad, y = side_by_side(grad), side_by_side(y)
    num_rows, width = grad.shape
    strips = Strips.of(num_rows, width, most=8 * 128)
    if grad.numel():
        _factors_kernel[strips.count, strips.blocks(width)](
            grad,
            y,
            factors.contiguous(),
            out,
            num_rows,
            width,
            row_stride(grad),
            row_stride(y),
            row_stride(out),
            strips.tiles,
            SLOPE=negative_slope,
            **strips.options(grad.dtype),
        )
