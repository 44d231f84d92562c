"""Features that are not one matrix, and products with them that never write it.

What stands side by side comes in parts, and each gets its own gradient. The stem of point clouds
maps 3 coordinates to 3C channels. A layer that reads its output A p + b has
W (A p + b) = (W A) p + W b: a product with a point's coordinates and a 1. Gradients come to W, A
and b by way of the small matrices W A and W b.
Dimensions: N rows, D features, c numbers that they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sgas.precision import narrow_type
from sgas_gcn.compiled import runs_compiled


@dataclass(frozen=True, eq=False)
class Affine:
    """Features inputs · matrixᵀ: `inputs` `[N, c + 1]`, the last a 1, `matrix` `[D, c + 1]`."""

    inputs: Tensor
    matrix: Tensor


@dataclass(frozen=True, eq=False)
class Beside:
    """Matrices `[N, C]` whose columns stand side by side."""

    parts: tuple[Tensor, ...]

    @cached_property
    def dense(self) -> Tensor:
        """One matrix with all columns."""
        return torch.cat(self.parts, dim=1)


Features = Tensor | Affine | Beside


def with_ones(x: Tensor) -> Tensor:
    """`x` `[N, c]` and a column of ones: `[N, c + 1]`."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def beside(parts: Sequence[Tensor]) -> Tensor | Beside:
    """Matrices side by side: as they are where kernels read them so, else as one matrix."""
    found = Beside(tuple(parts))
    in_parts = runs_compiled(parts[0]) and narrow_type(parts[0]) is None
    return found if in_parts else found.dense


def dense(x: Tensor | Beside) -> Tensor:
    """Features as one matrix."""
    return x.dense if isinstance(x, Beside) else x


def reduced(x: Features, weight: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Matrices side by side and a weight whose product is that of the features and `weight`."""
    if isinstance(x, Affine):
        return (x.inputs,), weight @ x.matrix
    return x.parts if isinstance(x, Beside) else (x,), weight


def reduced_parts(several: Sequence[Features], weight: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """`reduced` of features side by side; the weight is `[out, D]`."""
    widths = [_width(x) for x in several]
    pairs = [reduced(x, own) for x, own in zip(several, weight.split(widths, dim=1), strict=True)]
    matrices = tuple(matrix for matrices, _ in pairs for matrix in matrices)
    return matrices, torch.cat([own for _, own in pairs], dim=1)


def _width(x: Features) -> int:
    if isinstance(x, Affine):
        return len(x.matrix)
    return sum(part.shape[1] for part in (x.parts if isinstance(x, Beside) else (x,)))
