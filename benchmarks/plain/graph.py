"""The plain supernet and derived network of graphs, by PyTorch Geometric's operators.

Operations of Li et al., "SGAS", CVPR 2020, section 4.2, in the sparse form. Dimensions: N nodes of
all graphs of a batch, M directed edges, C channels. PyG writes x_i for the target of an edge and
x_j for its source.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, GATConv, GCNConv, GINConv, MessagePassing
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from plain.common import Cell, CellNetwork, Plan, layers


class Graph(NamedTuple):
    """Edges `[2, M]`, the same with self-loops, and the weights of those for semi_gcn.

    The last two depend on the graph alone, so a careful user computes them once a batch and not in
    every convolution.
    """

    edge_index: Tensor
    with_loops: Tensor
    gcn_weight: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, x: Tensor) -> Graph:
        """The graph of nodes `x` `[N, C]`."""
        with_loops, weight = gcn_norm(edge_index, num_nodes=len(x), dtype=x.dtype)
        return cls(edge_index, with_loops, weight)


def linear_norm(in_channels: int, out_channels: int) -> nn.Sequential:
    """BN(R(W x)) on `[N, in_channels]`."""
    return layers(
        lin=nn.Linear(in_channels, out_channels, bias=False),
        act=nn.ReLU(),
        norm=nn.BatchNorm1d(out_channels),
    )


class Zero(nn.Module):
    """`none`: zeros."""

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Zeros `[N, C]`."""
        return torch.zeros_like(x)


class Skip(nn.Module):
    """`skip_connect`: x."""

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """`x` `[N, C]`."""
        return x


class Conv1x1(nn.Module):
    """BN(R(W x_i))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nn = linear_norm(channels, channels)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        return self.nn(x)


class Edge(EdgeConv):
    """max over j of BN(R(W [x_i, x_j - x_i])); 0 for an isolated node."""

    def __init__(self, channels: int) -> None:
        super().__init__(linear_norm(2 * channels, channels), aggr="max")

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        return super().forward(x, graph.edge_index)


class MRConv(MessagePassing):
    """BN(R(W [x_i, max over j of (x_j - x_i)])); the maximum is 0 for an isolated node."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="max")
        self.nn = linear_norm(2 * channels, channels)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        return self.nn(torch.cat([x, self.propagate(graph.edge_index, x=x)], dim=-1))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        """x_j - x_i `[M, C]`."""
        return x_j - x_i


class GAT(nn.Module):
    """BN(R(Σ over i and j of a_ij P x_j)): GATConv of one head without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GATConv(channels, channels, add_self_loops=False, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        return self.norm(F.relu(self.conv(x, graph.with_loops)))


class SemiGCN(nn.Module):
    """BN(R(Σ over i and j of P x_j / √(d_i d_j))): GCNConv without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = GCNConv(channels, channels, normalize=False, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        return self.norm(F.relu(self.conv(x, graph.with_loops, graph.gcn_weight)))


class GIN(GINConv):
    """BN(R(W (x_i + Σ over j of x_j)))."""

    def __init__(self, channels: int) -> None:
        super().__init__(linear_norm(channels, channels))

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        return super().forward(x, graph.edge_index)


class SAGE(MessagePassing):
    """o / |o| with o = BN(R(W [x_i, mean over i and j of P x_j]))."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="mean")
        self.proj = nn.Linear(channels, channels, bias=False)
        self.nn = linear_norm(2 * channels, channels)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """The output `[N, C]`."""
        message = self.propagate(graph.with_loops, x=self.proj(x))
        return F.normalize(self.nn(torch.cat([x, message], dim=-1)), dim=-1)

    def message(self, x_j: Tensor) -> Tensor:
        """x_j `[M, C]`, projected."""
        return x_j


class RelSAGE(SAGE):
    """SAGE with P (x_j - x_i) in place of P x_j in the message."""

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:  # type: ignore[override]
        """x_j - x_i `[M, C]`, projected."""
        return x_j - x_i


OPS: dict[str, type[nn.Module]] = {
    "none": Zero,
    "skip_connect": Skip,
    "conv_1x1": Conv1x1,
    "edge_conv": Edge,
    "mr_conv": MRConv,
    "gat": GAT,
    "semi_gcn": SemiGCN,
    "gin": GIN,
    "sage": SAGE,
    "rel_sage": RelSAGE,
}


def make_op(name: str, channels: int) -> nn.Module:
    """The operation of a name."""
    if name in ("none", "skip_connect"):
        return OPS[name]()
    return OPS[name](channels)


class PlainGraph(CellNetwork):
    """Logits `[N, num_outputs]` for nodes `[N, in_channels]` and edges int64 `[2, M]`."""

    def __init__(
        self,
        plan: Plan,
        *,
        search: bool,
        in_channels: int = 50,
        num_outputs: int = 121,
        channels: int = 32,
        num_cells: int = 1,
    ) -> None:
        super().__init__({"normal": plan}, search)
        stem = 3 * channels
        self.stem = layers(lin=nn.Linear(in_channels, stem, bias=False), norm=nn.BatchNorm1d(stem))
        self.cells = nn.ModuleList()
        before, last = stem, stem
        for _ in range(num_cells):
            pre0, pre1 = linear_norm(before, channels), linear_norm(last, channels)
            self.cells.append(Cell(pre0, pre1, plan, lambda name, _: make_op(name, channels)))
            before, last = last, len(plan.concat) * channels
        self.classifier = nn.Linear(1 + last, num_outputs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits; the classifier reads each node's channels and their mean."""
        graph = Graph.of(edge_index, x)
        stem = self.stem(x)
        last = self.run_cells(stem, stem, lambda cell, features: (graph,))[-1]
        pooled = last.mean(dim=1, keepdim=True)
        return cast("Tensor", self.classifier(torch.cat([pooled, last], dim=1)))
