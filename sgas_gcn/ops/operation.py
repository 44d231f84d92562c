"""What a candidate operation is: a module on one edge, and how it may run fused with others.

Dimensions: N nodes, C channels, m edges of a cell that are computed together.
"""

from __future__ import annotations

from typing import ClassVar, TypeGuard

import torch
from torch import Tensor, nn

from sgas_gcn.constants import EPS, MOMENTUM
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.fused.call import Call, Kept
from sgas_gcn.kernels.protocol import Term
from sgas_gcn.neighbors import Neighbors

Neighborhood = Neighbors | GraphNeighbors


class Operation(nn.Module):
    """A candidate operation on one edge of a cell, made for `channels` features of each node.

    `forward` defines it, in plain torch and with autograd; a table's own operations need no more.
    `skips` says that it hands its input on, which drop path leaves alone. `reads_attributes` says
    that it stands for another where edges have attributes (`WITH_ATTRIBUTES` of `ops.graph`), and
    is made for `(channels, edge_channels)`.
    """

    skips: ClassVar[bool] = False
    reads_attributes: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]` for features `x` `[N, C]`."""
        raise NotImplementedError


class FusedOperation(Operation):
    """An operation that networks run on m edges at once, with a backward pass written by hand.

    `fused_forward` and `fused_backward` compute what `forward` says, which networks do not call
    then: it is what tests hold them to. `weight_names` are the parameters that they read.
    """

    weight_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def fused_forward(cls, call: Call) -> tuple[Term | None, Kept]:
        """The term of the outputs' sum (None: nothing), and what the backward pass needs."""
        raise NotImplementedError

    @classmethod
    def fused_backward(cls, call: Call, grad: Tensor, kept: Kept) -> None:
        """Leaves the gradients of `call`, from that of its outputs, `grad` `[N, m·C]`."""
        raise NotImplementedError


def runs_fused(operation: type[Operation]) -> TypeGuard[type[FusedOperation]]:
    """Whether an operation has a fused form of its `forward`.

    A class that replaces `forward` alone has none: the form that it inherits is of another.
    """
    if not issubclass(operation, FusedOperation):
        return False
    definitions = {"forward", "fused_forward"}
    nearest = next(base for base in operation.__mro__ if definitions & vars(base).keys())
    return "fused_forward" in vars(nearest)


class BatchNorm(nn.Module):
    """Batch norm over the rows of `[R, C]`; in evaluation mode by running statistics.

    Those stay as they are where there is no row to learn from; else they move by `momentum`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.momentum = MOMENTUM
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised `[R, C]`."""
        mean, var = self.running_mean, self.running_var
        if self.training and len(x):
            mean, var = x.mean(0), x.var(0, correction=0)
            with torch.no_grad():
                unbiased = var * (len(x) / max(len(x) - 1, 1))
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return (x - mean) * (var + EPS).rsqrt() * self.weight + self.bias
