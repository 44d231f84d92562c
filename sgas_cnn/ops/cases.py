"""What every operation on images is tried on by `sgas.testing`.

Dimensions: B images, C channels, H × W pixels, S the stride (1 or 2).
"""

from __future__ import annotations

import torch

from sgas.family import OperationCase


def _cases(strides: tuple[int, ...]) -> list[OperationCase]:
    cases = []
    for stride in strides:
        for count, channels, height, width in ((2, 4, 8, 8), (3, 2, 7, 5)):
            generator = torch.Generator().manual_seed(stride)
            shape = count, channels, height, width
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            x = x.contiguous(memory_format=torch.channels_last)
            sides = -(-height // stride), -(-width // stride)
            cases += [
                OperationCase((channels, stride, affine), x, (), (count, channels, *sides))
                for affine in (False, True)
            ]
    return cases


def image_cases() -> list[OperationCase]:
    """Images with even and with odd sides, on edges that halve them or not."""
    return _cases((1, 2))


def nasbench201_cases() -> list[OperationCase]:
    """The same, on edges that halve nothing."""
    return _cases((1,))
