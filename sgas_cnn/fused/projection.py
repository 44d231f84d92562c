"""Pointwise convolutions of R(x) that keep x alone for the backward pass.

y = W R(x),  dW = dy' R(x),  dx = [x > 0] W' dy.

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

from sgas.precision import narrowed


def relu_conv(x: Tensor, weight: Tensor) -> Tensor:
    """W R(x): `[N, C, H, W]` and `weight` `[out, C, 1, 1]` give `[N, out, H, W]`, channels last."""
    image = x.permute(0, 2, 3, 1).contiguous()
    return _ReluConv.apply(*narrowed(image, weight.flatten(1))).permute(0, 3, 1, 2)


class _ReluConv(torch.autograd.Function):
    """The function on `[N, H, W, C]`; `weight` `[out, C]`."""

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
