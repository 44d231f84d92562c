"""Features of which nearly all are 0, as words of texts are: rows of what is not.

Dropout draws for these alone, since the others stay 0, and products cost what these cost.
Dimensions: N nodes, D features, K entries that are not 0, C channels, R rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sgas.native.precision import without_autocast

SPARSE = 0.1  # largest share of entries; dense products are as fast from about a quarter


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the entries are: `columns` int64 `[K]` by row, from `starts` `[N + 1]`.

    By column they are the entries `order` `[K]`, in `rows` `[K]`, from `column_starts` `[D + 1]`.
    """

    starts: Tensor
    columns: Tensor
    column_starts: Tensor
    rows: Tensor
    order: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self.starts) - 1, len(self.column_starts) - 1


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Features `[N, D]` by their `values` `[K]`, which are data: no gradient comes to them."""

    values: Tensor
    pattern: Pattern

    @classmethod
    def of(cls, x: Tensor) -> SparseRows | None:
        """Dense features `[N, D]` as rows; None where more than `SPARSE` of them are not 0."""
        if x.count_nonzero() > SPARSE * x.numel():
            return None
        rows, columns = x.nonzero(as_tuple=True)
        order = columns.argsort(stable=True)
        pattern = Pattern(
            torch.searchsorted(rows, torch.arange(len(x) + 1, device=x.device)),
            columns,
            torch.searchsorted(columns[order], torch.arange(x.shape[1] + 1, device=x.device)),
            rows[order],
            order,
        )
        return cls(x[rows, columns], pattern)

    def __len__(self) -> int:
        return self.pattern.shape[0]

    def dense(self) -> Tensor:
        """The features `[N, D]`."""
        out = self.values.new_zeros(self.pattern.shape)
        rows = self.pattern.rows.new_empty(len(self.values))
        rows[self.pattern.order] = self.pattern.rows
        out[rows, self.pattern.columns] = self.values
        return out


Features = Tensor | SparseRows


def linear(x: Features, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b `[N, C]` for features `[N, D]`, `weight` `[C, D]`."""
    if isinstance(x, Tensor):
        return F.linear(x, weight, bias)
    out: Tensor = _Product.apply(x.values, weight, x.pattern)
    return out if bias is None else out + bias


def dense(x: Features) -> Tensor:
    """Features as a tensor."""
    return x if isinstance(x, Tensor) else x.dense()


def drop(x: Any, dropout: nn.Dropout) -> Any:
    """Features, or a state, after dropout, of which torch's own kernel on the CPU is slow."""
    if isinstance(x, SparseRows):
        return replace(x, values=drop(x.values, dropout))
    if not dropout.training or dropout.p == 0:
        return x
    keep = 1 - dropout.p
    return x * (torch.rand_like(x, dtype=torch.float32) < keep) / keep


def _product(
    starts: Tensor, index: Tensor, values: Tensor, shape: tuple[int, int], dense: Tensor
) -> Tensor:
    with warnings.catch_warnings():  # that torch calls these tensors new
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(starts, index, values, shape) @ dense


class _Product(Function):
    """x Wᵀ; with G its gradient, that of W is Gᵀ x."""

    @staticmethod
    @without_autocast
    def forward(ctx: Any, values: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values)
        ctx.pattern = pattern
        return _product(pattern.starts, pattern.columns, values, pattern.shape, weight.t())

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (values,), pattern = ctx.saved_tensors, ctx.pattern
        by_column = pattern.column_starts, pattern.rows, values[pattern.order]
        return None, _product(*by_column, pattern.shape[::-1], grad.contiguous()).t(), None
