"""`sage` and `rel_sage`: a node beside a message of its neighbours, over the length of the result.

Both after Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017: on
clouds the message is a maximum and there is no batch norm, on graphs it is a mean and there is one,
weighted where edges have weights, i itself by 1.
Edges go j→i over the neighbours of i and i itself. `rel_sage` has x_j − x_i in place of x_j in the
message, 0 for i itself. Fused, with u = o / |o| and the gradient G of w u, that of o is
w (G − u (u · G)) / |o|, and that of w is Σ u · G.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.constants import NORM_FLOOR
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.fused.call import Aggregate, Call, Kept, State, products
from sgas_gcn.fused.norms import NORM, relu_norm, relu_norm_backward
from sgas_gcn.kernels.protocol import LENGTH, Graph, SageMap, Term
from sgas_gcn.kernels.weighted import weighted_sum, weighted_sum_backward
from sgas_gcn.ops.operation import BatchNorm, FusedOperation, Neighborhood
from sgas_gcn.ops.plain import largest, mean, over_length


def _messages(x: Tensor, graph: Graph, relative: bool) -> Tensor:
    """x_j of each edge `[E, C]`, less x_i where it is relative."""
    sources, targets = graph.ends
    return x[sources] - x[targets] if relative else x[sources]


class PointSAGE(FusedOperation):
    """o / |o| with o = R(W [x_i, max over the edges j→i of R(P x_j)]).

    Fused: R rises, so the maximum is taken first and R once for each node. The maximum of
    P (x_j − x_i) is that of P x_j less P x_i, without i itself: R makes it at least the 0 of i.
    """

    weight_names = ("pre.weight", "lin.weight")
    relative: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.pre = nn.Linear(channels, channels, bias=False)
        self.lin = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        graph = neighbors.with_self
        message = largest(F.relu(self.pre(_messages(x, graph, self.relative))), graph)
        return over_length(F.relu(self.lin(torch.cat([x, message], dim=1))))

    @classmethod
    def _map(cls, state: State, pre: Tensor, weight: Tensor) -> SageMap:
        """What is mapped, over the edges that the maximum is over."""
        neighbors = state.neighbors
        graph = neighbors.edges if cls.relative else neighbors.with_self
        return SageMap(state.x, pre, weight, graph, cls.relative)

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state = call.state
        pre, weight = call.stacked("pre.weight"), call.stacked("lin.weight")
        y, message, kept = state.backend.sage(cls._map(state, pre, weight), state.full)
        return Term(y, kind=LENGTH), (y, *((message, pre, weight, *kept) if state.full else ()))

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        y, *others = (t for t in kept if t is not None)
        lengths = call.lengths(NORM_FLOOR)
        if not state.full:
            call.grad_scale = state.backend.length_backward(grad, y, None, lengths, None)
            return
        message, pre, weight, *chosen = others
        call.grad_scale, of_pre, of_weight = state.backend.sage_backward(
            grad,
            y,
            lengths,
            cls._map(state, pre, weight),
            message,
            tuple(chosen),
            state.grad_buffer() if state.needs_x else None,
            state.needs_weights,
        )
        if state.needs_weights:
            call.gradients["pre.weight"], call.gradients["lin.weight"] = of_pre, of_weight


class PointRelSAGE(PointSAGE):
    """SAGE on clouds with x_j − x_i in the message."""

    relative = True


class MeanWithSelf(Aggregate):
    """Mean over the edges j→i of x_j."""

    @staticmethod
    def forward(x: Tensor, neighbors: GraphNeighbors) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The mean."""
        graph = neighbors.with_self
        return weighted_sum(x, graph).div_(graph.totals), ()

    @staticmethod
    def backward(grad: Tensor, kept: tuple[Tensor, ...], neighbors: GraphNeighbors) -> Tensor:
        """The gradient of x."""
        graph = neighbors.with_self
        return weighted_sum_backward(grad.div_(graph.totals), graph)


class GraphSAGE(FusedOperation):
    """o / |o| with o = BN(R(W [x_i, mean over the edges j→i of P x_j])).

    Fused: the mean of P x_j is P of the mean, which is of the state alone; of W = [W1, W2], W2 P is
    multiplied first, two products for all edges of the cell in place of two for each.
    """

    weight_names = ("proj.weight", "lin.weight", *NORM)
    relative: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        graph = neighbors.with_self
        message = mean(self.proj(_messages(x, graph, self.relative)), graph)
        return over_length(self.norm(F.relu(self.lin(torch.cat([x, message], dim=1)))))

    @classmethod
    def _message(cls, state: State) -> Tensor:
        """The mean, less x where it is relative."""
        average = state.read(MeanWithSelf)
        return average - state.x if cls.relative else average

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term."""
        state, m = call.state, call.num_edges
        projection = call.stacked("proj.weight").unflatten(0, (m, -1))
        weight = call.stacked("lin.weight")
        own, other = weight.chunk(2, dim=1)
        combined = torch.bmm(other.unflatten(0, (m, -1)), projection).flatten(0, 1)
        y = (state.x @ own.t()).addmm_(cls._message(state), combined.t())
        coefs = relu_norm(call, y)
        return Term(y, coefs, LENGTH), (
            y,
            coefs,
            *((projection, weight, combined) if state.full else ()),
        )

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients."""
        state = call.state
        y, coefs, *others = kept
        assert y is not None
        grad_norm = torch.empty_like(y) if state.full else None
        call.grad_scale = state.backend.length_backward(
            grad, y, coefs, call.lengths(NORM_FLOOR), grad_norm
        )
        if grad_norm is None or coefs is None:
            return
        grad_h = relu_norm_backward(call, grad_norm, y, coefs, None, of_scale=False)
        projection, weight, combined = (t for t in others if t is not None)
        assert grad_h is not None
        if state.needs_x:
            state.add_product(grad_h, weight.chunk(2, dim=1)[0])
            state.add_shared(MeanWithSelf, grad_h, combined)
            if cls.relative:
                state.add_product(grad_h, -combined)
        if state.needs_weights:
            cls._weight_gradients(call, grad_h, projection, weight)

    @classmethod
    def _weight_gradients(
        cls, call: Call, grad: Tensor, projection: Tensor, weight: Tensor
    ) -> None:
        """Leaves the gradients of W = [W1, W2] and P, from those of W1 and of W2 P."""
        m, channels = call.num_edges, call.state.x.shape[1]
        of_weight = products(grad, call.state.x, cls._message(call.state))
        of_combined = of_weight[:, channels:].unflatten(0, (m, -1))
        other = weight[:, channels:].unflatten(0, (m, -1))
        call.gradients["proj.weight"] = torch.bmm(other.mT, of_combined).flatten(0, 1)
        of_weight[:, channels:] = torch.bmm(of_combined, projection.mT).flatten(0, 1)
        call.gradients["lin.weight"] = of_weight


class GraphRelSAGE(GraphSAGE):
    """SAGE on graphs with x_j − x_i in the message; the 0 of i itself counts in the mean."""

    relative = True
