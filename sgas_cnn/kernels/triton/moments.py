"""Means and variances of images: of each tile from its own mean, joined by Chan's formula.

T. F. Chan et al., Updating formulae and a pairwise algorithm for computing sample variances, 1979.
What joins tiles runs in float64. Dimensions: n images, P pixels, C channels, S strips of pixels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.tiles import STRIPS, Tiles, places_of, tile_of

CHANNELS = 32  # most channels of a program that joins strips


@triton.jit(do_not_specialize=["num_pixels", "turns"])
def _strip_moments_kernel(
    images,
    partial,
    num_pixels,
    channels,
    turns,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    strip, number = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    image = images + number.to(tl.int64) * num_pixels * channels
    mean = tl.zeros([CHANNELS], tl.float64)
    squares = tl.zeros([CHANNELS], tl.float64)
    for turn in range(turns):
        pixel, some = tile_of(strip, turns, turn, num_pixels, PIXELS)
        known = some[:, None] & inside[None, :]
        value = tl.load(image + places_of(pixel, channel, channels), mask=known, other=0).to(ACC)
        count = tl.sum(some.to(tl.int32), axis=0)
        own = tl.sum(value, axis=0) / tl.maximum(count, 1).to(ACC)
        apart = tl.where(known, value - own[None, :], 0)
        share = count.to(tl.float64) / (turn * PIXELS + tl.maximum(count, 1)).to(tl.float64)
        # What the mean of the tile lost to rounding, where it is large.
        lost = tl.sum(apart, axis=0).to(tl.float64)
        lost_of_each = lost / tl.maximum(count, 1).to(tl.float64)
        moved = own.to(tl.float64) + lost_of_each - mean
        mean += moved * share
        squares += tl.sum(apart * apart, axis=0).to(tl.float64) - lost * lost_of_each
        squares += moved * moved * share * turn * PIXELS
    here = (strip.to(tl.int64) * tl.num_programs(1) + number) * 2 * channels + channel
    tl.store(partial + here, mean, mask=inside)
    tl.store(partial + here + channels, squares, mask=inside)


@triton.jit(do_not_specialize=["num_pixels", "strips", "span"])
def _joined_moments_kernel(
    partial,
    out,
    num_pixels,
    strips,
    span,
    channels,
    STRIPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    number, num = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    strip = tl.arange(0, STRIPS)
    inside = channel < channels
    known = (strip < strips)[:, None] & inside[None, :]
    here = (strip * num + number)[:, None] * 2 * channels + channel[None, :]
    means = tl.load(partial + here, mask=known, other=0)
    squares = tl.load(partial + here + channels, mask=known, other=0)
    count = tl.minimum(tl.maximum(num_pixels - strip * span, 0), span).to(tl.float64)[:, None]
    pixels = tl.full([1], 1, tl.float64) * num_pixels
    mean = tl.sum(tl.where(known, means * count, 0), axis=0) / pixels
    moved = means - mean[None, :]
    squares += moved * moved * count
    place = number * channels + channel
    tl.store(out + place, mean, mask=inside)
    spread = tl.sum(tl.where(known, squares, 0), axis=0) / pixels
    tl.store(out + num * channels + place, spread, mask=inside)


def moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Means and biased variances `[n, C]` of `images` `[n, …, C]`, of one pixel or more."""
    num, channels = len(images), images.shape[-1]
    num_pixels = images[0].numel() // channels
    tiles = Tiles.of(num_pixels, channels, STRIPS)
    partial = images.new_empty(tiles.count, num, 2, channels, dtype=torch.float64)
    _strip_moments_kernel[tiles.count, num, tiles.blocks](
        images, partial, num_pixels, channels, tiles.turns, **tiles.options(images.dtype)
    )
    totals, width = images.new_empty(2, num, channels), min(tiles.channels, CHANNELS)
    _joined_moments_kernel[num, triton.cdiv(channels, width)](
        partial,
        totals,
        num_pixels,
        tiles.count,
        tiles.turns * tiles.pixels,
        channels,
        STRIPS=triton.next_power_of_2(tiles.count),
        CHANNELS=width,
    )
    return totals[0], totals[1]
