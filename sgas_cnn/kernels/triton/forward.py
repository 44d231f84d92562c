"""Depthwise convolution: each output pixel is the sum of k × k pixels, each times its tap."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.geometry import (
    Geometry,
    channels_last,
    empty_images,
    pixel_grid,
    split_pixel,
)


@triton.jit(do_not_specialize=["num_pixels"])
def _forward_kernel(
    x,
    weight,
    out,
    num_pixels,
    channels,
    height,
    width,
    out_height,
    out_width,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    some, inside = pixel < num_pixels, channel < channels
    image, row, column = split_pixel(pixel, out_height, out_width)
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for down in tl.static_range(KERNEL):
        for right in tl.static_range(KERNEL):
            y = row * STRIDE + (down - KERNEL // 2) * DILATION
            z = column * STRIDE + (right - KERNEL // 2) * DILATION
            there = some & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            place = ((image * height + y) * width + z).to(tl.int64) * channels
            known = there[:, None] & inside[None, :]
            value = tl.load(x + place[:, None] + channel[None, :], mask=known, other=0).to(ACC)
            tap = weight + channel * KERNEL * KERNEL + down * KERNEL + right
            total += value * tl.load(tap, mask=inside, other=0).to(ACC)[None, :]
    here = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(out + here, total, mask=some[:, None] & inside[None, :])


def forward(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """`x` `[B, C, H, W]` with each channel convolved by its kernel in `weight` `[C, 1, k, k]`."""
    x, weight = channels_last(x), weight.contiguous()
    geometry = Geometry.of(x, weight, stride, dilation)
    out = empty_images(x, geometry.output)
    if out.numel():
        options = geometry.options(x.dtype)
        num_pixels = out.numel() // out.shape[1]
        _forward_kernel[pixel_grid(num_pixels, out.shape[1], options)](
            x, weight, out, num_pixels, *geometry.sizes, **options
        )
    return out
