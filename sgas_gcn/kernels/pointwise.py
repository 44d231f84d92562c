"""What fused states do to rows, column by column, by compiled or Triton kernels where these run.

The functions, their arguments and conventions are those of the twin in plain torch,
`pointwise_torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from sgas.operators import is_looked_at
from sgas_gcn.compiled import kernels_on
from sgas_gcn.kernels import pointwise_torch
from sgas_gcn.kernels.cpu_backend import operators
from sgas_gcn.kernels.pointwise_torch import AFFINE, BROADCAST, LENGTH, MASKED

__all__ = [
    "AFFINE",
    "BROADCAST",
    "LENGTH",
    "MASKED",
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

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(twin: Function) -> Function:
    """What has the twin's name among the kernels that run, compiled or Triton's; else the twin."""

    def run(first: Any, *others: Any) -> Any:
        x = first if isinstance(first, Tensor) else first[0]
        kernels = kernels_on(x)
        if kernels == "torch":
            return twin(first, *others)
        if kernels == "cpu":
            return getattr(operators(), twin.__name__)(first, *others)
        from sgas_gcn.kernels import pointwise_triton

        looked_at = is_looked_at(first, *others)
        by = pointwise_triton.operators() if looked_at else pointwise_triton
        with torch.cuda.device_of(x):
            return getattr(by, twin.__name__)(first, *others)

    run.__doc__, run.__name__ = twin.__doc__, twin.__name__
    return cast("Function", run)


relu_sums_ = _compiled(pointwise_torch.relu_sums_)
norm_coefficients = _compiled(pointwise_torch.norm_coefficients)
column_sums = _compiled(pointwise_torch.column_sums)
norm_gradients = _compiled(pointwise_torch.norm_gradients)
relu_norm_ = _compiled(pointwise_torch.relu_norm_)
relu_norm_backward = _compiled(pointwise_torch.relu_norm_backward)
head_dots = _compiled(pointwise_torch.head_dots)
head_dots_backward = _compiled(pointwise_torch.head_dots_backward)
linear_norm = _compiled(pointwise_torch.linear_norm)
linear_norm_backward = _compiled(pointwise_torch.linear_norm_backward)
apply_factors = _compiled(pointwise_torch.apply_factors)
skip_backward = _compiled(pointwise_torch.skip_backward)
mixture = _compiled(pointwise_torch.mixture)
length_backward = _compiled(pointwise_torch.length_backward)
