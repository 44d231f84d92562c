"""Gradients of `planes` by what it reads: each pixel collects from where it was read.

Dimensions: n convolutions, N images, H × W pixels, C channels, S the stride, k × k taps.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.bank import Bank, convolution_of, tap_of
from sgas_cnn.kernels.triton.sums import added
from sgas_cnn.kernels.triton.tiles import Tiles, places_of, split_pixel, tile_of


@triton.jit(do_not_specialize=["num_pixels", "num_outputs"])
def _planes_gradient_kernel(
    gradients,
    x,
    scales,
    shifts,
    centres,
    taps,
    numbers,
    out,
    partial,
    num_pixels,
    num_outputs,
    channels,
    height,
    width,
    out_height,
    out_width,
    STRIDE: tl.constexpr,
    MAPPED: tl.constexpr,
    CENTRED: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    number, num = tl.program_id(1), tl.num_programs(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    image, row, column = split_pixel(pixel, height, width)
    kernel, dilation, offset, first = convolution_of(numbers, number)
    gradients += number.to(tl.int64) * num_outputs * channels
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for down in range(kernel):
        y = row - offset - (down - kernel // 2) * dilation
        read = some & (y >= 0) & (y < out_height * STRIDE) & (y % STRIDE == 0)
        for right in range(kernel):
            z = column - offset - (right - kernel // 2) * dilation
            there = read & (z >= 0) & (z < out_width * STRIDE) & (z % STRIDE == 0)
            known = there[:, None] & inside[None, :]
            place = (image * out_height + y // STRIDE) * out_width + z // STRIDE
            here = places_of(place, channel, channels)
            value = tl.load(gradients + here, mask=known, other=0).to(ACC)
            tap = tap_of(taps, first, kernel, down * kernel + right, channel, inside, ACC)
            total += value * tap[None, :]
    known = some[:, None] & inside[None, :]
    here = places_of(pixel, channel, channels) + number.to(tl.int64) * num_pixels * channels
    if MAPPED:
        own = number * channels + channel
        scale = tl.load(scales + own, mask=inside, other=0).to(ACC)[None, :]
        shift = tl.load(shifts + own, mask=inside, other=0).to(ACC)[None, :]
        value = tl.load(x + here, mask=known, other=0).to(ACC)
        total = tl.where(value * scale + shift <= 0, 0, total)
        if CENTRED:
            value = value - tl.load(centres + own, mask=inside, other=0).to(ACC)[None, :]
        total = tl.where(known, total, 0)
        at = (tl.program_id(0).to(tl.int64) * 2 * num + number) * channels + channel
        tl.store(partial + at, tl.sum(total * value, axis=0), mask=inside)
        at += num.to(tl.int64) * channels
        tl.store(partial + at, tl.sum(total, axis=0), mask=inside)
    tl.store(out + here, total, mask=known)


@triton.jit(do_not_specialize=["num_pixels", "num"])
def _reached_kernel(
    parts,
    x,
    added,
    out,
    num_pixels,
    num,
    channels,
    ADDED: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    known = some[:, None] & (channel < channels)[None, :]
    here = places_of(pixel, channel, channels)
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for _ in range(num):
        total += tl.load(parts + here, mask=known, other=0).to(ACC)
        parts += num_pixels.to(tl.int64) * channels
    value = tl.load(x + here, mask=known, other=0)
    total = tl.where(value <= 0, 0, total)
    if ADDED:
        total += tl.load(added + here, mask=known, other=0).to(ACC)
    tl.store(out + here, total, mask=known)


def _collected(bank: Bank, gradients: Tensor, centres: Tensor | None) -> tuple[Tensor, Tensor]:
    """What reaches the inputs `[n, N, H, W, C]`; sums of tiles `[tiles, 2 n, C]` where mapped."""
    count, height, width = bank.inputs
    num_pixels, channels = count * height * width, bank.channels
    out = gradients.new_empty(bank.num, count, height, width, channels)
    tiles = Tiles.of(num_pixels, channels)
    strips = tiles.count if bank.mapped else 0
    partial = gradients.new_empty(strips, 2 * bank.num, channels)
    _planes_gradient_kernel[tiles.count, bank.num, tiles.blocks](
        gradients,
        bank.x,
        *bank.maps,
        bank.x if centres is None else centres.contiguous(),
        bank.taps,
        bank.numbers,
        out,
        partial,
        num_pixels,
        gradients[0, ..., 0].numel(),
        *bank.sides,
        STRIDE=bank.stride,
        MAPPED=bank.mapped,
        CENTRED=centres is not None,
        **tiles.options(gradients.dtype),
    )
    return out, partial


def gradient_before_relu(
    bank: Bank, gradients: Tensor, centres: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dv `[n, N, H, W, C]` before each R, Σ dv (x − centre) and Σ dv `[n, C]`.

    `gradients` `[n, N, H/S, W/S, C]` are those of the planes.
    """
    out, partial = _collected(bank, gradients, centres)
    crossed, sums = added(partial, partial.new_empty(2, bank.num, bank.channels)).unbind()
    return out, crossed, sums


def gradient_of_input(bank: Bank, gradients: Tensor, added: Tensor | None) -> Tensor:
    """The gradient `[N, H, W, C]` of the one input of all, plus `added`."""
    parts, _ = _collected(bank, gradients, None)
    out, channels = bank.x.new_empty(bank.x.shape), bank.channels
    num_pixels = bank.x[..., 0].numel()
    tiles = Tiles.of(num_pixels, channels)
    _reached_kernel[tiles.count, tiles.blocks](
        parts,
        bank.x,
        bank.x if added is None else added.contiguous(),
        out,
        num_pixels,
        bank.num,
        channels,
        ADDED=added is not None,
        **tiles.options(out.dtype),
    )
    return out
