"""`conv_1x1`: each node by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.fused.call import Call, Kept
from sgas_gcn.fused.norms import NORM, linear_norm_backward, linear_norm_term
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood


class Conv1x1(FusedOperation):
    """BN(R(W x_i)), as in Li et al., "SGAS", CVPR 2020, section 4.2."""

    weight_names = ("lin.weight", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        return self.norm(F.relu(self.lin(x)))

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        return linear_norm_term(call, "lin.weight")

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        linear_norm_backward(call, "lin.weight", grad, kept)
