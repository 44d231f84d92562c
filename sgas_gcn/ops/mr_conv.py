"""`mr_conv`: a node and the largest difference to its neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.fused.call import Aggregate, Call, Kept
from sgas_gcn.fused.norms import NORM, linear_norm_backward, linear_norm_term
from sgas_gcn.kernels.backend import backend_of
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood
from sgas_gcn.ops.plain import largest


class LargestDifference(Aggregate):
    """max over the edges j→i of (x_j − x_i) = (max x_j) − x_i; 0 for a node without edges."""

    @staticmethod
    def forward(x: Tensor, neighbors: Neighborhood) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The difference."""
        return backend_of(x).largest_difference(x, neighbors.edges)

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: Neighborhood) -> Tensor:
        """The gradient of x."""
        return backend_of(grad).largest_difference_backward(grad, kept, neighbors.edges)


class MRConv(FusedOperation):
    """BN(R(W [x_i, max over the edges j→i of (x_j − x_i)])).

    Source: Li et al., "DeepGCNs: Can GCNs Go as Deep as CNNs?", ICCV 2019. The maximum is 0 for a
    node without edges.

    Fused: the maximum is of the state alone, one for all edges of the cell.
    """

    weight_names = ("lin.weight", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        sources, targets = neighbors.edges.ends
        difference = largest(x[sources] - x[targets], neighbors.edges)
        return self.norm(F.relu(self.lin(torch.cat([x, difference], dim=1))))

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        return linear_norm_term(call, "lin.weight", [None, LargestDifference])

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        linear_norm_backward(call, "lin.weight", grad, kept, [None, LargestDifference])
