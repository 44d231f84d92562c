"""What fused states do to rows, column by column; operators and conventions as in the twin."""

from __future__ import annotations

from sgas_gcn.kernels.pointwise_torch import (
    AFFINE,
    BROADCAST,
    LENGTH,
    MASKED,
    apply_factors,
    column_sums,
    length_backward,
    mixture,
    norm_coefficients,
    norm_gradients,
    relu_sums_,
)

__all__ = [
    "AFFINE",
    "BROADCAST",
    "LENGTH",
    "MASKED",
    "apply_factors",
    "column_sums",
    "length_backward",
    "mixture",
    "norm_coefficients",
    "norm_gradients",
    "relu_sums_",
]
