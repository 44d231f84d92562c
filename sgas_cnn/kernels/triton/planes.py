"""The depthwise half of separable convolutions: taps * R(x), all of a call in one launch.

Dimensions: n convolutions, N images, H × W pixels, C channels, S the stride, k × k taps.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.bank import Bank, activated, convolution_of, tap_of
from sgas_cnn.kernels.triton.tiles import Tiles, places_of, split_pixel, tile_of


@triton.jit(do_not_specialize=["num_pixels", "num_inputs"])
def _planes_kernel(
    x,
    scales,
    shifts,
    taps,
    numbers,
    out,
    num_pixels,
    num_inputs,
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
    number = tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    image, row, column = split_pixel(pixel, out_height, out_width)
    kernel, dilation, offset, first = convolution_of(numbers, number)
    scale = tl.zeros([CHANNELS], ACC)
    shift = tl.zeros([CHANNELS], ACC)
    if MAPPED:
        x += number.to(tl.int64) * num_inputs * channels
        scale = tl.load(scales + number * channels + channel, mask=inside, other=0).to(ACC)
        shift = tl.load(shifts + number * channels + channel, mask=inside, other=0).to(ACC)
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for down in range(kernel):
        y = row * STRIDE + offset + (down - kernel // 2) * dilation
        for right in range(kernel):
            z = column * STRIDE + offset + (right - kernel // 2) * dilation
            there = some & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            known = there[:, None] & inside[None, :]
            here = places_of((image * height + y) * width + z, channel, channels)
            u = activated(x, here, known, scale, shift, MAPPED, ACC)
            tap = tap_of(taps, first, kernel, down * kernel + right, channel, inside, ACC)
            total += u * tap[None, :]
    out += number.to(tl.int64) * num_pixels * channels
    here = places_of(pixel, channel, channels)
    tl.store(out + here, total, mask=some[:, None] & inside[None, :])


def planes(bank: Bank) -> Tensor:
    """taps_i * u_i of all convolutions, `[n, N, H/S, W/S, C]`."""
    count, height, width = bank.outputs
    out = bank.x.new_empty(bank.num, count, height, width, bank.channels)
    num_pixels = count * height * width
    tiles = Tiles.of(num_pixels, bank.channels)
    _planes_kernel[tiles.count, bank.num, tiles.blocks](
        bank.x,
        *bank.maps,
        bank.taps,
        bank.numbers,
        out,
        num_pixels,
        bank.x[..., 0].numel() // (bank.num if bank.mapped else 1),
        *bank.sides,
        STRIDE=bank.stride,
        MAPPED=bank.mapped,
        **tiles.options(bank.x.dtype),
    )
    return out
