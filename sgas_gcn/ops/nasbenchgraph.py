"""The operations on the nodes of NAS-Bench-Graph's cells: operators of PyTorch Geometric.

Source: Qin et al., "NAS-Bench-Graph: Benchmarking Graph Neural Architecture Search", NeurIPS 2022,
section 3.1, and the settings of the operators in the code that comes with it. What stands before
an operation (norm, ReLU, dropout) is the cell's. Dimensions: N nodes, I and C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from torch import Tensor, nn
from torch_geometric.nn import (
    ARMAConv,
    ChebConv,
    GATConv,
    GCNConv,
    GINConv,
    GraphConv,
    SAGEConv,
)

from sgas_gcn.config import GAT_HEADS
from sgas_gcn.csr import GraphNeighbors


class NodeOperation(nn.Module):
    """A candidate operation on one edge of a cell, from `in_channels` features to `channels`.

    `skips` says that it hands its input on, which drop path leaves alone.
    """

    skips: ClassVar[bool] = False

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, channels

    def forward(self, x: Tensor, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]` for features `x` `[N, I]`."""
        raise NotImplementedError


class Zero(NodeOperation):
    """0."""

    def forward(self, x: Tensor, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return x.new_zeros(len(x), self.channels)


class Skip(NodeOperation):
    """x: of the raw features the output is as wide as they are."""

    skips = True

    def forward(self, x: Tensor, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, I]`."""
        return x


class Linear(NodeOperation):
    """W x + b."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels)
        self.lin = nn.Linear(in_channels, channels)

    def forward(self, x: Tensor, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return self.lin(x)


class Convolution(NodeOperation):
    """An operator of PyTorch Geometric that `make` makes for the numbers of channels."""

    def __init__(
        self, in_channels: int, channels: int, make: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__(in_channels, channels)
        self.conv = make(in_channels, channels)

    def forward(self, x: Tensor, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return self.conv(x, neighbors.edges.edge_index)


def _gat(in_channels: int, channels: int) -> nn.Module:
    return GATConv(in_channels, channels // GAT_HEADS, heads=GAT_HEADS)


def _gin(in_channels: int, channels: int) -> nn.Module:
    return GINConv(nn.Linear(in_channels, channels))


def _arma(in_channels: int, channels: int) -> nn.Module:
    conv = ARMAConv(in_channels, channels)
    del conv.weight  # of later layers of its stack, of which there are none
    return conv


NASBENCHGRAPH_TABLE: dict[str, Callable[[int, int], NodeOperation]] = {
    "none": Zero,
    "gat": partial(Convolution, make=_gat),
    "gcn": partial(Convolution, make=GCNConv),
    "gin": partial(Convolution, make=_gin),
    "cheb": partial(Convolution, make=partial(ChebConv, K=2)),
    "sage": partial(Convolution, make=SAGEConv),
    "arma": partial(Convolution, make=_arma),
    "graph": partial(Convolution, make=GraphConv),
    "fc": Linear,
    "skip": Skip,
}
