"""Features that are an affine map of few numbers, or mostly 0, and products with them.

Affine ones are never written: the stem of point clouds maps 3 coordinates to 3C channels. A layer
that reads its output A p + b has W (A p + b) = (W A) p + W b: a product with a point's coordinates
and a 1. Gradients come to W, A and b by way of the small matrices W A and W b.
Sparse ones, such as counts of words, are torch's tensors of coordinates. Dimensions: N rows, D
features, c numbers that they come from, Z values that are not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Affine:
    """Features inputs · matrixᵀ: `inputs` `[N, c + 1]`, the last a 1, `matrix` `[D, c + 1]`."""

    inputs: Tensor
    matrix: Tensor


Features = Tensor | Affine


def with_ones(x: Tensor) -> Tensor:
    """`x` `[N, c]` and a column of ones: `[N, c + 1]`."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def sparse(x: Tensor) -> Tensor:
    """`x` `[N, D]` as a sparse tensor of coordinates, row after row."""
    return x.to_sparse().coalesce()


def with_values(x: Tensor, values: Tensor) -> Tensor:
    """Sparse features with other values `[Z]` in the same places."""
    return torch.sparse_coo_tensor(
        x.indices(), values, x.shape, is_coalesced=True, check_invariants=False
    )


def sparse_product(x: Tensor, weight: Tensor) -> Tensor:
    """x · weightᵀ `[N, out]` of sparse features and `[out, D]`, in the type of `weight`."""
    with torch.autocast(weight.device.type, enabled=False):
        product: Tensor = torch.sparse.mm(x, weight.t().contiguous())
    return product


def reduced(x: Features, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix and a weight whose product is that of the features and `weight`."""
    if isinstance(x, Affine):
        return x.inputs, weight @ x.matrix
    return x, weight


def reduced_parts(several: Sequence[Features], weight: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """`reduced` of features side by side, each a matrix; the weight is `[out, D]`."""
    widths = [len(x.matrix) if isinstance(x, Affine) else x.shape[1] for x in several]
    pairs = [reduced(x, own) for x, own in zip(several, weight.split(widths, dim=1), strict=True)]
    return tuple(matrix for matrix, _ in pairs), torch.cat([own for _, own in pairs], dim=1)
