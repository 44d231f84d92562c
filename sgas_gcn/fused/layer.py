"""A linear layer, its activation and its batch norm as one autograd function.

y = leaky ReLU(W x + b) with any slope (0: ReLU, 1: none), then slope · y + shift by columns. Alone
x and y are kept. Backward by `fused.norms` with w = 1; it is y's sign that tells the activation's.
Under autocast products round their factors to its type; all else is float32.
Dimensions: N rows, D columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas.native.precision import narrow_type, product, without_autocast
from sgas_gcn.constants import EPS
from sgas_gcn.kernels.backend import backend_of
from sgas_gcn.kernels.protocol import Normed, Norms, Term


def linear_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Any,
    negative_slope: float,
) -> Tensor:
    """BN(leaky ReLU(W x + b)) `[N, D]`; in training the running statistics of `norm` move."""
    return _LinearNorm.apply(
        norm, negative_slope, narrow_type(x), x, weight, bias, norm.weight, norm.bias
    )


class _LinearNorm(Function):
    """γ (y − μ) / σ + β with y = R(h), h = W x + b, and R the leaky ReLU.

    With G the gradient of it, that of y is f0 G + f1 + f2 y with the factors of `fused.norms`, and
    that of h, H, the same where y > 0 and times the slope elsewhere; then W' H of x, H x' of W,
    Σ H of b, and Σ G (y − μ) / σ and Σ G of γ and β.
    """

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,
        norm: Any,
        negative_slope: float,
        narrow: torch.dtype | None,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
    ) -> Tensor:
        statistics = ([norm.running_mean], [norm.running_var])
        norms = Norms([gamma], [beta], *statistics, norm.training, norm.momentum, EPS)
        backend = backend_of(x)
        if narrow is None:
            y, coefs = backend.linear_norm([x], weight, bias, negative_slope, norms)
        else:
            y = product(x, weight.t(), narrow) + (0 if bias is None else bias)
            coefs = backend.relu_norm_(y, negative_slope, norms)
        (out,), _ = backend.mixture([Term(y, coefs, slots=[0])], None, [None], y.shape[1], 0.0)
        ctx.training, ctx.negative_slope, ctx.narrow = norm.training, negative_slope, narrow
        ctx.save_for_backward(x, weight, y, coefs)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y, coefs = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_norm, _ = ctx.needs_input_grad[3:]
        normed = Normed(y, coefs, None, 1, ctx.training, ctx.negative_slope)
        backend = backend_of(grad)
        grad_x: Tensor | None = None
        of_weight: Tensor | None
        if ctx.narrow is None:
            if needs_x:
                grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format)
            buffers = [] if grad_x is None else [grad_x]
            (of_gamma, of_beta), _, of_weight, of_bias = backend.linear_norm_backward(
                grad, normed, [x], weight, buffers, needs_weight, needs_bias
            )
        else:
            grad_h = torch.empty_like(y)
            (of_gamma, of_beta), _ = backend.relu_norm_backward(grad, normed, grad_h)
            grad_x = product(grad_h, weight, ctx.narrow) if needs_x else None
            of_weight = product(grad_h.t(), x, ctx.narrow) if needs_weight else None
            of_bias = grad_h.sum(0)
        return (
            *(None, None, None, grad_x),
            of_weight if needs_weight else None,
            of_bias if needs_bias else None,
            *((of_gamma, of_beta) if needs_norm else (None, None)),
        )
