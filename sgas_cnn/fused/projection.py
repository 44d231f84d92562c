"""Pointwise convolutions of R(x) that keep x alone for the backward pass; with their norm, y too.

At inference the norm is in weight and bias (`BatchNorm.folded`), and one product is all.

y = W R(x),  dW = dy' R(x),  dx = [x > 0] W' dy;  BN(y) = s y + b, dy = s g + S y + c as in
kernels/torch_norms.py.

x is one image for all that read it, where each would keep an R(x) of its own. Products are those of
matrices: torch's 1 × 1 convolution on the CPU is many times slower for few channels.
Dimensions: N images, H × W pixels, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgas.native.precision import narrowed, widened, without_autocast
from sgas_cnn.fused.parts import EPS
from sgas_cnn.fused.plan import ONE
from sgas_cnn.kernels.backend import backend_of
from sgas_cnn.kernels.protocol import (
    Fold,
    Follow,
    Mixture,
    MixtureBackward,
    Projection,
    ProjectionBackward,
    Unfold,
)


def relu_conv(x: Tensor, weight: Tensor) -> Tensor:
    """W R(x): `[N, C, H, W]` and `weight` `[out, C, 1, 1]` give `[N, out, H, W]`, channels last."""
    image = x.permute(0, 2, 3, 1).contiguous()
    return _ReluConv.apply(*narrowed(image, weight.flatten(1))).permute(0, 3, 1, 2)


class _ReluConv(torch.autograd.Function):
    """y = W R(x) on `[N, H, W, C]`, `weight` `[out, C]`; dW = dy' R(x), dx = [x > 0] W' dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(F.relu(x), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, len(weight))
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = torch.ops.aten.threshold_backward((rows @ weight).view(x.shape), x, 0)
        if ctx.needs_input_grad[1]:
            to_weight = rows.t() @ F.relu(x).view(-1, x.shape[-1])
        return to_x, to_weight


def relu_conv_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W R(x) + bias without gradients, in float32 under autocast; shapes as in `relu_conv`."""
    image = widened(x).permute(0, 2, 3, 1).contiguous()
    with torch.autocast(image.device.type, enabled=False):
        output: Tensor = backend_of(image).projection(Projection(image, weight, bias, False))[0]
    return output.permute(0, 3, 1, 2)


def relu_conv_norm(x: Tensor, weight: Tensor, norm: Any) -> Tensor:
    """BN(W R(x)): `[N, C, H, W]` and `weight` `[out, C, 1, 1]` give `[N, out, H, W]`.

    `norm` is a `BatchNorm`; its running statistics follow in training mode.
    """
    image = x.permute(0, 2, 3, 1).contiguous()
    return _ReluConvNorm.apply(image, weight, norm.weight, norm.bias, norm).permute(0, 3, 1, 2)


class _ReluConvNorm(torch.autograd.Function):
    """s y + b with y = W R(x) on `[N, H, W, C]`, and s and b those of the norm of y.

    With g the gradient of it, dy = s g + S y + c (kernels/torch_norms.py); then as `_ReluConv`.
    """

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, norm: Any
    ) -> Tensor:
        backend, training = backend_of(x), norm.training
        output, mean, var = backend.projection(Projection(x, weight, None, training))
        if not training:
            mean, var = norm.running_mean.unsqueeze(0), norm.running_var.unsqueeze(0)
        factors, bias, centres, inverse = backend.fold(
            Fold(mean, var, [0], _row(gamma), _row(beta), None, [ONE], [0], 1, EPS)
        )
        nothing = x.new_empty(1, 0, len(weight))
        (out,) = backend.mixture(Mixture([], [], [output], [0], factors, [], nothing, bias))
        ctx.pixels = output[..., 0].numel() if training else 0
        if training:
            unbiased = ctx.pixels / max(1, ctx.pixels - 1)
            running = [norm.running_mean], [norm.running_var]
            places = [0], [0], [len(weight)]
            backend.follow(Follow(*running, mean, var, *places, unbiased, norm.momentum))
        ctx.save_for_backward(x, weight, gamma, beta, output, factors, centres, inverse)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gamma, beta, output, factors, centres, inverse = ctx.saved_tensors
        backend, gradient = backend_of(x), gradient.contiguous()
        no_rows, no_poolings = factors[:0], factors[:0].unsqueeze(0)
        _, crossed, _, sums = backend.mixture_backward(
            MixtureBackward([gradient], [output], [0], centres, [], no_rows, no_poolings, False)
        )
        _, to_gamma, to_beta, slopes, constants = backend.unfold(
            Unfold(
                factors, centres, inverse, [0], _row(gamma), _row(beta), None, [ONE], [0],
                crossed, sums, ctx.pixels,
            )
        )  # fmt: skip
        by_batch, wanted = ctx.pixels > 0, ctx.needs_input_grad
        to_x, to_weight = backend.projection_backward(
            ProjectionBackward(
                gradient, factors, output, slopes if by_batch else None,
                constants if by_batch else None, x, weight, *wanted[:2],
            )
        )  # fmt: skip
        gradients = to_x, to_weight, to_gamma[0], to_beta[0]
        return *(g if w else None for g, w in zip(gradients, wanted, strict=False)), None


def _row(affine: Tensor | None) -> Tensor | None:
    return None if affine is None else affine.unsqueeze(0)
