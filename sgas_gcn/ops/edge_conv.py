"""`edge_conv`: a map of each edge, and its largest value over the edges into a node."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.fused.call import Call, Kept
from sgas_gcn.fused.norms import NORM, norms_of
from sgas_gcn.kernels.protocol import AFFINE, MASKED, EdgeMap, Normed, Term
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood
from sgas_gcn.ops.plain import largest


class EdgeConv(FusedOperation):
    """max over the edges j→i of BN(R(W [x_i, x_j − x_i])); 0 for a node without edges.

    Source: Wang et al., "Dynamic Graph CNN for Learning on Point Clouds", TOG 2019, with the
    activation before the norm, whose statistics are of all edges.

    Fused: W [x_i, x_j − x_i] = A x_i + B x_j with A = W1 − W2 and B = W2, so nodes are projected
    and not edges. BN is affine with the sign of γ, so its maximum is at the extremum y of
    R(A x_i + B x_j) by that sign. The edge that has it takes w k G where y > 0; all edges with a
    positive value h take f1 + f2 h, by the factors of `fused.norms` with n = E. A node without
    edges has y = 0, no shift, and no part in Σ G. A x and B x are not kept but computed again: one
    product for two matrices.
    """

    weight_names = ("lin.weight", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        sources, targets = neighbors.edges.ends
        x_i, x_j = x[targets], x[sources]
        h = self.norm(F.relu(self.lin(torch.cat([x_i, x_j - x_i], dim=1))))
        return largest(h, neighbors.edges)

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, weight = call.state, call.stacked("lin.weight")
        graph = state.neighbors.edges
        edge_map = EdgeMap(state.x, weight, graph)
        y, coefs, kept = state.backend.edge_conv(edge_map, norms_of(call))
        mask = graph.mask(state.x.dtype)
        kind = AFFINE if mask is None else MASKED
        return Term(y, coefs, kind, mask), (y, coefs, *((weight, *kept) if state.full else ()))

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, graph = call.state, call.state.neighbors.edges
        mask = graph.mask(state.x.dtype)
        y, coefs, *others = (t for t in kept if t is not None)
        if not state.full:
            sums = state.backend.column_sums(grad, y, mask)
            norm = (coefs, call.scale, graph.num_edges, state.training, y)
            call.grad_scale = call.per_edge(state.backend.norm_gradients(sums, *norm)[2])
            return
        weight, *chosen = others
        affine, call.grad_scale, of_weight = state.backend.edge_conv_backward(
            grad,
            Normed(y, coefs, call.scale, call.num_edges, state.training, 0.0),
            mask,
            EdgeMap(state.x, weight, graph),
            tuple(chosen),
            state.grad_buffer() if state.needs_x else None,
            state.needs_weights,
        )
        if state.needs_weights:
            call.gradients["lin.weight"] = of_weight
            call.gradients["norm.weight"], call.gradients["norm.bias"] = affine
