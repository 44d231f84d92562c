"""The functions of columns by Triton kernels, with the arguments of the operators `cuda_operators`.

A few launches for what torch does in dozens: on a GPU it is they that a step of small tensors waits
for. Products of matrices are torch's. What the functions compute says `interface`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sgas_gcn.kernels import torch_columns
from sgas_gcn.kernels.triton import columns
from sgas_gcn.kernels.triton.mixture import mixture
from sgas_gcn.kernels.triton.rowwise import (
    head_dots,
    head_dots_backward,
    length_backward,
    skip_backward,
)


def norm_coefficients(
    sums: Tensor,
    count: int,
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """As `torch_columns.norm_coefficients`."""
    norms = (weight, bias, running_mean, running_var)
    partial = sums.contiguous().unsqueeze(0)
    return columns.coefficients_of(partial, count, *norms, training, momentum, eps)


def column_sums(grad: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """As `torch_columns.column_sums`."""
    return columns.sums_of_columns(grad, y, mask).sum(0)


def norm_gradients(
    sums: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    count: int,
    training: bool,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch_columns.norm_gradients`."""
    edges = 1 if scale is None else scale.numel()
    partial = sums.contiguous().unsqueeze(0)
    return columns.gradients_of(partial, coefficients, scale, edges, count, training, like)[:3]


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
    """As `torch_columns.relu_norm_`."""
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
    """As `torch_columns.relu_norm_backward`."""
    partial = columns.sums_of_columns(grad, y, None)
    factors, affine, _, of_edge = columns.gradients_of(
        partial, coefficients, scale, edges, len(y), training, y
    )
    if out is not None:
        columns.by_factors(grad, y, factors, negative_slope, out)
    return affine, of_edge


def linear_norm(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    negative_slope: float,
    norm_weight: Sequence[Tensor],
    norm_bias: Sequence[Tensor],
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """As in `Backend`."""
    y = torch_columns.linear(inputs, weight, bias)
    norms = (norm_weight, norm_bias, running_mean, running_var)
    return y, relu_norm_(y, negative_slope, *norms, training, momentum, eps)


def linear_norm_backward(
    grad: Tensor,
    y: Tensor,
    coefficients: Tensor,
    scale: Tensor | None,
    edges: int,
    training: bool,
    negative_slope: float,
    inputs: Sequence[Tensor],
    weight: Tensor,
    grad_inputs: Sequence[Tensor],
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As in `Backend`."""
    grad_h = torch.empty_like(y, memory_format=torch.contiguous_format)
    affine, of_scale = relu_norm_backward(
        grad, y, coefficients, scale, edges, training, negative_slope, grad_h
    )
    gradients = torch_columns.linear_backward(
        grad_h, inputs, weight, grad_inputs, of_weight, of_bias
    )
    return affine, of_scale, *gradients


# By the operators' names.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu_norm_": relu_norm_,
    "relu_norm_backward": relu_norm_backward,
    "norm_coefficients": norm_coefficients,
    "column_sums": column_sums,
    "norm_gradients": norm_gradients,
    "head_dots": head_dots,
    "head_dots_backward": head_dots_backward,
    "linear_norm": linear_norm,
    "linear_norm_backward": linear_norm_backward,
    "mixture": mixture,
    "skip_backward": skip_backward,
    "length_backward": length_backward,
}
