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

from sgas_gcn.kernels import attention_sum, edge_relu_stats, neighbor_max, neighbor_sum
from sgas_gcn.ops.common import (
    EPS,
    MOMENTUM,
    BatchNorm,
    Operation,
    SourceState,
    batch_norm,
    running_statistics,
    scaled_affine,
    stack,
    store_statistics,
)

LEAKY_SLOPE = 0.2
NORM_FLOOR = 1e-12  # smallest length that sage divides by


def _split(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """W1 and W2 `[m·C, C]` of weights `[C, 2C]` that act on pairs [a, b] as W1 a + W2 b."""
    first, second = stack(weights).chunk(2, dim=1)
    return first, second


def _relative_split(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A and B `[m·C, C]` with W [x_i, y - x_i] = A x_i + B y."""
    first, second = _split(weights)
    return first - second, second


def _linear_relu(ops: Sequence[Any], x: Tensor) -> Tensor:
    """R(W x) `[N, m·C]` for the m weights `[C, C]` of the operations."""
    return F.relu_(F.linear(x, stack([op.lin.weight for op in ops])))


def _norm(ops: Sequence[Any], x: Tensor, scale: Tensor | None) -> Tensor:
    """BN of `[N, m·C]` as `[N, m, C]`, times the scale of each edge."""
    return batch_norm([op.norm for op in ops], x, scale).unflatten(1, (len(ops), -1))


class Zero(Operation):
    """`none`: zeros. In a mixture it only takes softmax mass from the others."""

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Zeros `[N, m, C]`."""
        num_nodes, channels = state.x.shape
        return state.x.new_zeros(num_nodes, len(ops), channels)


class SkipConnect(Operation):
    """x_i."""

    skips = True

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The state `[N, m, C]` for each edge."""
        x = state.x.unsqueeze(1)
        return x.expand(-1, len(ops), -1) if scale is None else x * scale.view(-1, 1)


class Conv1x1(Operation):
    """BN(R(W x_i))."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        return _norm(ops, _linear_relu(ops, state.x), scale)


class EdgeConv(Operation):
    """max over n(i) of BN(R(W [x_i, x_j - x_i])), after Wang et al., "Dynamic Graph CNN", 2019.

    The linear map is A x_i + B x_j, so nodes are projected and not edges. BN is affine with the
    sign of its weight, so the maximum over j takes the largest or the smallest R(A x_i + B x_j);
    the statistics run over all edges.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        norms: list[BatchNorm] = [op.norm for op in ops]
        graph = state.neighbors.without_self
        target_map, source_map = _relative_split([op.lin.weight for op in ops])
        target, source = F.linear(state.x, target_map), F.linear(state.x, source_map)
        # The scale is not negative, so the sign is the unscaled weight's even where it is 0.
        sign = torch.where(stack([norm.weight for norm in norms]).detach() < 0, -1.0, 1.0).to(
            target
        )
        running_mean, running_var = running_statistics(norms)
        if norms[0].training:
            extremum, total, squares = edge_relu_stats(target, source, sign, graph)
            mean = total / graph.num_edges
            var = (squares / graph.num_edges - mean.square()).clamp_min(0)
            unbiased = var.detach() * (graph.num_edges / max(graph.num_edges - 1, 1))
            running_mean.lerp_(mean.detach().to(running_mean), MOMENTUM)
            running_var.lerp_(unbiased.to(running_var), MOMENTUM)
            store_statistics(norms, running_mean, running_var)
        else:
            extremum = F.relu(target + sign * neighbor_max(sign * source, graph))
            mean, var = running_mean.double(), running_var.double()
        weight, bias = scaled_affine(norms, scale)
        slope = weight * (var + EPS).rsqrt()
        shift = bias - slope * mean
        out = torch.addcmul(shift.to(extremum), extremum, slope.to(extremum))
        return out.unflatten(1, (len(ops), -1))


class MRConv(Operation):
    """BN(R(W [x_i, max over n(i) of (x_j - x_i)])), after Li et al., "DeepGCNs", ICCV 2019.

    The maximum of x_j - x_i is that of x_j less x_i: one for each state, shared by all edges.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(2 * channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        target_map, source_map = _relative_split([op.lin.weight for op in ops])
        own = F.linear(state.x, target_map)
        h = F.relu_(torch.addmm(own, state.max_without_self, source_map.t()))
        return _norm(ops, h, scale)


class GAT(Operation):
    """Σ over i and n(i) of a_ij h_j with h = BN(R(W x)), after Veličković et al., ICLR 2018.

    a is the softmax over j of leaky ReLU(att · [h_i, h_j]), which is a sum of two node scores.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)
        self.att = nn.Parameter(torch.empty(2 * channels))
        bound = (6 / (2 * channels + 1)) ** 0.5  # Glorot, for 2C inputs and one score
        nn.init.uniform_(self.att, -bound, bound)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        h = _norm(ops, _linear_relu(ops, state.x), None)
        attention = torch.block_diag(*[op.att.view(2, -1).t() for op in ops])  # [m·C, 2m]
        target, source = (h.flatten(1) @ attention).unflatten(1, (-1, 2)).unbind(-1)
        out = attention_sum(h, target, source, state.neighbors.with_self, LEAKY_SLOPE)
        return out if scale is None else out * scale.view(-1, 1)


class SemiGCN(Operation):
    """Mean over i and n(i) of BN(R(W x_j)), after Kipf and Welling, ICLR 2017, degrees equal."""

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
        h = _norm(ops, _linear_relu(ops, state.x), scale)
        return neighbor_sum(h.flatten(1), graph).view_as(h)


class GIN(Operation):
    """BN(R(W (x_i + Σ over n(i) of x_j))), after Xu et al., ICLR 2019, with its ε fixed at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        return _norm(ops, _linear_relu(ops, state.sum_with_self), scale)


class SAGE(Operation):
    """o / |o| with o = R(W [x_i, max over i and n(i) of R(P x_j)]), after Hamilton et al., 2017.

    There is no batch norm. R is monotonous, so the maximum is taken first and R once for each node.
    """

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
    own_map, message_map = _split([op.lin.weight for op in ops])
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
