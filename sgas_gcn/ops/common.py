"""What candidate operations share: the state they read, and batch norm over several edges at once.

The operations whose mathematics is the same for points and graphs are here as well. R stands for
ReLU, W for a weight, BN for batch norm. Dimensions: N nodes, m edges that are evaluated together,
C channels of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.constants import EPS, MOMENTUM
from sgas_gcn.fused import forms
from sgas_gcn.fused.call import Form
from sgas_gcn.kernels import Graph, edge_relu_stats, neighbor_max

Aggregate = Callable[[Tensor, Any], Tensor]


class SourceState:
    """A state of a cell: features `x` `[N, C]`, neighbours, aggregations computed at most once."""

    def __init__(self, x: Tensor, neighbors: Any) -> None:
        self.x = x
        self.neighbors = neighbors
        self._aggregated: dict[Aggregate, Tensor] = {}

    def shared(self, aggregate: Aggregate) -> Tensor:
        """`aggregate(x, neighbors)`, one result for all edges that leave this state."""
        if aggregate not in self._aggregated:
            self._aggregated[aggregate] = aggregate(self.x, self.neighbors)
        return self._aggregated[aggregate]


class BatchNorm(nn.Module):
    """Batch norm over the nodes of `[N, C]`; in evaluation mode by running statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[N, C]`."""
        return batch_norm([self], x)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one below the other; a single one as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))


def scaled_affine(norms: Sequence[BatchNorm], scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight and bias `[m·C]` of several norms, each times its entry of `scale` `[m]`.

    The norm is affine in both, so scaling them scales its output and no scaled copy has to exist.
    """
    weight, bias = stack([norm.weight for norm in norms]), stack([norm.bias for norm in norms])
    if scale is None:
        return weight, bias
    rows = scale.view(-1, 1)
    return (weight.view(len(norms), -1) * rows).flatten(), (
        bias.view(len(norms), -1) * rows
    ).flatten()


def running_statistics(norms: Sequence[BatchNorm]) -> tuple[Tensor, Tensor]:
    """Running mean and variance `[m·C]` of several norms."""
    return stack([norm.running_mean for norm in norms]), stack([norm.running_var for norm in norms])


@torch.no_grad()
def store_statistics(norms: Sequence[BatchNorm], mean: Tensor, var: Tensor) -> None:
    """Write running statistics `[m·C]` back into the norms they belong to."""
    if len(norms) > 1:
        kept = [norm.running_mean for norm in norms] + [norm.running_var for norm in norms]
        torch._foreach_copy_(kept, [*mean.chunk(len(norms)), *var.chunk(len(norms))])


def batch_norm(norms: Sequence[BatchNorm], x: Tensor, scale: Tensor | None = None) -> Tensor:
    """Several norms at once over stacked channels `[N, m·C]`, each times its `scale` `[m]`."""
    weight, bias = scaled_affine(norms, scale)
    mean, var = running_statistics(norms)
    training = norms[0].training
    out = F.batch_norm(x, mean, var, weight, bias, training, MOMENTUM, EPS)
    if training:
        store_statistics(norms, mean, var)
    return out


def split(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """W1 and W2 `[m·C, C]` of weights `[C, 2C]` that act on pairs [a, b] as W1 a + W2 b."""
    first, second = stack(weights).chunk(2, dim=1)
    return first, second


def relative_split(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A and B `[m·C, C]` with W [x_i, y - x_i] = A x_i + B y."""
    first, second = split(weights)
    return first - second, second


def linear_relu(ops: Sequence[Any], x: Tensor) -> Tensor:
    """R(W x) `[N, m·C]` for the m weights `[C, C]` of the operations."""
    return F.relu_(F.linear(x, stack([op.lin.weight for op in ops])))


def normalise(ops: Sequence[Any], x: Tensor, scale: Tensor | None) -> Tensor:
    """BN of `[N, m·C]` as `[N, m, C]`, times the scale of each edge."""
    return batch_norm([op.norm for op in ops], x, scale).unflatten(1, (len(ops), -1))


def largest_normalised(
    norms: Sequence[BatchNorm], target: Tensor, source: Tensor, graph: Graph, scale: Tensor | None
) -> Tensor:
    """max over j of BN(R(target_i + source_j)) `[N, m·C]`, statistics over edges, times `scale`.

    BN is affine with the sign of its weight, so the maximum over j takes the largest or the
    smallest R(target_i + source_j). A node without edges gets what BN makes of a 0.
    """
    # The scale is not negative, so the sign is the unscaled weight's even where it is 0.
    sign = torch.where(stack([norm.weight for norm in norms]).detach() < 0, -1.0, 1.0).to(target)
    running_mean, running_var = running_statistics(norms)
    if norms[0].training:
        extremum, total, squares = edge_relu_stats(target, source, sign, graph)
        num_edges = max(graph.num_edges, 1)
        mean = total / num_edges
        var = (squares / num_edges - mean.square()).clamp_min(0)
        if graph.num_edges:
            unbiased = var.detach() * (num_edges / max(num_edges - 1, 1))
            running_mean.lerp_(mean.detach().to(running_mean), MOMENTUM)
            running_var.lerp_(unbiased.to(running_var), MOMENTUM)
            store_statistics(norms, running_mean, running_var)
    else:
        extremum = F.relu(target + sign * neighbor_max(sign * source, graph))
        mean, var = running_mean.double(), running_var.double()
    weight, bias = scaled_affine(norms, scale)
    slope = weight * (var + EPS).rsqrt()
    shift = bias - slope * mean
    return torch.addcmul(shift.to(extremum), extremum, slope.to(extremum))


def attention_vector(channels: int) -> nn.Parameter:
    """A fresh vector `[2C]` that scores pairs [h_i, h_j]: target first."""
    vector = torch.empty(2 * channels)
    bound = (6 / (2 * channels + 1)) ** 0.5  # Glorot, for 2C inputs and one score
    return nn.Parameter(vector.uniform_(-bound, bound))


def attention_scores(ops: Sequence[Any], h: Tensor) -> tuple[Tensor, Tensor]:
    """What each node of `h` `[N, m·C]` adds to a score as target and as source, `[N, m]` each."""
    attention = torch.block_diag(*[op.att.view(2, -1).t() for op in ops])  # [m·C, 2m]
    target, source = (h @ attention).unflatten(1, (-1, 2)).unbind(-1)
    return target, source


class Operation(nn.Module):
    """A candidate operation on one edge; it owns its parameters and evaluates many edges at once.

    `skips` says that the operation hands its input on, which drop path leaves alone. `form` is its
    fused form (`sgas_gcn.fused`): the same, together with all others and with a backward pass of
    its own. An operation without one runs by `evaluate`.
    """

    skips: ClassVar[bool] = False
    form: ClassVar[type[Form] | None] = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]` of m operations of this class on one state, times `scale` `[m]`."""
        raise NotImplementedError


class Zero(Operation):
    """`none`: zeros. In a mixture it only takes softmax mass from the others."""

    form = forms.Zero

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Zeros `[N, m, C]`."""
        num_nodes, channels = state.x.shape
        return state.x.new_zeros(num_nodes, len(ops), channels)


class SkipConnect(Operation):
    """x_i."""

    skips = True
    form = forms.SkipConnect

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """The state `[N, m, C]` for each edge."""
        x = state.x.unsqueeze(1)
        return x.expand(-1, len(ops), -1) if scale is None else x * scale.view(-1, 1)


class Conv1x1(Operation):
    """BN(R(W x_i))."""

    form = forms.Conv1x1

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lin = nn.Linear(channels, channels, bias=False)
        self.norm = BatchNorm(channels)

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]`."""
        return normalise(ops, linear_relu(ops, state.x), scale)
