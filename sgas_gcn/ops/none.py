"""`none`: nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from sgas_gcn.fused.call import Call, Kept
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.ops.operation import FusedOperation, Neighborhood


class Zero(FusedOperation):
    """0. In a mixture it only takes softmax mass from the others."""

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """Zeros `[N, C]`."""
        return torch.zeros_like(x)

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """No term."""
        return None, ()

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """No gradient."""
