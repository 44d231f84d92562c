"""The contract of the separable convolutions, over all backends: the plain formula, gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_kernels import (
    BACKENDS,
    SIZES,
    SMALL,
    STRIPS,
    Size,
    bank,
    close_to_scale,
    image,
    needs_library,
    tensors_of,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from triton_images import moved

from sgas_cnn.kernels.protocol import Convolutions, Separable, SeparableBackward, SeparableSum


def is_few(size: Size, stride: int, dtype: torch.dtype, kind: str) -> bool:
    """Whether a case is one of the three that do where kernels are interpreted."""
    return size == SMALL and dtype == torch.float64 and (kind == "mapped") == (stride == 2)


# Convolutions of one input, of an input each, or of one input with dense ones, which have stride 1,
# among them. test_triton_primitives has more of those by Triton.
IN_ALL_CASES = pytest.mark.parametrize(
    ("backend", "size", "stride", "dtype", "kind"),
    [
        (name, *case)
        for case in product(
            [*SIZES, STRIPS],
            (1, 2),
            (torch.float64, torch.float32),
            ("shared", "mapped", "dense"),
        )
        for name in BACKENDS
        if (case[1] == 1 or case[3] != "dense") and (name != "cuda" or is_few(*case))
    ],
    indirect=["backend"],
    ids=str,
)


def convolutions_of(kind: str, size: Size, stride: int, dtype: torch.dtype) -> Convolutions:
    return bank(size, dtype, stride, kind == "mapped", 2 if kind == "dense" else 0)


def conv(u: Tensor, weight: Tensor, dilation: int, offset: int, stride: int) -> Tensor:
    """The depthwise convolution by torch's own, or the pixels as they are."""
    x = u.permute(0, 3, 1, 2)
    if weight.numel() == 0:
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)) if offset else x
        out = x[:, :, offset::stride, offset::stride]
    else:
        padding = dilation * (weight.shape[-1] // 2)
        out = F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    return out.permute(0, 2, 3, 1)


def plain_separable(convolutions: Convolutions) -> tuple[list[Tensor], Tensor, Tensor]:
    inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride = convolutions
    outputs = []
    for i, weight in enumerate(taps):
        if scales is None or shifts is None:
            u = F.relu(inputs[0])
        else:
            u = F.relu(inputs[i] * scales[i] + shifts[i])
        if pointwise[i].shape[-1] > 1:
            dense = F.conv2d(u.permute(0, 3, 1, 2), pointwise[i], padding=1)
            outputs.append(dense.permute(0, 2, 3, 1))
            continue
        plane = conv(u, weight, dilations[i], offsets[i], stride)
        through = pointwise[i].flatten(1)
        out = torch.einsum("nhwc,oc->nhwo", plane, through)
        row, missing = first_rows[i], plane.shape[-1] - first_rows[i] - len(through)
        outputs.append(F.pad(out, (row, missing)))
    rows = [output.reshape(-1, output.shape[-1]) for output in outputs]
    means = torch.stack([row.mean(0) for row in rows])
    return outputs, means, torch.stack([row.var(0, correction=0) for row in rows])


@IN_ALL_CASES
def test_separable_equals_the_plain_formula(
    backend: Any, size: Size, stride: int, dtype: torch.dtype, kind: str
) -> None:
    torch.manual_seed(0)
    convolutions = convolutions_of(kind, size, stride, dtype)
    ours = backend.separable(Separable(convolutions, True))
    plain = plain_separable(convolutions)
    for a, b in zip(tensors_of(*ours), tensors_of(*plain), strict=True):
        close_to_scale(a, b, dtype)
    assert backend.separable(Separable(convolutions, False))[1].numel() == 0


@IN_ALL_CASES
def test_sums_of_separable_equal_the_plain_formula(
    backend: Any, size: Size, stride: int, dtype: torch.dtype, kind: str
) -> None:
    torch.manual_seed(3)
    convolutions, channels = convolutions_of(kind, size, stride, dtype), size[0]
    outputs, slots = plain_separable(convolutions)[0], [0, 2, 1]
    slot_of = [slots[i % 3] for i in range(len(outputs))]
    factors = torch.randn(len(outputs), channels, dtype=dtype)
    bias, before = torch.randn(3, channels, dtype=dtype), image(size, dtype, stride)
    kept = before.clone()
    ours = backend.separable_sum(SeparableSum(convolutions, [before], [1], slot_of, factors, bias))
    for slot, out in enumerate(ours):
        wanted = bias[slot] + (kept if slot == 1 else 0)
        for output, target, factor in zip(outputs, slot_of, factors, strict=True):
            wanted = wanted + factor * output if target == slot else wanted
        close_to_scale(out, wanted, dtype)
    assert torch.equal(before, kept)


@IN_ALL_CASES
def test_separable_backward_equals_autograd_of_the_plain_formula(
    backend: Any, size: Size, stride: int, dtype: torch.dtype, kind: str
) -> None:
    torch.manual_seed(1)
    leading, mapped = convolutions_of(kind, size, stride, dtype), kind == "mapped"
    channels, num = size[0], len(leading.taps)
    leaves = [t.requires_grad_() for t in tensors_of(*leading) if t.numel()]
    outputs, _, _ = plain_separable(leading)
    gradients = [image(size, dtype, stride) for _ in range(2)]
    gradient_of = [i % 2 for i in range(num)]
    factors, slopes, constants = torch.randn(3, num, channels, dtype=dtype)
    centres = torch.randn(num, channels, dtype=dtype) if mapped else None
    added = None if mapped else torch.randn_like(leading.inputs[0])
    pulled = [
        gradients[gradient_of[i]] * factors[i] + output.detach() * slopes[i] + constants[i]
        for i, output in enumerate(outputs)
    ]
    wanted = torch.autograd.grad(outputs, leaves, pulled, allow_unused=True)
    by_leaf = {id(leaf): g for leaf, g in zip(leaves, wanted, strict=True)}
    convolutions = moved(leading, "cpu", dtype)
    kept = [output.detach().contiguous() for output in outputs]

    def run(wants_inputs: bool, weights: list[bool]) -> Any:
        return backend.separable_backward(
            SeparableBackward(
                gradients, gradient_of, factors, kept, slopes, constants, convolutions, centres,
                added, wants_inputs, weights, weights,
            )
        )  # fmt: skip

    to_inputs, to_taps, to_pointwise, crossed, sums = run(True, [True] * num)
    for ours, weight in zip(
        (*to_taps, *to_pointwise), (*leading.taps, *leading.pointwise), strict=True
    ):
        if weight.numel():
            close_to_scale(ours, by_leaf[id(weight)], dtype)
    without, *nothing = run(True, [False] * num)[:3]
    for a, b in zip(without, to_inputs, strict=True):
        close_to_scale(a, b, dtype)
    assert not any(t.numel() for t in tensors_of(*nothing))
    if not mapped:
        assert run(False, [True] * num)[0] == []
        close_to_scale(to_inputs[0], by_leaf[id(leading.inputs[0])] + added, dtype)
        return
    of_scales, of_shifts = by_leaf[id(leading.scales)], by_leaf[id(leading.shifts)]
    for i, x in enumerate(leading.inputs):
        to_x = to_inputs[i] * convolutions.scales[i]
        close_to_scale(to_x, by_leaf[id(x)], dtype)
        centred = of_scales[i] - of_shifts[i] * centres[i]
        close_to_scale(crossed[i], centred, dtype)
        close_to_scale(sums[i], of_shifts[i], dtype)
        assert x.shape == to_inputs[i].shape


@pytest.mark.compiled
def test_flops_of_gradients_are_those_that_are_wanted() -> None:
    """With the depthwise half once more, where a pointwise weight has one."""
    needs_library()
    x, y = image((6, 2, 8, 8), torch.float64), image((6, 2, 8, 8), torch.float64, 2)
    taps, through = torch.randn(6, 1, 3, 3).double(), torch.randn(6, 6, 1, 1).double()
    given = [y], [0], torch.ones(1, 6).double(), [y], None, None, [x], None, None, [taps], [1], [0]
    for wanted, depthwise, pointwise in (
        ((True, False, False), 1, 1),
        ((True, True, False), 2, 1),
        ((True, True, True), 3, 2),
        ((False, False, True), 1, 1),
        ((False, True, False), 1, 1),
    ):
        of_x, of_taps, of_pointwise = wanted
        with FlopCounterMode(display=False) as counter:
            torch.ops.sgas_cnn.separable_backward(
                *(*given, [through], [0], 2, None, None, of_x, [of_taps], [of_pointwise])
            )
        assert counter.get_total_flops() == 2 * y.numel() * (depthwise * 9 + pointwise * 6)
    dense, nothing = torch.randn(6, 6, 3, 3).double(), torch.empty(0).double()
    given = [x], [0], given[2], [x], None, None, [x], None, None, [nothing], [1], [0]
    for wishes in ((True, False), (False, True), (True, True)):
        with FlopCounterMode(display=False) as counter:
            torch.ops.sgas_cnn.separable_backward(
                *(*given, [dense], [0], 1, None, None, wishes[0], [False], [wishes[1]])
            )
        assert counter.get_total_flops() == sum(wishes) * 2 * x.numel() * 6 * 9
    weight, of = torch.randn(4, 6, 1, 1).double(), torch.ones(1, 4).double()
    out = image((4, 2, 8, 8), torch.float64)
    for wishes in ((True, False), (False, True), (True, True)):
        with FlopCounterMode(display=False) as counter:
            torch.ops.sgas_cnn.projection_backward(out, of, out, None, None, x, weight, *wishes)
        assert counter.get_total_flops() == sum(wishes) * 2 * x.numel() * 4
