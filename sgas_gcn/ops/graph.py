"""The candidate operations on graphs that come as they are, one class each, and their table.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, search space of
section 4.2, in the authors' sparse form by the operators of PyTorch Geometric 1.3 to 1.4.2: unlike
on point clouds, gat and semi_gcn have ReLU and batch norm after the aggregation, sage takes means
and has a batch norm. R stands for ReLU, W and P for weights, BN for batch norm, A(i) for the
sources of the edges into node i as they are given; "A(i) and i" counts i once, whether or not the
graph has self-loops.

Dimensions: N nodes, m edges of a cell that are evaluated together, C channels. Sums and means are
linear, so they are taken of the state, once for all edges that leave it, and projected after.
A new operation is a class and a line in `GRAPH_OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.constants import LEAKY_SLOPE, NORM_FLOOR
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.fused import graph as fused
from sgas_gcn.kernels import attention_sum, neighbor_max, neighbor_sum
from sgas_gcn.ops.common import (
    BatchNorm,
    Conv1x1,
    Operation,
    SkipConnect,
    SourceState,
    Zero,
    attention_scores,
    attention_vector,
    largest_normalised,
    linear_relu,
    normalise,
    relative_split,
    split,
    stack,
)


def sum_and_own(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """x_i + Σ over A(i) of x_j, `[N, C]`."""
    return x + neighbor_sum(x, neighbors.given)


def mean_with_self(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """Mean of x_j over A(i) and i, `[N, C]`."""
    return neighbor_sum(x, neighbors.with_self) / neighbors.with_self.degrees


def symmetric_sum(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """Σ over A(i) and i of x_j / √(d_i d_j), `[N, C]`, d the degrees with self."""
    share = neighbors.with_self.degrees.to(x.dtype).rsqrt()
    return neighbor_sum(x * share, neighbors.with_self) * share


def largest_difference(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """max over A(i) of (x_j - x_i), `[N, C]`; 0 where A(i) is empty."""
    return neighbor_max(x, neighbors.given) - x * neighbors.given.has_edges


class EdgeConv(Operation):
    """max over A(i) of BN(R(W [x_i, x_j - x_i])), after Wang et al., "Dynamic Graph CNN", 2019.

    The linear map is A x_i + B x_j, so nodes are projected and not edges. The statistics of BN run
    over all edges. A node without edges gets 0.
    """

    form = fused.EdgeConv

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        target_map, source_map = relative_split([op.lin.weight for op in ops])
        target, source = F.linear(state.x, target_map), F.linear(state.x, source_map)
        graph = state.neighbors.given
        out = largest_normalised([op.norm for op in ops], target, source, graph, scale)
        return (out * graph.has_edges).unflatten(1, (len(ops), -1))


class MRConv(Operation):
    """BN(R(W [x_i, max over A(i) of (x_j - x_i)])), after Li et al., "DeepGCNs", ICCV 2019.

    The maximum is 0 for a node without edges.
    """

    form = fused.MRConv

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        own_map, difference_map = split([op.lin.weight for op in ops])
        own = F.linear(state.x, own_map)
        h = F.relu_(torch.addmm(own, state.shared(largest_difference), difference_map.t()))
        return normalise(ops, h, scale)


class GAT(Operation):
    """BN(R(Σ over A(i) and i of a_ij h_j)) with h = P x, after Veličković et al., ICLR 2018.

    a is the softmax over j of leaky ReLU(att · [h_i, h_j]), which is a sum of two node scores.
    """

    form = fused.GAT

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.att = attention_vector(channels)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        h = F.linear(state.x, stack([op.proj.weight for op in ops]))
        target, source = attention_scores(ops, h)
        values, graph = h.unflatten(1, (len(ops), -1)), state.neighbors.with_self
        out = attention_sum(values, target, source, graph, LEAKY_SLOPE)
        return normalise(ops, F.relu_(out.flatten(1)), scale)


class SemiGCN(Operation):
    """BN(R(Σ over A(i) and i of P x_j / √(d_i d_j))), after Kipf and Welling, ICLR 2017."""

    form = fused.SemiGCN

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        h = F.linear(state.shared(symmetric_sum), stack([op.proj.weight for op in ops]))
        return normalise(ops, F.relu_(h), scale)


class GIN(Operation):
    """BN(R(W (x_i + Σ over A(i) of x_j))), after Xu et al., ICLR 2019, with its ε fixed at 0."""

    form = fused.GIN

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        return normalise(ops, linear_relu(ops, state.shared(sum_and_own)), scale)


class SAGE(Operation):
    """o / |o| with o = BN(R(W [x_i, mean over A(i) and i of P x_j])), after Hamilton et al., 2017.

    The mean of P x_j is P of the mean.
    """

    form = fused.SAGE

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        return _combine_and_normalise(ops, state.x, state.shared(mean_with_self), scale)


class RelSAGE(Operation):
    """SAGE with x_j - x_i in place of x_j in the message; the 0 of i itself counts in the mean."""

    form = fused.RelSAGE

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        difference = state.shared(mean_with_self) - state.x
        return _combine_and_normalise(ops, state.x, difference, scale)


def _combine_and_normalise(
    ops: Sequence[Any], x: Tensor, message: Tensor, scale: Tensor | None
) -> Tensor:
    """o / max(|o|, 1e-12) with o = BN(R(W [x, P message])), `[N, m, C]`, times the edges' scale."""
    own_map, message_map = split([op.lin.weight for op in ops])
    projections = torch.stack([op.proj.weight for op in ops])  # [m, C, C]
    # W and P are multiplied first: two products for all edges in place of two for each.
    combined = torch.bmm(message_map.view_as(projections), projections).flatten(0, 1)
    h = F.relu_(torch.addmm(F.linear(x, own_map), message, combined.t()))
    out = normalise(ops, h, None)
    length = torch.linalg.vector_norm(out, dim=-1, keepdim=True).clamp_min(NORM_FLOOR)
    return out / length if scale is None else out * (scale.view(-1, 1) / length)


GRAPH_OPERATIONS: dict[str, type[Operation]] = {
    "none": Zero,
    "skip_connect": SkipConnect,
    "conv_1x1": Conv1x1,
    "edge_conv": EdgeConv,
    "mr_conv": MRConv,
    "gat": GAT,
    "semi_gcn": SemiGCN,
    "gin": GIN,
    "sage": SAGE,
    "rel_sage": RelSAGE,
}
