"""Gradients of `planes` by the taps: sums over all pixels of all images.

Each program sums one tap over a strip of pixels; the sums of the strips are added afterwards, in
one order. Dimensions: n convolutions, T taps of all of them, C channels, k × k taps of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.bank import Bank, activated
from sgas_cnn.kernels.triton.runs import table
from sgas_cnn.kernels.triton.sums import added
from sgas_cnn.kernels.triton.tiles import STRIPS, Tiles, places_of, split_pixel, tile_of


@triton.jit(do_not_specialize=["num_pixels", "num_inputs", "turns"])
def _taps_gradient_kernel(
    x,
    scales,
    shifts,
    gradients,
    moves,
    partial,
    num_pixels,
    num_inputs,
    turns,
    channels,
    height,
    width,
    out_height,
    out_width,
    STRIDE: tl.constexpr,
    MAPPED: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    strip, tap = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    number = tl.load(moves + 3 * tap)
    down = tl.load(moves + 3 * tap + 1)
    right = tl.load(moves + 3 * tap + 2)
    scale = tl.zeros([CHANNELS], ACC)
    shift = tl.zeros([CHANNELS], ACC)
    if MAPPED:
        x += number.to(tl.int64) * num_inputs * channels
        scale = tl.load(scales + number * channels + channel, mask=inside, other=0).to(ACC)
        shift = tl.load(shifts + number * channels + channel, mask=inside, other=0).to(ACC)
    gradients += number.to(tl.int64) * num_pixels * channels
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for turn in range(turns):
        pixel, some = tile_of(strip, turns, turn, num_pixels, PIXELS)
        image, row, column = split_pixel(pixel, out_height, out_width)
        y, z = row * STRIDE + down, column * STRIDE + right
        there = some & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        known = there[:, None] & inside[None, :]
        here = places_of((image * height + y) * width + z, channel, channels)
        u = activated(x, here, known, scale, shift, MAPPED, ACC)
        here = places_of(pixel, channel, channels)
        value = tl.load(gradients + here, mask=known, other=0).to(ACC)
        total += u * value
    place = (strip.to(tl.int64) * tl.num_programs(1) + tap) * channels + channel
    tl.store(partial + place, tl.sum(total, axis=0), mask=inside)


class Layout(NamedTuple):
    """The taps that want a gradient.

    `moves` `[T, 3]` are convolution, rows down and columns to the right of each tap, `places`
    `[T, 2]` its first place and distance in the result; `pieces` are first place and k of each
    convolution that has any.
    """

    moves: tuple[int, ...]
    places: tuple[int, ...]
    pieces: tuple[tuple[int, int] | None, ...]


@lru_cache(maxsize=1024)
def _layout(
    sizes: tuple[tuple[int, int, int, int], ...], wanted: tuple[bool, ...], channels: int
) -> Layout:
    """The layout for the sizes of a bank."""
    moves, places, pieces = list[int](), list[int](), list[tuple[int, int] | None]()
    start = 0
    for number, ((kernel, dilation, _, first), wants) in enumerate(zip(sizes, wanted, strict=True)):
        if not wants or first < 0:
            pieces.append(None)
            continue
        pieces.append((start, kernel))
        for tap in range(kernel**2):
            down, right = (dilation * (side - kernel // 2) for side in divmod(tap, kernel))
            moves += [number, down, right]
            places += [start + tap, kernel**2]
        start += channels * kernel**2
    return Layout(tuple(moves), tuple(places), tuple(pieces))


def taps_gradient(bank: Bank, gradients: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The gradients `[C, 1, k, k]` of the taps; empty where not wanted or the pixel is as it is.

    `gradients` `[n, N, H/S, W/S, C]` are those of the planes.
    """
    layout, nothing = _layout(bank.sizes, tuple(wanted), bank.channels), gradients.new_empty(0)
    num_taps, num_pixels = len(layout.places) // 2, gradients[0, ..., 0].numel()
    if num_taps == 0:
        return [nothing] * bank.num
    tiles = Tiles.of(num_pixels, bank.channels, STRIPS)
    partial = gradients.new_empty(tiles.count, num_taps, bank.channels)
    _taps_gradient_kernel[tiles.count, num_taps, tiles.blocks](
        bank.x,
        *bank.maps,
        gradients,
        table(layout.moves, gradients.device),
        partial,
        num_pixels,
        bank.x[..., 0].numel() // (bank.num if bank.mapped else 1),
        tiles.turns,
        *bank.sides,
        STRIDE=bank.stride,
        MAPPED=bank.mapped,
        **tiles.options(gradients.dtype),
    )
    flat = gradients.new_empty(num_taps * bank.channels)
    added(partial, flat, table(layout.places, gradients.device))
    to_taps = []
    for piece in layout.pieces:
        start, kernel = piece or (0, 0)
        end = start + bank.channels * kernel**2
        shape = bank.channels, 1, kernel, kernel
        to_taps.append(flat[start:end].view(shape) if piece else nothing)
    return to_taps
