"""A linear layer, its activation and its batch norm as one autograd function.

y = leaky ReLU(W x + b) with any slope (0: ReLU, 1: none), then slope · y + shift by columns. Alone
x and y are kept. Backward by `fused.norms` with w = 1; it is y's sign that tells the activation's.
Dimensions: N rows, D columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas_gcn.constants import EPS, MOMENTUM
from sgas_gcn.kernels import pointwise


def linear_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: Any, negative_slope: float
) -> Tensor:
    """BN(leaky ReLU(W x + b)) `[N, D]`; in training the running statistics of `norm` move."""
    buffers = (norm.running_mean, norm.running_var)
    given = (x, weight, bias, norm.weight, norm.bias)
    return _LinearNorm.apply(buffers, norm.training, negative_slope, *given)


class _LinearNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        buffers: tuple[Tensor, Tensor],
        training: bool,
        negative_slope: float,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
    ) -> Tensor:
        statistics = ([buffers[0]], [buffers[1]], training, MOMENTUM, EPS)
        y, coefs = pointwise.linear_norm(
            [x], weight, bias, negative_slope, [gamma], [beta], *statistics
        )
        one_term = ([pointwise.AFFINE], [0], [1], None, None, [None], y.shape[1], 0.0)
        (out,), _ = pointwise.mixture([y], [coefs], *one_term)
        ctx.training, ctx.negative_slope = training, negative_slope
        ctx.save_for_backward(x, weight, y, coefs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y, coefs = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_norm, _ = ctx.needs_input_grad[3:]
        grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format) if needs_x else None
        (of_gamma, of_beta), _, of_weight, of_bias = pointwise.linear_norm_backward(
            *(grad, y, coefs, None, 1, ctx.training, ctx.negative_slope, [x], weight),
            [] if grad_x is None else [grad_x],
            needs_weight,
            needs_bias,
        )
        return (
            *(None, None, None),
            grad_x,
            of_weight if needs_weight else None,
            of_bias if needs_bias else None,
            *((of_gamma, of_beta) if needs_norm else (None, None)),
        )
