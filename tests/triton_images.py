"""Arguments of the primitives of images for tests of Triton kernels, and a cell to run them in."""

from __future__ import annotations

from typing import Any

import torch
from image_kernels import Size, image
from torch import Tensor
from triton_runs import DEVICE

from sgas.cells.edges import CellEdge, CellLayout
from sgas_cnn.edges import CellEdges
from sgas_cnn.kernels.protocol import (
    RECORDS,
    Convolutions,
    Fold,
    Mixture,
    MixtureBackward,
    SeparableBackward,
    Unfold,
)
from sgas_cnn.ops.image import IMAGE_OPERATIONS

Record = (Convolutions, *RECORDS.values())


def moved(value: Any, device: str, dtype: torch.dtype) -> Any:
    """The value with all tensors in it on a device, in a type."""
    if isinstance(value, Tensor):
        return value.detach().to(device, dtype)
    if isinstance(value, list | tuple):
        values = [moved(v, device, dtype) for v in value]
        return type(value)._make(values) if isinstance(value, Record) else type(value)(values)
    return value


def some_of(convolutions: Convolutions, kinds: list[int]) -> Convolutions:
    """Some of the convolutions of a bank."""
    inputs, scales, shifts, *lists, stride = convolutions
    taps, dilations, offsets, pointwise, first_rows = ([v[i] for i in kinds] for v in lists)
    if scales is not None:
        inputs, scales, shifts = [inputs[i] for i in kinds], scales[kinds], shifts[kinds]
    return Convolutions(
        inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride
    )


def backward_of(
    convolutions: Convolutions, outputs: list[Tensor], *wants: Any
) -> SeparableBackward:
    """What `separable_backward` takes; without a wanted gradient of inputs, no corrections."""
    x, scales, num = convolutions.inputs[0], convolutions.scales, len(convolutions.taps)
    gradients = [torch.randn_like(outputs[0]) for _ in range(3)]
    factors, slopes, constants = torch.randn(3, num, x.shape[-1], dtype=x.dtype)
    return SeparableBackward(
        gradients, [i % 3 for i in range(num)], factors, outputs,
        *((slopes, constants) if wants[0] else (None, None)), convolutions,
        None if scales is None else factors + 1, torch.randn_like(x) if scales is None else None,
        *wants,
    )  # fmt: skip


def mixing(size: Size, dtype: torch.dtype, slots: int) -> tuple[Mixture, MixtureBackward]:
    """What `mixture` and `mixture_backward` take: parts on slots but the last, two images."""
    channels = size[0]
    parts, linear = ([image(size, dtype) for _ in range(n)] for n in (slots + 1, 2))
    slot_of = [i % (slots - 1) for i in range(len(parts))]
    factors = torch.randn(len(parts), channels, dtype=dtype)
    coefficients = torch.randn(slots, 2, channels, dtype=dtype)
    bias, middles = torch.randn(slots, channels, dtype=dtype), torch.randn(2, channels, dtype=dtype)
    before = [image(size, dtype) for _ in range(2)]
    gradients = [image(size, dtype) for _ in range(slots)]
    return (
        Mixture(before, [slots - 1, 0], parts, slot_of, factors, linear, coefficients, bias),
        MixtureBackward(gradients, parts, slot_of, factors, linear, middles, coefficients, True),
    )


def folding(dtype: torch.dtype) -> tuple[Fold, Unfold]:
    """What `fold` and `unfold` take; weights that nothing, one row and two rows have."""
    rows, places, slot_of = [1, 0, -1, 1, 2], [2, -1, 0, -2, 2], [0, 1, 1, 0, 2]
    mean, gamma, beta, crossed = torch.randn(4, 5, 3, dtype=dtype)
    sums, weights = torch.randn(3, 3, dtype=dtype), torch.randn(4, dtype=dtype)
    inverse = torch.rand(5, 3, dtype=dtype) + 0.5
    rest = gamma, beta, weights, places, slot_of
    return (
        Fold(mean[:3], inverse[:3], rows, *rest, 3, 1e-5),
        Unfold(gamma, mean, inverse, rows, *rest, crossed, sums, 30),
    )


def cell(num_edges: int, ops: list[str], channels: int, stride: int) -> CellEdges:
    """A cell whose edges all leave its one input, each for a step of its own."""
    ends = tuple(CellEdge(0, step, tuple(ops)) for step in range(num_edges))
    layout, strides = CellLayout(ends, num_edges, (1, 2)), [stride] + [1] * num_edges
    made = {"table": IMAGE_OPERATIONS, "candidates": ops, "affine": False}
    return CellEdges(layout, channels, strides, **made).to(DEVICE)
