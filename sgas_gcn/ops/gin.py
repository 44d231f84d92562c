"""`gin`: a node and the sum of its neighbours."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.fused.call import Aggregate, Call, Kept
from sgas_gcn.fused.norms import NORM, linear_norm_backward, linear_norm_term
from sgas_gcn.kernels.backend import backend_of
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood
from sgas_gcn.ops.plain import sums


class SumWithSelf(Aggregate):
    """Σ over a point and its neighbours of x_j."""

    @staticmethod
    def forward(x: Tensor, neighbors: Neighborhood) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum."""
        return backend_of(x).neighbor_sum(x, neighbors.with_self), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Neighborhood) -> Tensor:
        """The gradient of x."""
        return backend_of(grad).neighbor_sum_backward(grad, neighbors.with_self)


class SumAndOwn(Aggregate):
    """x_i + Σ over the edges j→i of x_j: one of them may be i's own besides."""

    @staticmethod
    def forward(x: Tensor, neighbors: Neighborhood) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum."""
        return backend_of(x).neighbor_sum(x, neighbors.edges).add_(x), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Neighborhood) -> Tensor:
        """The gradient of x."""
        return backend_of(grad).neighbor_sum_backward(grad, neighbors.edges).add_(grad)


class GIN(FusedOperation):
    """BN(R(W (x_i + Σ over the edges j→i of x_j))), on clouds.

    Source: Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019, with its ε fixed at 0.

    Fused: the sum is of the state alone, one for all edges of the cell.
    """

    weight_names = ("lin.weight", *NORM)
    aggregate: ClassVar[type[Aggregate]] = SumWithSelf

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        sources, _ = neighbors.edges.ends
        return self.norm(F.relu(self.lin(x + sums(x[sources], neighbors.edges))))

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        return linear_norm_term(call, "lin.weight", [cls.aggregate])

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        linear_norm_backward(call, "lin.weight", grad, kept, [cls.aggregate])


class GraphGIN(GIN):
    """GIN on graphs, where a node may have a self-loop, or more than one."""

    aggregate = SumAndOwn
