"""`skip_connect`: the state itself."""

from __future__ import annotations

from torch import Tensor

from sgas_gcn.fused.call import Call, Kept
from sgas_gcn.kernels.protocol import BROADCAST, Term
from sgas_gcn.ops.operation import FusedOperation, Neighborhood


class SkipConnect(FusedOperation):
    """x_i.

    Fused: the gradient G of w x gives w G to x and Σ G x to w.
    """

    skips = True

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """`x` `[N, C]`."""
        return x

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        return Term(call.state.x, kind=BROADCAST), ()

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        buffer = state.grad_buffer() if state.needs_x else None
        call.grad_scale = state.backend.skip_backward(grad, state.x, call.scale, buffer)
