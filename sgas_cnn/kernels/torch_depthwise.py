"""Gradients of depthwise convolutions in plain torch, by ways around the slow kernels of the CPU.

Dimensions: B images, C channels, H × W pixels, k × k taps. All tensors are channels-last.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FAST_WIDTH = 3  # oneDNN's depthwise weight gradient is vectorised up to this kernel width


def _wide_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The gradient `[C, 1, k, k]`, by three columns of taps at a time.

    On the CPU that of 5 × 5 taps took 7.4 ms whole and 1.4 ms in two pieces (64 images of
    16 × 32 × 32, one thread, torch 2.13).
    """
    height, width = weight.shape[-2:]
    pieces = -(-width // FAST_WIDTH)
    padded = F.pad(x, (padding, padding + FAST_WIDTH * pieces - width))
    narrow = weight.new_empty(*weight.shape[:-1], FAST_WIDTH)
    columns = []
    for piece in range(pieces):
        view = padded.narrow(3, piece * FAST_WIDTH, grad.shape[-1] + FAST_WIDTH - 1)
        view = view.contiguous(memory_format=torch.channels_last)
        columns.append(_gradients(grad, view, narrow, (height // 2, 0), (False, True))[1])
    return torch.cat(columns, dim=3)[..., :width]


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of a depthwise convolution of stride 1 by its input and by its weight."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], [*wanted, False]
    )[:2]


def split_phases(x: Tensor) -> Tensor:
    """Every second row and column of `[B, C, H, W]` as images of their own `[4B, C, H/2, W/2]`.

    A convolution of dilation 2 on the image is one of dilation 1 on its four phases. oneDNN's
    gradients of the one took 3.9 to 8.1 ms, of the other 0.5 to 1.4 (64 images of 16 × 32 × 32, one
    thread, torch 2.13).
    """
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    phases = rows.permute(2, 4, 0, 1, 3, 5).reshape(-1, height // 2, width // 2, channels)
    return phases.permute(0, 3, 1, 2)


def join_phases(phases: Tensor) -> Tensor:
    """The images `[B, C, H, W]` whose `split_phases` are `[4B, C, H/2, W/2]`."""
    count, channels, height, width = phases.shape
    rows = phases.permute(0, 2, 3, 1).reshape(2, 2, count // 4, height, width, channels)
    images = rows.permute(2, 3, 0, 4, 1, 5).reshape(-1, 2 * height, 2 * width, channels)
    return images.permute(0, 3, 1, 2)


def depthwise_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    dilation: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by `x` `[B, C, H, W]` and `weight` `[C, 1, k, k]`, None where not wanted.

    `grad` is that of the convolution of each channel by its kernel; k is odd, and the padding keeps
    the size at stride 1.
    """
    grad = grad.contiguous(memory_format=torch.channels_last)
    if x.device.type == "cpu" and stride == 1 and x.numel():
        even = x.shape[2] % 2 == x.shape[3] % 2 == 0
        if dilation == 2 and even:
            phases = depthwise_gradients(split_phases(grad), split_phases(x), weight, 1, 1, wanted)
            return None if phases[0] is None else join_phases(phases[0]), phases[1]
        if dilation == 1 and weight.shape[-1] > FAST_WIDTH:
            padding = weight.shape[-1] // 2
            grad_x = _gradients(grad, x, weight, (padding, padding), (wanted[0], False))[0]
            wide = _wide_weight_gradient(grad, x, weight, padding) if wanted[1] else None
            return grad_x if wanted[0] else None, wide
    padding = dilation * (weight.shape[-1] // 2)
    sizes = [stride] * 2, [padding] * 2, [dilation] * 2
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *sizes, False, [0, 0], x.shape[1], [*wanted, False]
    )
    return (to_x if wanted[0] else None), (to_weight if wanted[1] else None)
