"""What fused states do to rows, column by column, by Triton kernels: the twin of `pointwise_torch`.

A few launches for what torch does in dozens: on a GPU it is they that a step of small tensors waits
for. Products of matrices are torch's. Functions, arguments and results are the twin's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from sgas_gcn.kernels import pointwise_torch
from sgas_gcn.kernels.triton import columns
from sgas_gcn.kernels.triton.mixture import mixture
from sgas_gcn.kernels.triton.rowwise import (
    head_dots,
    head_dots_backward,
    length_backward,
    skip_backward,
)

__all__ = [
    "apply_factors",
    "column_sums",
    "head_dots",
    "head_dots_backward",
    "length_backward",
    "linear_norm",
    "linear_norm_backward",
    "mixture",
    "norm_coefficients",
    "norm_gradients",
    "relu_norm_",
    "relu_norm_backward",
    "relu_sums_",
    "skip_backward",
]


def relu_sums_(h: Tensor, negative_slope: float) -> Tensor:
    """As `pointwise_torch.relu_sums_`."""
    return columns.activation_sums(h, negative_slope).sum(0)


def norm_coefficients(sums: Tensor, count: int, *norms: Any) -> Tensor:
    """As `pointwise_torch.norm_coefficients`."""
    return columns.coefficients_of(sums.contiguous().unsqueeze(0), count, *norms)


def column_sums(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """As `pointwise_torch.column_sums`."""
    return columns.sums_of_columns(grad, y, mask).sum(0)


def norm_gradients(
    sums: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `pointwise_torch.norm_gradients`."""
    edges = 1 if scale is None else scale.numel()
    partial = sums.contiguous().unsqueeze(0)
    return columns.gradients_of(partial, coefficients, scale, edges, count, training, like)[:3]


def apply_factors(
    grad: Tensor, y: Tensor, factors: Tensor, negative_slope: float, out: Tensor
) -> None:
    """As `pointwise_torch.apply_factors`."""
    columns.by_factors(grad, y, factors, negative_slope, out)


def relu_norm_(
    h: Tensor,
    negative_slope: float,
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """As `pointwise_torch.relu_norm_`."""
    partial = columns.activation_sums(h, negative_slope)
    norms = (weight, bias, running_mean, running_var)
    return columns.coefficients_of(partial, len(h), *norms, training, momentum, eps)


def relu_norm_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    edges: int,
    training: bool,
    negative_slope: float,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `pointwise_torch.relu_norm_backward`."""
    partial = columns.sums_of_columns(grad, y, None)
    given = (partial, coefficients, scale, edges, len(y), training, y)
    factors, affine, _, of_edge = columns.gradients_of(*given)
    if out is not None:
        columns.by_factors(grad, y, factors, negative_slope, out)
    return affine, of_edge


linear_norm = partial(pointwise_torch.linear_norm, relu_norm=relu_norm_)
linear_norm_backward = partial(
    pointwise_torch.linear_norm_backward, relu_norm_backward=relu_norm_backward
)
