"""The largest and the mean of 3 × 3 pixels in one launch, and their gradient in two.

Pixels outside the image are left out. Dimensions: N images, H × W pixels, C channels, S the stride,
P pixels of all images after the stride.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.protocol import PoolBackward
from sgas_cnn.kernels.triton.tiles import Tiles, places_of, split_pixel, tile_of


@triton.jit(do_not_specialize=["num_pixels"])
def _pool_kernel(
    x,
    out,
    position,
    num_pixels,
    channels,
    height,
    width,
    out_height,
    out_width,
    STRIDE: tl.constexpr,
    POSITIONS: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    image, row, column = split_pixel(pixel, out_height, out_width)
    best = tl.full([PIXELS, CHANNELS], float("-inf"), ACC)
    where = tl.full([PIXELS, CHANNELS], -1, tl.int32)
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    count = tl.zeros([PIXELS], tl.int32)
    for down in tl.static_range(3):
        for right in tl.static_range(3):
            y, z = row * STRIDE + down - 1, column * STRIDE + right - 1
            there = some & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            known = there[:, None] & inside[None, :]
            here = places_of((image * height + y) * width + z, channel, channels)
            value = tl.load(x + here, mask=known, other=0).to(ACC)
            total += value
            count += there.to(tl.int32)
            # As in torch, of equal ones the first, and a NaN is above all that came before it.
            better = known & ((value > best) | (value != value) | (where < 0))
            best = tl.where(better, value, best)
            where = tl.where(better, down * 3 + right, where)
    known = some[:, None] & inside[None, :]
    here = places_of(pixel, channel, channels)
    if POSITIONS:
        tl.store(position + here, where, mask=known)
    else:
        tl.store(out + here, best, mask=known)
        mean = total / tl.maximum(count, 1).to(ACC)[:, None]
        tl.store(out + num_pixels.to(tl.int64) * channels + here, mean, mask=known)


@triton.jit(do_not_specialize=["num_pixels"])
def _pool_gradient_kernel(
    largest,
    to_largest,
    average,
    to_average,
    position,
    slopes,
    constants,
    added,
    out,
    num_pixels,
    channels,
    height,
    width,
    out_height,
    out_width,
    STRIDE: tl.constexpr,
    LARGEST: tl.constexpr,
    AVERAGE: tl.constexpr,
    ADDED: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    image, row, column = split_pixel(pixel, height, width)
    first_slope = tl.load(slopes + channel, mask=inside, other=0).to(ACC)[None, :]
    second_slope = tl.load(slopes + channels + channel, mask=inside, other=0).to(ACC)[None, :]
    first = tl.load(constants + channel, mask=inside, other=0).to(ACC)[None, :]
    second = tl.load(constants + channels + channel, mask=inside, other=0).to(ACC)[None, :]
    own = places_of(pixel, channel, channels)
    known = some[:, None] & inside[None, :]
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    if ADDED:
        total += tl.load(added + own, mask=known, other=0).to(ACC)
    for down in tl.static_range(3):
        for right in tl.static_range(3):
            y, z = row + 1 - down, column + 1 - right
            there = some & (y >= 0) & (y % STRIDE == 0) & (y < out_height * STRIDE)
            there = there & (z >= 0) & (z % STRIDE == 0) & (z < out_width * STRIDE)
            read = there[:, None] & inside[None, :]
            place = (image * out_height + y // STRIDE) * out_width + z // STRIDE
            here = places_of(place, channel, channels)
            if LARGEST:
                took = tl.load(position + here, mask=read, other=9).to(tl.int32)
                took = took == down * 3 + right
                value = tl.load(largest + here, mask=took, other=0).to(ACC)
                g = tl.load(to_largest + here, mask=took, other=0).to(ACC)
                total += tl.where(took, g + first_slope * value + first, 0)
            if AVERAGE:
                rows = tl.minimum(y + 2, height) - tl.maximum(y - 1, 0)
                columns = tl.minimum(z + 2, width) - tl.maximum(z - 1, 0)
                count = tl.maximum(rows * columns, 1).to(ACC)[:, None]
                value = tl.load(average + here, mask=read, other=0).to(ACC)
                g = tl.load(to_average + here, mask=read, other=0).to(ACC)
                total += tl.where(read, (g + second_slope * value + second) / count, 0)
    tl.store(out + own, total, mask=known)


def _pooled(x: Tensor, stride: int, positions: bool) -> Tensor:
    """Largest and mean `[2, N, H/S, W/S, C]`, or which of the 9 pixels is the largest, int8."""
    count, height, width, channels = x.shape
    shape = count, -(-height // stride), -(-width // stride), channels
    out = x.new_empty(shape, dtype=torch.int8) if positions else x.new_empty(2, *shape)
    num_pixels = shape[0] * shape[1] * shape[2]
    tiles = Tiles.of(num_pixels, channels)
    _pool_kernel[tiles.count, tiles.blocks](
        x,
        x if positions else out,
        out if positions else x,
        num_pixels,
        channels,
        height,
        width,
        *shape[1:3],
        STRIDE=stride,
        POSITIONS=positions,
        **tiles.options(x.dtype),
    )
    return out


def pool(x: Tensor, stride: int) -> Tensor:
    """The largest and the mean of 3 × 3 pixels of `x` `[N, H, W, C]`: `[2, N, H/S, W/S, C]`."""
    return _pooled(x.contiguous(), stride, False)


def pool_backward(call: PoolBackward) -> Tensor:
    """As `torch_backend.pool_backward`."""
    x, stride, added = call.x.contiguous(), call.stride, call.added
    out, (_, height, width, channels) = torch.empty_like(x), x.shape
    reads_largest = call.largest_gradient.numel() > 0
    position = _pooled(x, stride, True) if reads_largest else x
    num_pixels = x[..., 0].numel()
    tiles = Tiles.of(num_pixels, channels)
    _pool_gradient_kernel[tiles.count, tiles.blocks](
        call.largest.contiguous(),
        call.largest_gradient.contiguous(),
        call.average.contiguous(),
        call.average_gradient.contiguous(),
        position,
        call.slopes.contiguous(),
        call.constants.contiguous(),
        x if added is None else added.contiguous(),
        out,
        num_pixels,
        channels,
        height,
        width,
        -(-height // stride),
        -(-width // stride),
        STRIDE=stride,
        LARGEST=reads_largest,
        AVERAGE=call.average_gradient.numel() > 0,
        ADDED=added is not None,
        **tiles.options(x.dtype),
    )
    return out
