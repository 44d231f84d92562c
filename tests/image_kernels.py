"""What tests of the image kernels share: sizes, random images, arguments, tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgas_cnn.kernels.cpu_operators import described
from sgas_cnn.kernels.protocol import Convolutions

SMALL = (3, 2, 4, 5)  # C, N, H, W
SIZES = [SMALL, (1, 2, 7, 5), (3, 1, 8, 8), (16, 2, 9, 4), (17, 2, 5, 13), (40, 2, 6, 6)]
STRIPS = (8, 3, 20, 18)  # more tiles than dense kernels take at once
BACKENDS = ("torch", "cpu", "cuda")
# Triton's kernels are interpreted, which takes long: test_triton_primitives has more of them.
AT_ALL_SIZES = pytest.mark.parametrize(
    ("backend", "size"),
    [(name, size) for name in BACKENDS for size in SIZES if name != "cuda" or size == SMALL],
    indirect=["backend"],
    ids=str,
)
TAPS = [(kernel, dilation) for kernel in (3, 5, 7) for dilation in (1, 2)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
STRIDES = pytest.mark.parametrize("stride", [1, 2])

Size = tuple[int, int, int, int]


def needs_library() -> None:
    """Registers the compiled operators, for tests that are marked `compiled`."""
    described("sgas_cnn")


def image(size: Size, dtype: torch.dtype, stride: int = 1) -> Tensor:
    """A random image `[N, H/S, W/S, C]`."""
    channels, count, height, width = size
    halves = [-(-side // stride) for side in (height, width)]
    return torch.randn(count, *halves, channels, dtype=dtype)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """How far values about 1 may be apart."""
    return (
        {"rtol": 1e-10, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 2e-4}
    )


def bank(
    size: Size, dtype: torch.dtype, stride: int, mapped: bool, num_dense: int = 0
) -> Convolutions:
    """Separable convolutions of every kind: all taps, and pixels as they are.

    The last ones give half of the channels, the first or the last. Then dense ones.
    """
    channels = size[0]
    taps = [torch.randn(channels, 1, k, k, dtype=dtype) for k, _ in TAPS]
    taps += [torch.empty(0, dtype=dtype)] * stride
    num, half = len(taps), channels - channels // 2
    dilations = [d for _, d in TAPS] + [1] * stride
    offsets = [0] * len(TAPS) + list(range(stride))
    rows = [channels] * len(TAPS) + [half] * stride
    first_rows = [0] * (num - 1) + [channels - half]
    pointwise = [torch.randn(r, channels, 1, 1, dtype=dtype) for r in rows]
    taps += [torch.empty(0, dtype=dtype)] * num_dense
    pointwise += [torch.randn(channels, channels, 3, 3, dtype=dtype) for _ in range(num_dense)]
    num, dilations = num + num_dense, dilations + [1] * num_dense
    offsets, first_rows = offsets + [0] * num_dense, first_rows + [0] * num_dense
    inputs = [image(size, dtype) for _ in range(num if mapped else 1)]
    scales = torch.randn(num, channels, dtype=dtype) if mapped else None
    shifts = torch.randn(num, channels, dtype=dtype) if mapped else None
    return Convolutions(
        inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride
    )


def results_of_cell(
    cell: nn.Module, run: Callable[[], list[Tensor]], leaves: list[Tensor]
) -> list[Tensor]:
    """The states of a cell, the gradients by all leaves, and the running statistics thereafter."""
    for name, tensor in cell.named_buffers():
        tensor.fill_(0.7 if name.endswith("var") else 0.1)
    states = run()
    loss = sum(
        (x * torch.arange(x.numel(), device=x.device).view(x.shape).cos()).sum() for x in states
    )
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [*states, *gradients, *(buffer.clone() for buffer in cell.buffers())]


def tensors_of(*values: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    found: list[Tensor] = []
    for value in values:
        found += [value] if isinstance(value, Tensor) else []
        found += tensors_of(*value) if isinstance(value, list | tuple) else []
    return found


def close_to_scale(ours: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Equal up to rounding, of values as large as the largest."""
    share = 1e-11 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(
        ours, wanted, rtol=0, atol=share * wanted.abs().max().item(), check_stride=False
    )
