"""What candidate operations share: the state they read, and batch norm over several edges at once.

Dimensions: N nodes, m edges that are evaluated together, C channels of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.kernels import neighbor_max, neighbor_sum
from sgas_gcn.neighbors import Neighbors

MOMENTUM = 0.1
EPS = 1e-5


class SourceState:
    """A state of a cell: features `x` `[N, C]`, neighbours, aggregations computed at most once."""

    def __init__(self, x: Tensor, neighbors: Neighbors) -> None:
        self.x = x
        self.neighbors = neighbors

    @cached_property
    def sum_with_self(self) -> Tensor:
        """Sum over a node and its neighbours, `[N, C]`."""
        return neighbor_sum(self.x, self.neighbors.with_self)

    @cached_property
    def max_without_self(self) -> Tensor:
        """Maximum over the neighbours, `[N, C]`."""
        return neighbor_max(self.x, self.neighbors.without_self)


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


class Operation(nn.Module):
    """A candidate operation on one edge; it owns its parameters and evaluates many edges at once.

    `skips` says that the operation hands its input on, which drop path leaves alone.
    """

    skips: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @staticmethod
    def evaluate(ops: Sequence[Any], state: SourceState, scale: Tensor | None = None) -> Tensor:
        """Outputs `[N, m, C]` of m operations of this class on one state, times `scale` `[m]`."""
        raise NotImplementedError
