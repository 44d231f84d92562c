"""Gradient of a depthwise convolution by its taps: sums over all pixels of all images.

Each program sums one tap over a run of pixels; the sums of the runs are added up afterwards, in one
order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.geometry import Geometry, channels_last, split_pixel

RUN = 16  # most tiles of pixels that one program sums


@triton.jit(do_not_specialize=["num_pixels", "num_tiles"])
def _weight_gradient_kernel(
    x,
    grad,
    sums,
    num_pixels,
    num_tiles,
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
    run = tl.program_id(0)
    tap = tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    down, right = tap // KERNEL, tap % KERNEL
    total = tl.zeros([CHANNELS], ACC)
    for tile in range(num_tiles):
        pixel = (run * num_tiles + tile) * PIXELS + tl.arange(0, PIXELS)
        image, row, column = split_pixel(pixel, out_height, out_width)
        y = row * STRIDE + (down - KERNEL // 2) * DILATION
        z = column * STRIDE + (right - KERNEL // 2) * DILATION
        there = (pixel < num_pixels) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        known = there[:, None] & inside[None, :]
        place = ((image * height + y) * width + z).to(tl.int64) * channels
        value = tl.load(x + place[:, None] + channel[None, :], mask=known, other=0).to(ACC)
        here = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
        total += tl.sum(value * tl.load(grad + here, mask=known, other=0).to(ACC), axis=0)
    place = (run.to(tl.int64) * KERNEL * KERNEL + tap) * channels + channel
    tl.store(sums + place, total, mask=inside)


def weight_gradient(x: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """The gradient `[C, 1, k, k]` from input `[B, C, H, W]` and gradient `[B, C, P, Q]`.

    It is float64 where they are, else float32.
    """
    x, grad = channels_last(x), channels_last(grad)
    options = geometry.options(x.dtype)
    channels, taps = x.shape[1], geometry.kernel**2
    num_pixels = grad.numel() // max(channels, 1)
    num_tiles = min(RUN, triton.cdiv(num_pixels, options["PIXELS"]))
    runs = triton.cdiv(num_pixels, options["PIXELS"] * max(num_tiles, 1))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    sums = torch.empty(runs, taps, channels, dtype=dtype, device=x.device)
    if sums.numel():
        grid = (runs, taps, triton.cdiv(channels, options["CHANNELS"]))
        _weight_gradient_kernel[grid](
            x, grad, sums, num_pixels, num_tiles, *geometry.sizes, **options
        )
    return sums.sum(0).t().reshape(channels, 1, geometry.kernel, geometry.kernel)
