"""The separable convolutions of one call, in few tensors: weights in one buffer, sizes in a table.

Dimensions: n convolutions, N images, H × W pixels, C channels, S the stride, P pixels of all images
after the stride, k × k taps. The pixel as it is counts as one tap of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.protocol import Convolutions, Numbers
from sgas_cnn.kernels.triton.runs import stacked, table
from sgas_cnn.kernels.triton.tiles import relu


@triton.jit
def convolution_of(numbers, number):
    """k, dilation, offset and first tap (-1: the pixel as it is) of a convolution."""
    at = numbers + number * 4
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def tap_of(taps, first, kernel, position, channel, inside, ACC: tl.constexpr):
    """One tap of each channel `[CHANNELS]`; 1 for the pixel as it is."""
    at = taps + first + channel * kernel * kernel + position
    return tl.load(at, mask=inside & (first >= 0), other=1).to(ACC)


@triton.jit
def activated(x, here, known, scale, shift, MAPPED: tl.constexpr, ACC: tl.constexpr):
    """u = R(x) or R(scale x + shift) at `here`, 0 where no pixel is known."""
    value = tl.load(x + here, mask=known, other=0).to(ACC)
    if MAPPED:
        value = value * scale[None, :] + shift[None, :]
    return tl.where(known, relu(value), 0)


@dataclass(frozen=True)
class Bank:
    """What all kernels of separable convolutions read; `scales` tells whether each has its input.

    `x` is one image `[N, H, W, C]`, or `[n, N, H, W, C]`; `through` are the pointwise weights
    `[n, C, C]`, with zeros in the rows that a convolution does not give.
    """

    x: Tensor
    scales: Tensor | None
    shifts: Tensor | None
    taps: Tensor
    through: Tensor
    sizes: tuple[tuple[int, int, int, int], ...]
    stride: int

    @classmethod
    def of(cls, convolutions: Convolutions) -> Bank:
        """The bank of the convolutions of a call."""
        inputs, taps, pointwise = convolutions.inputs, convolutions.taps, convolutions.pointwise
        scales, shifts = convolutions.scales, convolutions.shifts
        mapped = scales is not None and shifts is not None
        channels = inputs[0].shape[-1]
        kernels = tuple(t.shape[-1] if t.numel() else 0 for t in taps)
        flat = torch.cat([
            *_padded(pointwise, convolutions.first_rows, channels),
            *[t.reshape(-1) for t in taps if t.numel()],
        ])  # fmt: skip
        split = len(taps) * channels**2
        dilations, offsets = tuple(convolutions.dilations), tuple(convolutions.offsets)
        return cls(
            stacked(inputs) if mapped else inputs[0].contiguous(),
            scales.contiguous() if mapped and scales is not None else None,
            shifts.contiguous() if mapped and shifts is not None else None,
            flat[split:],
            flat[:split].view(len(taps), channels, channels),
            _sizes(kernels, dilations, offsets, channels),
            convolutions.stride,
        )

    @property
    def num(self) -> int:
        """n."""
        return len(self.sizes)

    @property
    def mapped(self) -> bool:
        """Whether each convolution has an input, a scale and a shift."""
        return self.scales is not None

    @property
    def channels(self) -> int:
        """C."""
        return self.x.shape[-1]

    @property
    def inputs(self) -> tuple[int, int, int]:
        """N, H, W."""
        count, height, width = self.x.shape[-4:-1]
        return count, height, width

    @property
    def outputs(self) -> tuple[int, int, int]:
        """N, H/S, W/S."""
        count, height, width = self.inputs
        return count, -(-height // self.stride), -(-width // self.stride)

    @property
    def sides(self) -> tuple[int, int, int, int, int]:
        """C, H, W, H/S, W/S, as every kernel takes them."""
        return (self.channels, *self.inputs[1:], *self.outputs[1:])

    @property
    def maps(self) -> tuple[Tensor, Tensor]:
        """Scales and shifts, or what stands for them."""
        if self.scales is None or self.shifts is None:
            return self.x, self.x
        return self.scales, self.shifts

    @property
    def numbers(self) -> Tensor:
        """The table int32 `[n, 4]`."""
        flat = tuple(number for size in self.sizes for number in size)
        return table(flat, self.x.device)


@lru_cache(maxsize=1024)
def _sizes(
    kernels: tuple[int, ...], dilations: tuple[int, ...], offsets: tuple[int, ...], channels: int
) -> tuple[tuple[int, int, int, int], ...]:
    """k (1 for the pixel as it is), dilation, offset and first tap of each convolution."""
    sizes, first = [], 0
    for kernel, dilation, offset in zip(kernels, dilations, offsets, strict=True):
        sizes.append((kernel, dilation, 0, first) if kernel else (1, 1, offset, -1))
        first += kernel * kernel * channels
    return tuple(sizes)


def _padded(pointwise: Sequence[Tensor], first_rows: Numbers, channels: int) -> list[Tensor]:
    """What, one behind the other, are pointwise weights `[C, C]` with zeros in the other rows."""
    if all(len(weight) == channels for weight in pointwise):
        return [weight.reshape(-1) for weight in pointwise]
    zeros, pieces = pointwise[0].new_zeros(channels**2), list[Tensor]()
    for weight, row in zip(pointwise, first_rows, strict=True):
        after = channels - row - len(weight)
        pieces += [zeros[: row * channels], weight.reshape(-1), zeros[: after * channels]]
    return pieces
