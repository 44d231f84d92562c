"""The candidate operations on point clouds, one class each, and their table.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, search space of
section 4.2, in the authors' dense form: linear without bias, ReLU, then batch norm. R stands for
ReLU, W for a weight, BN for batch norm, n(i) for the neighbours of point i without i.

Dimensions: N nodes, m edges evaluated together, C channels. Every class evaluates all edges that
leave one state and hold it; the identities that make this cheap are exact.
A new operation is a class and a line in `POINT_OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.constants import LEAKY_SLOPE, NORM_FLOOR
from sgas_gcn.fused import point as fused
from sgas_gcn.kernels import attention_sum, neighbor_max, neighbor_sum
from sgas_gcn.neighbors import Neighbors
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


def sum_with_self(x: Tensor, neighbors: Neighbors) -> Tensor:
    """Sum over a node and its neighbours, `[N, C]`."""
    return neighbor_sum(x, neighbors.with_self)


def max_without_self(x: Tensor, neighbors: Neighbors) -> Tensor:
    """Maximum over the neighbours, `[N, C]`."""
    return neighbor_max(x, neighbors.without_self)


class EdgeConv(Operation):
    """max over n(i) of BN(R(W [x_i, x_j - x_i])), after Wang et al., "Dynamic Graph CNN", 2019.

    The linear map is A x_i + B x_j, so nodes are projected and not edges. The statistics of BN run
    over all edges.
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
        graph = state.neighbors.without_self
        out = largest_normalised([op.norm for op in ops], target, source, graph, scale)
        return out.unflatten(1, (len(ops), -1))


class MRConv(Operation):
    """BN(R(W [x_i, max over n(i) of (x_j - x_i)])), after Li et al., "DeepGCNs", ICCV 2019.

    The maximum of x_j - x_i is that of x_j less x_i: one for each state, shared by all edges.
    """

    form = fused.MRConv

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        target_map, source_map = relative_split([op.lin.weight for op in ops])
        own = F.linear(state.x, target_map)
        h = F.relu_(torch.addmm(own, state.shared(max_without_self), source_map.t()))
        return normalise(ops, h, scale)


class GAT(Operation):
    """Σ over i and n(i) of a_ij h_j with h = BN(R(W x)), after Veličković et al., ICLR 2018.

    a is the softmax over j of leaky ReLU(att · [h_i, h_j]), which is a sum of two node scores.
    """

    form = fused.GAT

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)
        self.att = attention_vector(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        h = normalise(ops, linear_relu(ops, state.x), None)
        target, source = attention_scores(ops, h.flatten(1))
        out = attention_sum(h, target, source, state.neighbors.with_self, LEAKY_SLOPE)
        return out if scale is None else out * scale.view(-1, 1)


class SemiGCN(Operation):
    """Mean over i and n(i) of BN(R(W x_j)), after Kipf and Welling, ICLR 2017, degrees equal."""

    form = fused.SemiGCN

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        graph = state.neighbors.with_self
        share = 1 / graph.degree
        scale = state.x.new_full((len(ops),), share) if scale is None else scale * share
        h = normalise(ops, linear_relu(ops, state.x), scale)
        return neighbor_sum(h.flatten(1), graph).view_as(h)


class GIN(Operation):
    """BN(R(W (x_i + Σ over n(i) of x_j))), after Xu et al., ICLR 2019, with its ε fixed at 0."""

    form = fused.GIN

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        return normalise(ops, linear_relu(ops, state.shared(sum_with_self)), scale)


class SAGE(Operation):
    """o / |o| with o = R(W [x_i, max over i and n(i) of R(P x_j)]), after Hamilton et al., 2017.

    There is no batch norm. R is monotonous, so the maximum is taken first and R once for each node.
    """

    form = fused.SAGE

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.pre = nn.Linear(channels, channels, bias=False)
        self.lin = nn.Linear(2 * channels, channels, bias=False)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        projected = F.linear(state.x, stack([op.pre.weight for op in ops]))
        message = F.relu_(neighbor_max(projected, state.neighbors.with_self))
        return _combine_and_normalise(ops, state.x, message, scale)


class RelSAGE(Operation):
    """SAGE with x_j - x_i in place of x_j in the message; i itself gives 0.

    The maximum of P (x_j - x_i) is that of P x_j less P x_i, and R makes it at least the 0 of i.
    """

    form = fused.RelSAGE

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.pre = nn.Linear(channels, channels, bias=False)
        self.lin = nn.Linear(2 * channels, channels, bias=False)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        projected = F.linear(state.x, stack([op.pre.weight for op in ops]))
        largest = neighbor_max(projected, state.neighbors.without_self)
        return _combine_and_normalise(ops, state.x, F.relu_(largest - projected), scale)


def _combine_and_normalise(
    ops: Sequence[Any], x: Tensor, message: Tensor, scale: Tensor | None
) -> Tensor:
    """o / max(|o|, 1e-12) with o = R(W [x, message]), `[N, m, C]`, times the scale of each edge."""
    own_map, message_map = split([op.lin.weight for op in ops])
    per_edge = (len(ops), -1)
    messages = message.unflatten(1, per_edge).transpose(0, 1)  # [m, N, C]
    mixed = torch.bmm(messages, message_map.unflatten(0, per_edge).transpose(1, 2))
    out = F.relu_(F.linear(x, own_map).unflatten(1, per_edge) + mixed.transpose(0, 1))
    length = torch.linalg.vector_norm(out, dim=-1, keepdim=True).clamp_min(NORM_FLOOR)
    return out / length if scale is None else out * (scale.view(-1, 1) / length)


POINT_OPERATIONS: dict[str, type[Operation]] = {
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
