"""Gradient of a depthwise convolution by its input: each pixel collects from where it was read."""

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
def _input_gradient_kernel(
    grad,
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
    image, row, column = split_pixel(pixel, height, width)
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for down in tl.static_range(KERNEL):
        for right in tl.static_range(KERNEL):
            y = row - (down - KERNEL // 2) * DILATION
            z = column - (right - KERNEL // 2) * DILATION
            there = some & (y >= 0) & (y < out_height * STRIDE)
            there = there & (z >= 0) & (z < out_width * STRIDE)
            there = there & (y % STRIDE == 0) & (z % STRIDE == 0)
            place = (image * out_height + y // STRIDE) * out_width + z // STRIDE
            known = there[:, None] & inside[None, :]
            here = place.to(tl.int64)[:, None] * channels + channel[None, :]
            value = tl.load(grad + here, mask=known, other=0).to(ACC)
            tap = weight + channel * KERNEL * KERNEL + down * KERNEL + right
            total += value * tl.load(tap, mask=inside, other=0).to(ACC)[None, :]
    here = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(out + here, total, mask=some[:, None] & inside[None, :])


def input_gradient(grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient `[B, C, H, W]` from that of the output, `grad` `[B, C, P, Q]`."""
    grad, weight = channels_last(grad), weight.contiguous()
    out = empty_images(grad, geometry.shape)
    if out.numel():
        options = geometry.options(grad.dtype)
        num_pixels = out.numel() // out.shape[1]
        _input_gradient_kernel[pixel_grid(num_pixels, out.shape[1], options)](
            grad, weight, out, num_pixels, *geometry.sizes, **options
        )
    return out
