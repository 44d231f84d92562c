"""`semi_gcn`: graph convolution; on clouds mapped and normalised before the mean, on graphs after.

Both after Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
ICLR 2017. Edges go j→i over the neighbours of i and i itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.fused.call import Aggregate, Call, Kept
from sgas_gcn.fused.norms import NORM, linear_norm, linear_norm_backward, linear_norm_term
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.kernels.weighted import weighted_sum, weighted_sum_backward
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood
from sgas_gcn.ops.plain import mean, sums, weighted


class PointSemiGCN(FusedOperation):
    """Mean over the edges j→i of BN(R(W x_j)): the degrees d of all points are equal.

    Fused: norm(v) with the mean v of y = R(W x). With T the transposed mean of G, Σ T = Σ G and
    Σ T y = Σ G v: BN's backward pass is that of the other operations, with T in the place of G. For
    the weight w of an edge alone, v does. With gradients, sums over the d neighbours stand for
    means: the slope of the norm is divided by d forward; backward w is, and the gradient of w that
    the sums give.
    """

    weight_names = ("lin.weight", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        h, (sources, _) = self.norm(F.relu(self.lin(x))), neighbors.with_self.ends
        return mean(h[sources], neighbors.with_self)

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, graph = call.state, call.state.neighbors.with_self
        y, coefs, weight = linear_norm(call, "lin.weight")
        total = state.backend.neighbor_sum(y, graph)
        if not state.full:
            average = total.mul_(1 / graph.degree)
            return Term(average, coefs), (average, coefs, None)
        of_total = torch.cat([coefs[:1] / graph.degree, coefs[1:]])
        return Term(total, of_total), (y, coefs, weight)

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state, scale, degree = call.state, call.scale, 1
        if state.full:
            graph = state.neighbors.with_self
            grad, degree = state.backend.neighbor_sum_backward(grad, graph), graph.degree
            whole = grad.new_ones(call.num_edges) if scale is None else scale
            call.scale = whole / degree
        linear_norm_backward(call, "lin.weight", grad, kept)
        call.scale = scale
        if call.grad_scale is not None:
            call.grad_scale = call.grad_scale / degree


class SymmetricSum(Aggregate):
    """Σ over the edges j→i of w x_j / √(d_i d_j), as in `GraphSemiGCN`."""

    @staticmethod
    def forward(x: Tensor, neighbors: GraphNeighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sum."""
        graph = neighbors.with_self
        share = graph.totals.to(x.dtype).rsqrt()
        return weighted_sum(x * share, graph).mul_(share), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: GraphNeighbors) -> Tensor:
        """The gradient of x."""
        graph = neighbors.with_self
        share = graph.totals.to(grad.dtype).rsqrt()
        return weighted_sum_backward(grad.mul_(share), graph).mul_(share)


class GraphSemiGCN(FusedOperation):
    """BN(R(Σ over the edges j→i of w P x_j / √(d_i d_j))), d the degrees with self.

    w are the weights of edges, if there are some, and d then the sums of those that enter a node,
    as in PyTorch Geometric's `gcn_norm`.

    Fused: the sum of P x_j is P of the sum, which is of the state alone.
    """

    weight_names = ("proj.weight", *NORM)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        graph = neighbors.with_self
        (sources, targets), degrees = graph.ends, graph.totals.to(x.dtype)
        messages = self.proj(x)[sources] / (degrees[targets] * degrees[sources]).sqrt()
        return self.norm(F.relu(sums(weighted(messages, graph), graph)))

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        return linear_norm_term(call, "proj.weight", [SymmetricSum])

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        linear_norm_backward(call, "proj.weight", grad, kept, [SymmetricSum])
