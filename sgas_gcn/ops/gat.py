"""`gat`: a sum weighted by attention; on clouds normalised before it, on graphs after.

Both after Veličković et al., "Graph Attention Networks", ICLR 2018, with one head. Edges go j→i
over the neighbours of i and i itself. a_ij is the softmax over j of leaky ReLU(att · [h_i, h_j]),
which is a sum of two node scores: fused, no pair [h_i, h_j] is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.constants import LEAKY_SLOPE
from sgas_gcn.fused.call import Call, Kept
from sgas_gcn.fused.norms import (
    NORM,
    linear_norm,
    linear_norm_backward,
    relu_norm,
    relu_norm_backward,
)
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood
from sgas_gcn.ops.plain import attention


class PointGAT(FusedOperation):
    """Σ over the edges j→i of a_ij h_j with h = BN(R(W x)).

    Fused, with y = R(W x) and h = s y + t: the a_ij sum to 1, so that the sum is s Σ a_ij y_j + t,
    and a score is (att s) · y + att · t. Neither h nor its gradient times s is ever made. The
    gradient of h is what comes through the sum, and through both scores; BN's backward pass takes
    it in the place of G.
    """

    weight_names = ("lin.weight", "att", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)
        self.att = attention_vector(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        return attention(self.norm(F.relu(self.lin(x))), self.att, neighbors.with_self)

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        y, coefs, weight = linear_norm(call, "lin.weight")
        vectors = attention_vectors(call.stacked("att"), m)
        slope, shift = coefs[:2].to(y.dtype)
        shifts = (vectors * shift).view(2, m, -1).sum(2)
        scores = state.backend.head_dots(y, vectors * slope, shifts, m)
        out, kept = state.backend.attention_sum(
            y.unflatten(1, (m, -1)), *scores, state.neighbors.with_self, LEAKY_SLOPE
        )
        out = out.flatten(1)
        return Term(out, coefs), (
            out if state.needs_scale else None,
            coefs,
            *((y, weight, vectors, *kept) if state.full else ()),
        )

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, m = call.state, call.num_edges
        values, coefs, *others = kept
        assert coefs is not None
        grad_scale = None
        if values is not None:
            sums = state.backend.column_sums(grad, values, None)
            norm = (coefs, call.scale, len(grad), state.training, values)
            grad_scale = call.per_edge(state.backend.norm_gradients(sums, *norm)[2])
        if state.full:
            y, weight, vectors, *weights = (t for t in others if t is not None)
            grad_norm, *of_scores = state.backend.attention_sum_backward(
                grad.unflatten(1, (m, -1)),
                y.unflatten(1, (m, -1)),
                tuple(weights),
                state.neighbors.with_self,
                LEAKY_SLOPE,
                coefs[0].to(y.dtype),
                vectors,
            )
            if state.needs_weights:
                call.gradients["att"] = cls._vectors_gradient(call, y, coefs, of_scores)
            linear_norm_backward(call, "lin.weight", grad_norm.flatten(1), (y, coefs, weight))
        call.grad_scale = grad_scale  # and not what BN's backward pass took G for

    @staticmethod
    def _vectors_gradient(
        call: Call, y: Tensor, coefs: Tensor, of_scores: Sequence[Tensor]
    ) -> Tensor:
        """Σ h · the gradient of a score, for both kinds of scores, times the edges' scale."""
        m = call.num_edges
        of_vectors = call.state.backend.head_dots_backward(y, *of_scores).view(2, m, -1)
        totals = torch.stack([of.sum(0, dtype=torch.float64) for of in of_scores]).unsqueeze(2)
        of_vectors = of_vectors * coefs[0].view(m, -1) + totals * coefs[1].view(m, -1)
        if call.scale is not None:
            of_vectors = of_vectors * call.scale.view(m, 1)
        return attention_gradient(of_vectors, m, y)


class GraphGAT(FusedOperation):
    """BN(R(Σ over the edges j→i of a_ij h_j)) with h = P x.

    Fused: the gradient of h is what comes through the sum, and through both scores.
    """

    weight_names = ("proj.weight", "att", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.att = attention_vector(channels)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        return self.norm(F.relu(attention(self.proj(x), self.att, neighbors.with_self)))

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        weight = call.stacked("proj.weight")
        h = state.x @ weight.t()
        vectors = attention_vectors(call.stacked("att"), m)
        scores = state.backend.head_dots(h, vectors, vectors.new_zeros(2, m), m)
        out, kept = state.backend.attention_sum(
            h.unflatten(1, (m, -1)), *scores, state.neighbors.with_self, LEAKY_SLOPE
        )
        y = out.flatten(1)
        coefs = relu_norm(call, y)
        return Term(y, coefs), (y, coefs, *((h, weight, vectors, *kept) if state.full else ()))

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, m = call.state, call.num_edges
        y, coefs, *others = kept
        assert y is not None and coefs is not None
        grad_sum = relu_norm_backward(call, grad, y, coefs, call.scale)
        if grad_sum is None:
            return
        h, weight, vectors, *weights = (t for t in others if t is not None)
        grad_h, *of_scores = state.backend.attention_sum_backward(
            grad_sum.unflatten(1, (m, -1)),
            h.unflatten(1, (m, -1)),
            tuple(weights),
            state.neighbors.with_self,
            LEAKY_SLOPE,
            None,
            vectors,
        )
        if state.needs_weights:
            of_vectors = state.backend.head_dots_backward(h, *of_scores)
            call.gradients["att"] = attention_gradient(of_vectors, m, h)
        call.linear_backward("proj.weight", grad_h.flatten(1), weight)


def attention_vector(channels: int) -> nn.Parameter:
    """A fresh vector `[2C]` that scores pairs [h_i, h_j]: target first."""
    vector = torch.empty(2 * channels)
    bound = (6 / (2 * channels + 1)) ** 0.5  # Glorot, for 2C inputs and one score
    return nn.Parameter(vector.uniform_(-bound, bound))


def attention_vectors(attention: Tensor, num_edges: int) -> Tensor:
    """`[2, m·C]`: what scores of targets and of sources are products with, all edges in a row.

    `attention` are the edges' vectors `[2C]`, target first, one after the other.
    """
    return attention.view(num_edges, 2, -1).transpose(0, 1).reshape(2, -1).contiguous()


def attention_gradient(of_vectors: Tensor, num_edges: int, like: Tensor) -> Tensor:
    """The gradient of the edges' vectors, one after the other, from that of `[2, m·C]`."""
    return of_vectors.view(2, num_edges, -1).transpose(0, 1).flatten().to(like.dtype)
