"""A linear layer, its activation and its batch norm as one autograd function.

y = leaky ReLU(W x + b) with any slope (0: ReLU, 1: none), then slope · y + shift by columns. Alone
x and y are kept. Backward by `fused.norms` with w = 1; it is y's sign that tells the activation's.
Under autocast products round their factors to its type; all else is float32.
Dimensions: N rows, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas.precision import narrow_type, product, without_autocast
from sgas_gcn.constants import EPS, MOMENTUM
from sgas_gcn.kernels import pointwise


def linear_norm(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    norm: Any,
    negative_slope: float,
) -> Tensor:
    """BN(leaky ReLU(W x + b)) `[N, D]`; in training the running statistics of `norm` move.

    The `inputs`, matrices of the same size, stand side by side in x.
    """
    buffers, narrow = (norm.running_mean, norm.running_var), narrow_type(inputs[0])
    if narrow is not None and len(inputs) > 1:
        inputs = [torch.cat(tuple(inputs), dim=1)]
    given = (weight, bias, norm.weight, norm.bias, *inputs)
    return _LinearNorm.apply(buffers, norm.training, negative_slope, narrow, *given)


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
        buffers: tuple[Tensor, Tensor],
        training: bool,
        negative_slope: float,
        narrow: torch.dtype | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        statistics = ([buffers[0]], [buffers[1]], training, MOMENTUM, EPS)
        given = negative_slope, [gamma], [beta], *statistics
        if narrow is None:
            y, coefs = pointwise.linear_norm(inputs, weight, bias, *given)
        else:
            y = product(inputs[0], weight.t(), narrow) + (0 if bias is None else bias)
            coefs = pointwise.relu_norm_(y, *given)
        one_term = ([pointwise.AFFINE], [0], [1], None, None, [None], y.shape[1], 0.0)
        (out,), _ = pointwise.mixture([y], [coefs], *one_term)
        ctx.training, ctx.negative_slope, ctx.narrow = training, negative_slope, narrow
        ctx.save_for_backward(weight, y, coefs, *inputs)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, y, coefs, *inputs = ctx.saved_tensors
        needs_weight, needs_bias, needs_norm, _, *needs_inputs = ctx.needs_input_grad[4:]
        common = grad, y, coefs, None, 1, ctx.training, ctx.negative_slope
        of_inputs: list[Tensor] = []
        of_weight: Tensor | None = None
        if ctx.narrow is None:
            if any(needs_inputs):
                layout = torch.contiguous_format
                of_inputs = [torch.zeros_like(x, memory_format=layout) for x in inputs]
            (of_gamma, of_beta), _, of_weight, of_bias = pointwise.linear_norm_backward(
                *common, inputs, weight, of_inputs, needs_weight, needs_bias
            )
        else:
            grad_h = torch.empty_like(y)
            (of_gamma, of_beta), _ = pointwise.relu_norm_backward(*common, grad_h)
            of_inputs = [product(grad_h, weight, ctx.narrow)] if needs_inputs[0] else []
            of_weight = product(grad_h.t(), inputs[0], ctx.narrow) if needs_weight else None
            of_bias = grad_h.sum(0)
        return (
            *(None, None, None, None),
            of_weight if needs_weight else None,
            of_bias if needs_bias else None,
            *((of_gamma, of_beta) if needs_norm else (None, None)),
            *(of_inputs if of_inputs else (None,) * len(inputs)),
        )
