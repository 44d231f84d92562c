"""The Triton kernels of the depthwise convolution against sums over shifted images.

Interpreted on the CPU; `test_all_of_this_holds_compiled` runs the file again on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from triton_runs import DEVICE, pass_compiled, run_alone, triton_kernels

from sgas_cnn.kernels import depthwise_conv

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
# Kernel, stride, dilation, channels, rows, columns: odd and even sizes, images below the kernel's.
CASES = [
    (3, 1, 1, 1, 5, 4),
    (3, 1, 2, 17, 4, 5),
    (3, 2, 1, 3, 5, 6),
    (3, 2, 2, 32, 6, 5),
    (5, 1, 1, 3, 3, 4),
    (5, 2, 2, 3, 6, 3),
    (7, 1, 1, 3, 4, 4),
]


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with triton_kernels():
        yield


def plain_depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Σ over taps (a, b) of weight_ab · x shifted by (a, b), of zeros outside the image."""
    kernel, (height, width) = weight.shape[-1], x.shape[2:]
    edge = dilation * (kernel // 2)
    padded = F.pad(x, (edge, edge, edge, edge))
    out = torch.zeros_like(x)
    for a in range(kernel):
        for b in range(kernel):
            rows = slice(a * dilation, a * dilation + height)
            columns = slice(b * dilation, b * dilation + width)
            out = out + weight[:, 0, a, b].view(-1, 1, 1) * padded[:, :, rows, columns]
    return out[:, :, ::stride, ::stride]


def inputs_of(
    kernel: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Two random images, channels-last, and the taps."""
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator, dtype=torch.float64)
    x = x.to(DEVICE, dtype, memory_format=torch.channels_last).requires_grad_()
    return x, weight.to(DEVICE, dtype).requires_grad_()


Convolution = Callable[[Tensor, Tensor, int, int], Tensor]


def output_and_gradients(
    function: Convolution, x: Tensor, weight: Tensor, stride: int, dilation: int
) -> list[Tensor]:
    """What a convolution returns, and both gradients for a fixed one of its output."""
    out = function(x, weight, stride, dilation)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out, *torch.autograd.grad(out, (x, weight), grad)]


def assert_close(ours: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for mine, theirs in zip(ours, wanted, strict=True):
        scale = max(float(theirs.detach().abs().max()), 1.0) if theirs.numel() else 1.0
        torch.testing.assert_close(
            mine.double(), theirs.double(), rtol=0, atol=tolerance * scale, check_stride=False
        )


@pytest.mark.parametrize(("kernel", "stride", "dilation", "channels", "height", "width"), CASES)
def test_output_and_gradients_are_those_of_the_plain_formula(
    kernel: int, stride: int, dilation: int, channels: int, height: int, width: int
) -> None:
    inputs = (*inputs_of(kernel, channels, height, width), stride, dilation)
    found = output_and_gradients(depthwise_conv, *inputs)
    assert_close(found, output_and_gradients(plain_depthwise, *inputs), 1e-12)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in found[:2])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_narrow_types_are_summed_in_float32(dtype: torch.dtype) -> None:
    x, weight = inputs_of(3, 3, 4, 4, dtype)
    found = output_and_gradients(depthwise_conv, x, weight, 2, 1)
    exact = [part.detach().double().requires_grad_() for part in (x, weight)]
    wanted = output_and_gradients(plain_depthwise, exact[0], exact[1], 2, 1)
    assert [part.dtype for part in found] == [dtype] * 3
    assert_close(found, wanted, TOLERANCE[dtype])


def test_many_pixels_are_summed_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tiles than one program takes, the last one not full."""
    from sgas_cnn.kernels.triton import geometry, weight_gradient

    monkeypatch.setattr(geometry, "TILE", 32)
    monkeypatch.setattr(weight_gradient, "RUN", 2)
    inputs = (*inputs_of(3, 3, 5, 5), 1, 1)
    found = output_and_gradients(depthwise_conv, *inputs)
    assert_close(found, output_and_gradients(plain_depthwise, *inputs), 1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck(stride: int) -> None:
    inputs = inputs_of(3, 2, 3, 3)
    assert torch.autograd.gradcheck(
        lambda x, weight: depthwise_conv(x, weight, stride, 1), inputs, fast_mode=True
    )


def test_inputs_and_gradients_may_have_any_strides() -> None:
    x, weight = inputs_of(3, 4, 4, 4)
    packed = output_and_gradients(depthwise_conv, x, weight, 1, 1)
    gaps = torch.stack([x, x], -1).detach()[..., 0].requires_grad_()
    turned = weight.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    assert_close(output_and_gradients(depthwise_conv, gaps, turned, 1, 1), packed, 1e-14)
    total = depthwise_conv(x, weight).sum()  # its gradient has stride 0
    for found in torch.autograd.grad(total, (x, weight)):
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
def test_no_images_no_channels_no_pixels(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape, dtype=torch.float64, device=DEVICE, requires_grad=True)
    weight = torch.ones(shape[1], 1, 3, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    out, grad_x, grad_weight = output_and_gradients(depthwise_conv, x, weight, 1, 1)
    assert out.shape == grad_x.shape == shape
    assert grad_weight.shape == weight.shape and not grad_weight.any()


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    x, weight = inputs_of(3, 3, 4, 4)
    (alone,) = torch.autograd.grad(depthwise_conv(x, weight.detach()).sum(), x)
    both = torch.autograd.grad(depthwise_conv(x, weight).sum(), (x, weight))
    assert torch.equal(alone, both[0])


def test_autocast_takes_both_in_its_type() -> None:
    x, weight = inputs_of(3, 3, 4, 4, torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        out = depthwise_conv(x, weight)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().sum(), (x, weight))
    assert [grad.dtype for grad in grads] == [torch.float32] * 2


def test_torch_knows_the_operator() -> None:
    """Schema, autograd, fake tensors and tracing, as torch.compile relies on them."""
    from sgas_cnn.kernels import cuda_backend

    torch.library.opcheck(cuda_backend._depthwise, (*inputs_of(3, 2, 3, 3), 2, 1))


COMPILE = """
import sys
sys.path[:0] = ["tests"]
import torch
from compile_kernels import compiled
from sgas_cnn.kernels.cuda_backend import depthwise_conv

def program():
    x = torch.zeros(2, 17, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(17, 1, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    depthwise_conv(x, weight, 2, 1).sum().backward()

print(sorted(compiled(program, (80,)).items()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here() -> None:
    names = ("_forward_kernel", "_input_gradient_kernel", "_weight_gradient_kernel")
    launched = run_alone([sys.executable, "-c", COMPILE], {})
    assert launched.strip() == str([(name, 1) for name in names])


@pytest.mark.gpu
def test_all_of_this_holds_compiled() -> None:
    pass_compiled(__file__)
