"""The weighted sum of all operations on the edges of a state: one launch for each operation.

The mathematics and the arguments are those of `torch_columns.mixture`. Dimensions: N rows, C
channels, M slots, L pieces that are divided by their length.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from sgas_gcn.kernels.protocol import BROADCAST, LENGTH, MASKED
from sgas_gcn.kernels.triton.strips import Strips, row_stride, rows_of_tile, side_by_side

SLOTS = 4  # pieces of a launch, each with an output of its own
MOST = 1024  # strips of rows: nothing is summed over them


COUNTS = ["num_rows", "tiles", "piece", "start", "measured", "fresh", "inverse_stride"]


@triton.jit(do_not_specialize=COUNTS)
def _term_kernel(
    y,
    coefficients,
    scale,
    mask,
    inverse,
    out0,
    out1,
    out2,
    out3,
    num_rows,
    channels,
    width,
    stride,
    inverse_stride,
    tiles,
    piece,
    start,
    measured,
    fresh,
    FLOOR: tl.constexpr,
    OVER_LENGTH: tl.constexpr,
    AFFINE: tl.constexpr,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SCALED: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    number = tl.program_id(1)
    out = out0
    if number == 1:
        out = out1
    if number == 2:
        out = out2
    if number == 3:
        out = out3
    own = tl.arange(0, COLUMNS)
    inside = own < channels
    column = own
    if not SHARED:
        column += (start + number) * channels
    adds = ((fresh >> number) & 1) == 0
    if AFFINE:
        slope = tl.load(coefficients + column, mask=inside, other=0).to(ACC)[None, :]
        shift = tl.load(coefficients + width + column, mask=inside, other=0).to(ACC)[None, :]
    if SCALED:
        by = tl.load(scale + piece + number).to(ACC)
    for tile in range(tiles):
        row = rows_of_tile(tl.program_id(0), tiles, tile, ROWS)
        there = row < num_rows
        known = there[:, None] & inside[None, :]
        value = tl.load(y + row[:, None] * stride + column[None, :], mask=known, other=0).to(ACC)
        if AFFINE:
            if MASKED:
                value = value * slope + tl.load(mask + row, mask=there).to(ACC)[:, None] * shift
            else:
                value = value * slope + shift
        if OVER_LENGTH:
            square = tl.where(known, value * value, 0)
            length = tl.sqrt(tl.sum(square, axis=1))
            least = tl.full([1], FLOOR, ACC)
            turned = 1 / tl.where(length < least, least, length)  # NaN of NaN
            tl.store(inverse + row * inverse_stride + measured + number, turned, mask=there)
            value = value * turned[:, None]
        if SCALED:
            value = value * by
        here = row[:, None] * channels + own[None, :]
        value += tl.load(out + here, mask=known & adds, other=0).to(ACC)
        tl.store(out + here, value, mask=known)


def _distinct(slots: Sequence[int]) -> Sequence[int]:
    """The first of the slots, up to one that comes again: a launch writes to each once."""
    number = 1
    while number < len(slots) and slots[number] not in slots[:number]:
        number += 1
    return slots[:number]


def mixture(
    values: Sequence[Tensor],
    coefficients: Sequence[Tensor | None],
    kinds: Sequence[int],
    slots: Sequence[int],
    counts: Sequence[int],
    scale: Tensor | None,
    mask: Tensor | None,
    bases: Sequence[Tensor | None],
    channels: int,
    floor: float,
) -> tuple[list[Tensor], Tensor]:
    """As `torch_columns.mixture`."""
    like, num_rows = values[0], len(values[0])
    outs = [like.new_empty(num_rows, channels) if b is None else b.clone() for b in bases]
    outs = [out.contiguous() for out in outs]
    touched = {slot for slot, base in enumerate(bases) if base is not None}
    lengths = [count for kind, count in zip(kinds, counts, strict=True) if kind == LENGTH]
    inverse = like.new_empty(num_rows, sum(lengths))
    strips = Strips.of(num_rows, channels, whole=True, most=MOST)
    piece = measured = 0
    for y, coefs, kind, count in zip(values, coefficients, kinds, counts, strict=True):
        y = side_by_side(y)
        start = 0
        while start < count:
            several = _distinct(slots[piece : piece + min(SLOTS, count - start)])
            written = [outs[slot] for slot in several]
            fresh = sum(1 << n for n, slot in enumerate(several) if slot not in touched)
            touched |= set(several)
            if strips.count:
                masked = mask if kind == MASKED and coefs is not None else None
                _term_kernel[strips.count, len(several)](
                    y,
                    y if coefs is None else coefs.contiguous(),
                    y if scale is None else scale.contiguous(),
                    y if masked is None else masked.contiguous(),
                    inverse,
                    *written,
                    *written[:1] * (SLOTS - len(written)),
                    num_rows,
                    channels,
                    y.shape[1],
                    row_stride(y),
                    inverse.shape[1],
                    strips.tiles,
                    piece,
                    start,
                    measured,
                    fresh,
                    FLOOR=floor,
                    OVER_LENGTH=kind == LENGTH,
                    AFFINE=coefs is not None,
                    MASKED=masked is not None,
                    SHARED=kind == BROADCAST,
                    SCALED=scale is not None,
                    **strips.options(y.dtype),
                )
            piece, start = piece + len(several), start + len(several)
            measured += len(several) if kind == LENGTH else 0
    for slot, out in enumerate(outs):
        if slot not in touched:
            out.zero_()
    return outs, inverse
