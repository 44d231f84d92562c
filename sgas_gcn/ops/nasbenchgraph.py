"""The operations on the nodes of NAS-Bench-Graph's cells: operators of PyTorch Geometric.

Their definitions, parameters and first values are PyG's. All but `gat` are sums of terms P (x Wᵀ),
P a fixed matrix of the graph, so that they are computed with the product first: features are wider
than channels and may be sparse, and no tensor of edges is made.

Source: Qin et al., "NAS-Bench-Graph: Benchmarking Graph Neural Architecture Search", NeurIPS 2022,
section 3.1, and the settings of the operators in the code that comes with it. What stands before
an operation (norm, ReLU, dropout) is the cell's. Dimensions: N nodes, I and C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
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
from sgas_gcn.constants import LEAKY_SLOPE
from sgas_gcn.csr import CsrGraph, GraphNeighbors
from sgas_gcn.fused.sums import attention_sum, neighbor_sum
from sgas_gcn.ops.plain import PlainNeighbors
from sgas_gcn.sparse import Features, dense, linear


class NodeOperation(nn.Module):
    """A candidate operation on one edge of a cell, from `in_channels` features to `channels`.

    `skips` says that it hands its input on, which drop path leaves alone.

    `plain` is the definition for features that are a tensor; where a class has none, its `forward`.
    """

    skips: ClassVar[bool] = False
    plain: Callable[..., Any]

    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "plain"):
            cls.plain = cls.forward

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, channels

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Any:
        """The output `[N, C]` for features `x` `[N, I]`."""
        raise NotImplementedError


class Zero(NodeOperation):
    """0."""

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return dense(x).new_zeros(len(x), self.channels)


class Skip(NodeOperation):
    """x: of the raw features the output is as wide as they are."""

    skips = True

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Features:
        """The output `[N, I]`."""
        return x

    def plain(self, x: Tensor, neighbors: PlainNeighbors) -> Tensor:
        """The output `[N, I]`."""
        return x


class Linear(NodeOperation):
    """W x + b."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels)
        self.lin = nn.Linear(in_channels, channels)

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return linear(x, self.lin.weight, self.lin.bias)

    def plain(self, x: Tensor, neighbors: PlainNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return self.lin(x)


Propagate = Callable[[Tensor, GraphNeighbors], Tensor]


def itself(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """x."""
    return x


def total(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """A x, A the edges as they are, with weights if there are some; so are all but two below."""
    return neighbor_sum(x, neighbors.edges, weighted=True)


def average(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """D⁻¹ A x without weights; 0 for nodes without edges."""
    return neighbor_sum(x, neighbors.edges) / neighbors.edges.degrees.clamp(min=1)


def with_self(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """A x + x without weights."""
    return neighbor_sum(x, neighbors.edges) + x


def symmetric(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """D^-1/2 A D^-1/2 x."""
    return _scaled_sum(x, neighbors.edges, neighbors.edges.totals)


def symmetric_with_self(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """D^-1/2 A D^-1/2 x with self-loops renewed."""
    return _scaled_sum(x, neighbors.with_self, neighbors.with_self.totals)


def laplacian(x: Tensor, neighbors: GraphNeighbors) -> Tensor:
    """L x - x = -D^-1/2 A D^-1/2 x without self-loops; D counts the edges that leave a node."""
    graph = neighbors.with_self
    if graph.weights is None:
        degrees = graph.out_offsets.diff().unsqueeze(1) - 1
        return x * (degrees > 0) / degrees.clamp(min=1) - _scaled_sum(x, graph, degrees)
    weights, apart = graph.weights.unsqueeze(1), (graph.sources != graph.targets).unsqueeze(1)
    none = weights.new_zeros(graph.num_nodes, 1)
    degrees = none.index_add(0, graph.sources, weights * apart)
    loops = none.index_add(0, graph.sources, weights * ~apart)
    own = (loops / degrees).masked_fill(degrees == 0, 0).to(x.dtype)
    return x * own - _scaled_sum(x, graph, degrees)


def _scaled_sum(x: Tensor, graph: CsrGraph, degrees: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 x for degrees `[N, 1]`, 0 for those of 0."""
    share = degrees.to(x.dtype).rsqrt().masked_fill(degrees == 0, 0)
    return share * neighbor_sum(share * x, graph, weighted=True)


class Convolution(NodeOperation):
    """An operator of PyTorch Geometric, `conv`: its definition, which holds its parameters."""

    takes_weights: ClassVar[bool] = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels)
        self.conv: Any = self.operator(in_channels, channels)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        raise NotImplementedError

    def plain(self, x: Tensor, neighbors: PlainNeighbors) -> Tensor:
        """The output `[N, C]`."""
        edges = neighbors.edges
        if self.takes_weights:
            return self.conv(x, edges.edge_index, edges.weights)
        return self.conv(x, edges.edge_index)


class Propagation(Convolution):
    """Σ_k P_k (x W_kᵀ) + b."""

    propagated: ClassVar[tuple[Propagate, ...]]

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """The W_k `[C, I]`, and b `[C]`."""
        raise NotImplementedError

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        weights, bias = self.weights()
        products = linear(x, torch.cat(weights)).chunk(len(weights), 1)
        terms = zip(self.propagated, products, strict=True)
        parts = [propagate(product, neighbors) for propagate, product in terms]
        return sum(parts[1:], start=parts[0]) + bias


class GCN(Propagation):
    """Kipf and Welling, ICLR 2017."""

    propagated = (symmetric_with_self,)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        return GCNConv(in_channels, channels)

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """W, b."""
        return [self.conv.lin.weight], self.conv.bias


class GIN(Propagation):
    """Xu et al., ICLR 2019, with a linear layer."""

    takes_weights = False
    propagated = (with_self,)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        return GINConv(nn.Linear(in_channels, channels))

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """W, b."""
        return [self.conv.nn.weight], self.conv.nn.bias


class Cheb(Propagation):
    """Defferrard et al., NeurIPS 2016, of order 2."""

    propagated = (itself, laplacian)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        return ChebConv(in_channels, channels, K=2)

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """W of the node and of the Laplacian, b."""
        return [lin.weight for lin in self.conv.lins], self.conv.bias


class SAGE(Propagation):
    """Hamilton et al., NeurIPS 2017, by means."""

    takes_weights = False
    propagated = (average, itself)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        return SAGEConv(in_channels, channels)

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """W of the neighbours and of the node, b."""
        return [self.conv.lin_l.weight, self.conv.lin_r.weight], self.conv.lin_l.bias


class Graph(Propagation):
    """Morris et al., AAAI 2019."""

    propagated = (total, itself)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        return GraphConv(in_channels, channels)

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """W of the neighbours and of the node, b."""
        return [self.conv.lin_rel.weight, self.conv.lin_root.weight], self.conv.lin_rel.bias


class ARMA(Propagation):
    """Bianchi et al., TPAMI 2021: one stack of one layer, and the ReLU of it."""

    propagated = (symmetric, itself)

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        conv = ARMAConv(in_channels, channels)
        del conv.weight  # of later layers of its stack, of which there are none
        return conv

    def weights(self) -> tuple[list[Tensor], Tensor]:
        """W of the neighbours and of the node, b."""
        conv = self.conv
        return [conv.init_weight[0].t(), conv.root_weight[0, 0].t()], conv.bias.view(-1)

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        return super().forward(x, neighbors).relu()


class GAT(Convolution):
    """Veličković et al., ICLR 2018: heads side by side, with self-loops renewed."""

    takes_weights = False

    def operator(self, in_channels: int, channels: int) -> nn.Module:
        """The operator, fresh."""
        return GATConv(in_channels, channels // GAT_HEADS, heads=GAT_HEADS)

    def forward(self, x: Features, neighbors: GraphNeighbors) -> Tensor:
        """The output `[N, C]`."""
        conv = self.conv
        vectors = torch.stack([conv.att_dst.view(-1), conv.att_src.view(-1)])
        h = linear(x, conv.lin.weight)
        graph, slope = neighbors.with_self, LEAKY_SLOPE
        return attention_sum(h, vectors, GAT_HEADS, graph, slope) + conv.bias


NASBENCHGRAPH_TABLE: dict[str, Callable[[int, int], NodeOperation]] = {
    "none": Zero,
    "gat": GAT,
    "gcn": GCN,
    "gin": GIN,
    "cheb": Cheb,
    "sage": SAGE,
    "arma": ARMA,
    "graph": Graph,
    "fc": Linear,
    "skip": Skip,
}
