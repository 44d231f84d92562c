"""Graphs that come as they are: edges in compressed rows, and the edges that operations read.

Everything that needs sorting is made once for each graph; graphs of a batch are joined by adding
offsets. Dimensions: N nodes, E edges. An edge goes from a source to a target; a graph may have
self-loops, edges more than once, nodes without edges, and no edge at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sgas.errors import DataError
from sgas_gcn.rows import Rows, index_dtype


@dataclass(frozen=True, eq=False)
class CsrGraph:
    """A graph with its edges sorted by target, and a second time by source; all tensors int64.

    Edges `offsets[i]` to `offsets[i + 1]` enter node i, from `sources`; `targets` says i again for
    each. Of the edges sorted by source, those that leave node j are `out_offsets[j]` to
    `out_offsets[j + 1]`, to `out_targets`; `out_edges` are their numbers in the first order.
    `offsets` and `out_offsets` are `[N + 1]`, the others `[E]`. No node has more than
    `largest_degree` edges that enter it. `weights` of edges are float32 `[E]` in the first order
    (None: all 1), `attributes` float32 `[E, A]` (None: there are none); which operations read them,
    they say themselves. `whole_totals` are, of a part of a graph, the `totals` of the whole.
    """

    offsets: Tensor
    sources: Tensor
    targets: Tensor
    out_offsets: Tensor
    out_targets: Tensor
    out_edges: Tensor
    largest_degree: int
    weights: Tensor | None = None
    attributes: Tensor | None = None
    whole_totals: Tensor | None = None

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        num_nodes: int,
        weights: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> CsrGraph:
        """The graph of `edge_index` int `[2, E]`, sources above targets; edges keep their order.

        DataError where an edge names a node that is not there. Waits for the device, to check that
        and to read the largest degree; what is made of graphs (`join`, `to`) does not.
        """
        edge_index = edge_index.to(torch.int64)
        if edge_index.numel() and not 0 <= edge_index.min() <= edge_index.max() < num_nodes:
            wrong = ((edge_index < 0) | (edge_index >= num_nodes)).any(0).nonzero()[0].item()
            raise DataError(
                f"edge {wrong} joins the nodes {edge_index[:, int(wrong)].tolist()}; a graph of "
                f"{num_nodes} nodes has the nodes 0 to {num_nodes - 1}"
            )
        targets, order = edge_index[1].sort(stable=True)
        sources = edge_index[0][order]
        out_sources, out_edges = sources.sort(stable=True)
        starts = torch.arange(num_nodes + 1, device=edge_index.device)
        offsets = torch.searchsorted(targets, starts)
        return cls(
            offsets,
            sources,
            targets,
            torch.searchsorted(out_sources, starts),
            targets[out_edges],
            out_edges,
            int(offsets.diff().max()) if num_nodes else 0,
            None if weights is None else weights[order],
            None if attributes is None else attributes[order],
        )

    @classmethod
    def join(cls, graphs: Sequence[CsrGraph]) -> CsrGraph:
        """The graphs side by side as one, their nodes numbered on; nothing is sorted again.

        Either all have attributes of edges, or none has.
        """
        if len(graphs) == 1:
            return graphs[0]
        weighted = any(graph.weights is not None for graph in graphs)
        attributes = [graph.attributes for graph in graphs if graph.attributes is not None]
        nodes = [0]
        edges = [0]
        for graph in graphs:
            nodes.append(nodes[-1] + graph.num_nodes)
            edges.append(edges[-1] + graph.num_edges)

        def shifted(name: str, by: list[int]) -> Tensor:
            return torch.cat(
                [getattr(graph, name) + first for graph, first in zip(graphs, by, strict=False)]
            )

        def joined_offsets(name: str) -> Tensor:
            starts = [getattr(graph, name)[:-1] for graph in graphs]
            parts = [part + first for part, first in zip(starts, edges, strict=False)]
            return torch.cat([*parts, getattr(graphs[-1], name)[-1:] + edges[-2]])

        return cls(
            joined_offsets("offsets"),
            shifted("sources", nodes),
            shifted("targets", nodes),
            joined_offsets("out_offsets"),
            shifted("out_targets", nodes),
            shifted("out_edges", edges),
            max(graph.largest_degree for graph in graphs),
            None if not weighted else torch.cat([graph.all_weights for graph in graphs]),
            torch.cat(attributes) if attributes else None,
        )

    def to(self, device: torch.device | str) -> CsrGraph:
        """The same graph on a device."""
        return CsrGraph(
            self.offsets.to(device),
            self.sources.to(device),
            self.targets.to(device),
            self.out_offsets.to(device),
            self.out_targets.to(device),
            self.out_edges.to(device),
            self.largest_degree,
            None if self.weights is None else self.weights.to(device),
            None if self.attributes is None else self.attributes.to(device),
            None if self.whole_totals is None else self.whole_totals.to(device),
        )

    @property
    def num_nodes(self) -> int:
        """Number of nodes (N)."""
        return len(self.offsets) - 1

    @property
    def num_edges(self) -> int:
        """Number of edges (E)."""
        return len(self.sources)

    @cached_property
    def rows(self) -> Rows:
        """The edges as compiled kernels read them."""
        dtype = index_dtype(self.num_nodes, self.num_edges)
        return Rows(
            self.offsets.to(dtype),
            self.sources.to(dtype),
            self.out_offsets.to(dtype),
            self.out_targets.to(dtype),
            self.out_edges.to(dtype),
            self.largest_degree,
        )

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The sources and the targets of all edges, int64 `[E]` each."""
        return self.sources, self.targets

    @cached_property
    def edge_index(self) -> Tensor:
        """All edges as operators of PyG take them: int64 `[2, E]`, sources above targets."""
        return torch.stack(self.ends)

    @cached_property
    def degrees(self) -> Tensor:
        """How many edges enter each node, int64 `[N, 1]`."""
        return self.offsets.diff().unsqueeze(1)

    @property
    def all_weights(self) -> Tensor:
        """The weights of edges `[E]`, also where all are 1."""
        if self.weights is not None:
            return self.weights
        return torch.ones(self.num_edges, device=self.sources.device)

    @cached_property
    def totals(self) -> Tensor:
        """The weights of the edges that enter each node, added up, `[N, 1]`: without, degrees."""
        if self.whole_totals is not None:
            return self.whole_totals
        if self.weights is None:
            return self.degrees
        none = self.weights.new_zeros(self.num_nodes)
        return none.index_add(0, self.targets, self.weights).unsqueeze(1)

    @cached_property
    def has_edges(self) -> Tensor:
        """Whether any edge enters a node, bool `[N, 1]`."""
        return self.degrees > 0

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """1 for nodes that an edge enters and 0 for others, `[N]`."""
        return self.has_edges.squeeze(1).to(dtype)


def with_loops(
    edge_index: Tensor,
    num_nodes: int,
    weights: Tensor | None = None,
    attributes: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Edges int `[2, E]` with self-loops renewed, one at each node; weights and attributes of all.

    Among weights that of such a loop is the node's own loop's, if it has one of more than 0, or 1;
    its attributes are the means of those of the other edges that enter the node, 0 without any.
    """
    others = edge_index[0] != edge_index[1]
    loops = torch.arange(num_nodes, device=edge_index.device).expand(2, -1)
    renewed = torch.cat([edge_index[:, others], loops], dim=1)
    if attributes is not None:
        attributes = attributes.to(torch.promote_types(attributes.dtype, torch.float32))
        apart, targets = attributes[others], edge_index[1, others]
        sums = attributes.new_zeros(num_nodes, attributes.shape[1]).index_add(0, targets, apart)
        counts = attributes.new_zeros(num_nodes).index_add(0, targets, torch.ones_like(apart[:, 0]))
        attributes = torch.cat([apart, sums / counts.clamp_min(1).unsqueeze(1)])
    if weights is not None:
        own, kept = weights.new_ones(num_nodes), ~others & (weights > 0)
        own[edge_index[0, kept]] = weights[kept]
        weights = torch.cat([weights[others], own])
    return renewed, weights, attributes


@dataclass(frozen=True, eq=False)
class GraphNeighbors:
    """The `edges` of a graph as they are, and with self-loops renewed: one at each node."""

    edges: CsrGraph
    with_self: CsrGraph

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        num_nodes: int,
        weights: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> GraphNeighbors:
        """The neighbourhoods of `edge_index` int `[2, E]`, sources above targets.

        `weights` float32 `[E]` are at least 0 (None: all 1), `attributes` are float32 `[E, A]`.
        """
        renewed, *own = with_loops(edge_index, num_nodes, weights, attributes)
        return cls(
            CsrGraph.from_edges(edge_index, num_nodes, weights, attributes),
            CsrGraph.from_edges(renewed, num_nodes, *own),
        )

    @classmethod
    def join(cls, neighbors: Sequence[GraphNeighbors]) -> GraphNeighbors:
        """The neighbourhoods of several graphs side by side."""
        return cls(
            CsrGraph.join([each.edges for each in neighbors]),
            CsrGraph.join([each.with_self for each in neighbors]),
        )

    def to(self, device: torch.device | str) -> GraphNeighbors:
        """The same neighbourhoods on a device."""
        return GraphNeighbors(self.edges.to(device), self.with_self.to(device))
