"""Every candidate operation: the table's contract, the plain formula, the published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden_arrays import close, read_arrays
from node_operations import gradients
from torch import Tensor

from sgas_cnn.config import OPERATIONS
from sgas_cnn.kernels.torch_depthwise import join_phases, split_phases
from sgas_cnn.ops.image import IMAGE_OPERATIONS
from sgas_cnn.ops.layers import BatchNorm
from sgas_cnn.ops.nasbench201 import NASBENCH201_TABLE
from sgas_cnn.ops.operation import Operation

SIZES = [(2, 3, 4, 4), (6, 2, 8, 8), (4, 2, 7, 5), (2, 1, 6, 9)]  # channels, images, height, width
TABLES = {"image": IMAGE_OPERATIONS, "nasbench201": NASBENCH201_TABLE}
ALL = [("image", name, stride) for name in IMAGE_OPERATIONS for stride in (1, 2)]
ALL += [("nasbench201", name, 1) for name in NASBENCH201_TABLE]
AFFINE = pytest.mark.parametrize("affine", [False, True], ids=["search", "eval"])

Size = tuple[int, int, int, int]


def randomised(
    name: str, channels: int, stride: int, affine: bool, space: str = "image"
) -> Operation:
    """An operation in float64 whose norms, where they are affine, have weights of both signs."""
    op = TABLES[space][name](channels, stride, affine).double()
    for module in op.modules():
        if isinstance(module, BatchNorm) and module.weight is not None:
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return op


def random_images(size: Size, seed: int = 0) -> Tensor:
    channels, count, height, width = size
    torch.manual_seed(seed)
    x = torch.randn(count, channels, height, width, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


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
    pooled = windows.amax(-1) if largest else windows.nanmean(-1)
    return norm(getattr(op, "norm", None), pooled)  # NAS-Bench-201's has none


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
    "nor_conv_1x1": lambda op, x, stride: norm(op.norm, F.conv2d(F.relu(x), op.lin.weight)),
    "nor_conv_3x3": lambda op, x, stride: norm(
        op.norm, F.conv2d(F.relu(x), op.lin.weight, padding=1)
    ),
}


@pytest.mark.parametrize(("space", "name", "stride"), ALL)
@AFFINE
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_plain_formula(
    space: str, name: str, stride: int, affine: bool, size: Size
) -> None:
    x = random_images(size)
    op = randomised(name, size[0], stride, affine, space)
    ours, plain = op(x), PLAIN[name](op, x, stride)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)
    inputs = [x, *op.parameters()]
    for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(op(x), plain, rtol=1e-9, atol=1e-10)


@AFFINE
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS[1:])
def test_agrees_with_the_published_method(
    name: str, stride: int, affine: bool, golden: Path
) -> None:
    prefix = f"{'eval' if affine else 'search'}.{name}.s{stride}."
    stored = read_arrays(golden / "cnn_ops.npz")
    source = torch.from_numpy(stored["x"])
    arrays = {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in stored.items()
        if key.startswith(prefix)
    }
    op = randomised(name, source.shape[1], stride, affine)
    assert {f"w.{key}" for key, _ in op.named_parameters()} == {
        key for key in arrays if key.startswith("w.")
    }
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"w.{key}"].view_as(parameter))
    x = source.double().contiguous(memory_format=torch.channels_last).requires_grad_()

    out = op(x)
    (out * arrays["g"].double()).sum().backward()

    close(out, arrays["out"])
    close(x.grad, arrays["grad_x"])
    for key, parameter in op.named_parameters():
        close(parameter.grad, arrays[f"grad_w.{key}"].view_as(parameter))
    for key, buffer in op.named_buffers():
        close(buffer, arrays[f"after.{key}"])
    op.eval()
    close(op(x), arrays["out_eval"])


def test_phases_hold_every_second_pixel_and_join_again() -> None:
    x = random_images((3, 2, 6, 4))
    phases = split_phases(x)
    assert torch.equal(phases[2:4], x[:, :, ::2, 1::2])
    assert torch.equal(join_phases(phases), x)
