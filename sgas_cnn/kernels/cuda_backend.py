"""Depthwise convolution by Triton kernels: on CUDA, or interpreted on any device.

It is an operator of torch (namespace `sgas_cnn_cuda`) with its gradient and its shapes for fake
tensors, opaque to torch.compile, so that one form holds for compiled and interpreted kernels. Sums
run in float32, of float64 in float64. Gradients are exact and can be taken once. Dimensions:
B images, C channels, H × W pixels, k × k taps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas_cnn.kernels.triton.forward import forward
from sgas_cnn.kernels.triton.geometry import Geometry, empty_images
from sgas_cnn.kernels.triton.input_gradient import input_gradient
from sgas_cnn.kernels.triton.weight_gradient import weight_gradient


def depthwise_conv(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """`x` `[B, C, H, W]` with each channel convolved by its kernel in `weight` `[C, 1, k, k]`.

    k is odd and the padding keeps the size at stride 1; at stride 2 it is halved, rounded up.
    """
    return _depthwise(x, weight, stride, dilation)


def depthwise_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    dilation: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `depthwise_conv` by `x` `[B, C, H, W]` and `weight`, None where not wanted."""
    given = (grad, x, weight, stride, dilation)
    return (
        _input_gradient(*given) if wanted[0] else None,
        _weight_gradient(*given) if wanted[1] else None,
    )


@torch.library.custom_op("sgas_cnn_cuda::depthwise", mutates_args=())
def _depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    with torch.cuda.device_of(x):
        return forward(x, weight, stride, dilation)


@_depthwise.register_fake
def _(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    return empty_images(x, Geometry.of(x, weight, stride, dilation).output)


@torch.library.custom_op("sgas_cnn_cuda::depthwise_input_gradient", mutates_args=())
def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    with torch.cuda.device_of(grad):
        return input_gradient(grad, weight, Geometry.of(x, weight, stride, dilation))


@_input_gradient.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    return empty_images(grad, tuple(x.shape))


@torch.library.custom_op("sgas_cnn_cuda::depthwise_weight_gradient", mutates_args=())
def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    with torch.cuda.device_of(grad):
        found = weight_gradient(x, grad, Geometry.of(x, weight, stride, dilation))
    return found.to(weight.dtype)


@_weight_gradient.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.stride, ctx.dilation = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight = ctx.saved_tensors
    sizes = (ctx.stride, ctx.dilation)
    found = depthwise_gradients(grad, x, weight, *sizes, ctx.needs_input_grad[:2])
    return *found, None, None


_depthwise.register_autograd(_backward, setup_context=_context)
