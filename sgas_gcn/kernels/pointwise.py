"""What fused states do to rows, column by column, by compiled or Triton kernels where these run.

The functions, their arguments and conventions are those of the twin in plain torch,
`pointwise_torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sgas.operators import first_tensors, is_derived, is_looked_at
from sgas_gcn.compiled import kernels_on
from sgas_gcn.kernels import pointwise_torch, triton_operators
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
    """What has the twin's name among the kernels that run, compiled or Triton's; else the twin.

    Where torch is to derive the results, it is the twin: these kernels' gradients are others of
    them, which fused functions call by hand.
    """

    def run(*given: Any) -> Any:
        kernels = kernels_on(next(first_tensors(given)))
        if kernels == "torch" or is_derived(given):
            return twin(*given)
        if kernels == "cpu":
            return getattr(operators(), twin.__name__)(*given)
        if is_looked_at(given):
            return getattr(triton_operators.OPERATORS, twin.__name__)(*given)
        return triton_operators.launch(twin.__name__, *given)

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
