"""Every candidate operation: the table's contract, the plain formula, the published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_cnn.config import IMAGE_SPACE, OPERATIONS
from sgas_cnn.kernels.torch_depthwise import depthwise_conv, join_phases, split_phases
from sgas_cnn.ops.common import BatchNorm, Operation, SourceState
from sgas_cnn.ops.image import IMAGE_OPERATIONS

SIZES = [(2, 3, 4, 4), (6, 2, 8, 8), (4, 2, 7, 5), (2, 1, 6, 9)]  # channels, images, height, width
ALL = pytest.mark.parametrize("name", IMAGE_OPERATIONS)
AT_ALL_SIZES = pytest.mark.parametrize("size", SIZES, ids=str)
STRIDES = pytest.mark.parametrize("stride", [1, 2])
AFFINE = pytest.mark.parametrize("affine", [False, True], ids=["search", "eval"])

Size = tuple[int, int, int, int]


def randomised(name: str, channels: int, stride: int, affine: bool, count: int) -> list[Operation]:
    """Operations in float64 whose norms, where they are affine, have weights of both signs."""
    ops = [IMAGE_OPERATIONS[name](channels, stride, affine).double() for _ in range(count)]
    for op in ops:
        for module in op.modules():
            if isinstance(module, BatchNorm) and module.weight is not None:
                torch.nn.init.normal_(module.weight)
                torch.nn.init.normal_(module.bias)
    return ops


def random_images(size: Size, seed: int = 0) -> Tensor:
    channels, count, height, width = size
    torch.manual_seed(seed)
    x = torch.randn(count, channels, height, width, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def gradients(out: Tensor, inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    torch.manual_seed(99)
    if not out.requires_grad:
        return (None,) * len(inputs)
    weights = torch.randn(out.shape, dtype=out.dtype)  # randn_like would follow the memory format
    return torch.autograd.grad(out, inputs, weights, allow_unused=True)


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(IMAGE_OPERATIONS) == OPERATIONS + IMAGE_SPACE.published_only


@ALL
@STRIDES
@AFFINE
@AT_ALL_SIZES
def test_shape_and_finite_gradients(name: str, stride: int, affine: bool, size: Size) -> None:
    x = random_images(size)
    (op,) = randomised(name, size[0], stride, affine, 1)
    out = op(SourceState(x, stride))
    halves = [-(-side // stride) for side in size[2:]]
    assert out.shape == (size[1], size[0], *halves) and out.dtype == x.dtype
    for grad in gradients(out, [x, *op.parameters()]):
        assert torch.isfinite(grad).all() if grad is not None else name == "none"


@ALL
@STRIDES
@AFFINE
def test_many_edges_at_once_equal_each_alone(name: str, stride: int, affine: bool) -> None:
    x = random_images(SIZES[1])
    ops = randomised(name, 6, stride, affine, 3)
    scales = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    buffers = [buffer for op in ops for buffer in op.buffers()]
    fresh = [buffer.clone() for buffer in buffers]
    given = [scales[0], scales[1], None]
    together = torch.stack(type(ops[0]).evaluate(ops, SourceState(x, stride), given))
    statistics = [buffer.clone() for buffer in buffers]
    for buffer, values in zip(buffers, fresh, strict=True):
        buffer.data = values  # autograd still needs what the first pass left in the old storage
    factors = torch.cat([scales, torch.ones_like(scales[:1])]).view(3, 1, 6, 1, 1)
    alone = torch.stack([op(SourceState(x, stride)) for op in ops]) * factors
    torch.testing.assert_close(together, alone)
    inputs = [x, scales, *[p for op in ops for p in op.parameters()]]
    pairs = zip(gradients(together, inputs), gradients(alone, inputs), strict=True)
    for ours, wanted in pairs:
        zeros = torch.zeros_like(wanted) if wanted is not None else None
        torch.testing.assert_close(zeros if ours is None else ours, wanted)
    for ours, wanted in zip(statistics, buffers, strict=True):
        torch.testing.assert_close(ours, wanted)


@ALL
def test_evaluation_mode_uses_and_keeps_the_running_statistics(name: str) -> None:
    x = random_images(SIZES[1])
    (op,) = randomised(name, 6, 1, False, 1)
    for _ in range(200):
        trained = op(SourceState(x))
    op.eval()
    before = [buffer.clone() for buffer in op.buffers()]
    out = op(SourceState(x))
    assert all(torch.equal(a, b) for a, b in zip(before, op.buffers(), strict=True))
    # The running variance is unbiased, so the two differ by a percent of a deviation.
    torch.testing.assert_close(out, trained, rtol=0.1, atol=0.1)


def norm(bn: BatchNorm | None, x: Tensor) -> Tensor:
    """Batch norm over all but the channels, by its definition."""
    if bn is None:
        return x
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    x = (x - mean) / torch.sqrt(var + 1e-5)
    if bn.weight is None:
        return x
    return x * bn.weight.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)


def plain_pool(op: Operation, x: Tensor, stride: int, largest: bool) -> Tensor:
    """Pooling by its definition, window by window."""
    outside = float("-inf") if largest else float("nan")
    padded = F.pad(x, (1, 1, 1, 1), value=outside)
    windows = padded.unfold(2, 3, stride).unfold(3, 3, stride).flatten(-2)
    return norm(op.norm, windows.amax(-1) if largest else windows.nanmean(-1))


def plain_skip(op: Operation, x: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return x
    h = F.relu(x)
    odd = h[:, :, 1:, 1:]
    odd = F.pad(odd, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    halves = [F.conv2d(h, op.even.weight, stride=2), F.conv2d(odd, op.odd.weight, stride=2)]
    return norm(op.norm, torch.cat(halves, 1))


def plain_sep(op: Operation, x: Tensor, stride: int, k: int) -> Tensor:
    c = x.shape[1]
    h = F.conv2d(F.relu(x), op.dw1.weight, None, stride, k // 2, 1, c)
    h = F.relu(norm(op.norm1, op.pw1(h)))
    return norm(op.norm2, op.pw2(F.conv2d(h, op.dw2.weight, None, 1, k // 2, 1, c)))


def plain_dil(op: Operation, x: Tensor, stride: int, k: int) -> Tensor:
    h = F.conv2d(F.relu(x), op.dw.weight, None, stride, k - 1, 2, x.shape[1])
    return norm(op.norm, op.pw(h))


PLAIN: dict[str, Callable[[Operation, Tensor, int], Tensor]] = {
    "none": lambda op, x, stride: x[:, :, ::stride, ::stride] * 0,
    "max_pool_3x3": lambda op, x, stride: plain_pool(op, x, stride, True),
    "avg_pool_3x3": lambda op, x, stride: plain_pool(op, x, stride, False),
    "skip_connect": plain_skip,
    "sep_conv_3x3": lambda op, x, stride: plain_sep(op, x, stride, 3),
    "sep_conv_5x5": lambda op, x, stride: plain_sep(op, x, stride, 5),
    "dil_conv_3x3": lambda op, x, stride: plain_dil(op, x, stride, 3),
    "dil_conv_5x5": lambda op, x, stride: plain_dil(op, x, stride, 5),
    "sep_conv_7x7": lambda op, x, stride: plain_sep(op, x, stride, 7),
    "conv_7x1_1x7": lambda op, x, stride: norm(op.norm, op.column(op.row(F.relu(x)))),
}


@ALL
@STRIDES
@AFFINE
@AT_ALL_SIZES
def test_equals_the_plain_formula(name: str, stride: int, affine: bool, size: Size) -> None:
    x = random_images(size)
    (op,) = randomised(name, size[0], stride, affine, 1)
    ours, plain = op(SourceState(x, stride)), PLAIN[name](op, x, stride)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)
    inputs = [x, *op.parameters()]
    for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
        ours = torch.zeros_like(b) if a is None and b is not None else a
        torch.testing.assert_close(ours, b, rtol=1e-8, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(op(SourceState(x, stride)), plain, rtol=1e-9, atol=1e-10)


@AFFINE
@STRIDES
@pytest.mark.parametrize("name", OPERATIONS[1:])
def test_agrees_with_the_published_method(
    name: str, stride: int, affine: bool, golden: Path
) -> None:
    prefix = f"{'eval' if affine else 'search'}.{name}.s{stride}."
    with np.load(golden / "cnn_ops.npz", allow_pickle=False) as file:
        source = torch.from_numpy(file["x"])
        arrays = {
            key.removeprefix(prefix): torch.from_numpy(file[key])
            for key in file.files
            if key.startswith(prefix)
        }
    (op,) = randomised(name, source.shape[1], stride, affine, 1)
    assert {f"w.{key}" for key, _ in op.named_parameters()} == {
        key for key in arrays if key.startswith("w.")
    }
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"w.{key}"].view_as(parameter))
    x = source.double().contiguous(memory_format=torch.channels_last).requires_grad_()

    out = op(SourceState(x, stride))
    (out * arrays["g"].double()).sum().backward()

    close(out, arrays["out"])
    close(x.grad, arrays["grad_x"])
    for key, parameter in op.named_parameters():
        close(parameter.grad, arrays[f"grad_w.{key}"].view_as(parameter))
    for key, buffer in op.named_buffers():
        close(buffer, arrays[f"after.{key}"])
    op.eval()
    close(op(SourceState(x, stride)), arrays["out_eval"])


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item()
    )


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("frozen", [False, True])
def test_depthwise_convolution_equals_the_grouped_one(kernel: int, frozen: bool) -> None:
    x = random_images((3, 2, 6, 5))
    weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=not frozen)
    inputs = [x] if frozen else [x, weight]
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        ours = depthwise_conv(x, weight, stride, dilation)
        padding = dilation * (kernel // 2)
        wanted = F.conv2d(x, weight, None, stride, padding, dilation, 3)
        torch.testing.assert_close(ours, wanted)
        for a, b in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
            torch.testing.assert_close(a, b)


def test_phases_hold_every_second_pixel_and_join_again() -> None:
    x = random_images((3, 2, 6, 4))
    phases = split_phases(x)
    assert torch.equal(phases[2:4], x[:, :, ::2, 1::2])
    assert torch.equal(join_phases(phases), x)


@pytest.mark.parametrize("name", ["max_pool_3x3", "dil_conv_3x3"])
def test_each_form_of_a_state_is_computed_once(name: str) -> None:
    x = random_images(SIZES[1])
    state = SourceState(x)
    ops = randomised(name, 6, 1, False, 2)
    type(ops[0]).evaluate(ops, state, [None, None])
    forms = ("max_pooled",) if name == "max_pool_3x3" else ("relu", "dilated_relu")
    before = [getattr(state, form) for form in forms]
    type(ops[0]).evaluate(ops, state, [None, None])
    assert all(getattr(state, form) is known for form, known in zip(forms, before, strict=True))
