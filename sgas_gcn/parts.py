"""A large graph part by part: the edges into some nodes at a time, for inference layer by layer.

What an operation gives for a node depends on the edges that enter it, on what their sources hold
and on degrees; so that parts, with the whole graph's degrees, give what the whole does. Unlike the
blocks of training steps, no edge is left out. Dimensions: N nodes of the graph, E edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sgas.native.backend import backend_for
from sgas_gcn.csr import CsrGraph, GraphNeighbors
from sgas_gcn.library import LIBRARY

if TYPE_CHECKING:
    from sgas_gcn.graph_batch import GraphBatch


@dataclass(frozen=True, eq=False)
class Part:
    """The nodes of a part, int64, the `count` that are answered before the sources of their edges.

    `neighbors` has the edges into those that are answered, between places among `nodes`.
    """

    nodes: Tensor
    count: int
    neighbors: GraphNeighbors

    def to(self, device: torch.device) -> Part:
        """The same part on a device."""
        return Part(self.nodes.to(device), self.count, self.neighbors.to(device))

    @property
    def answered(self) -> Tensor:
        """The nodes that are answered, int64 `[count]`."""
        return self.nodes[: self.count]


@dataclass(frozen=True, eq=False)
class PartedNeighbors:
    """The neighbourhoods of a graph in parts, which together answer each node once.

    They stay on the CPU, and come to the device one after the other.
    """

    parts: Sequence[Part]

    @classmethod
    def of(cls, neighbors: GraphNeighbors, part_of: np.ndarray) -> PartedNeighbors:
        """Those of a graph on the CPU whose node n is in part `part_of[n]`."""
        order = np.argsort(part_of, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(part_of))[:-1])
        graphs = neighbors.edges, neighbors.with_self
        place = torch.full((len(part_of),), -1)
        parts = []
        for answered in (torch.from_numpy(nodes) for nodes in members if len(nodes)):
            place[answered] = torch.arange(len(answered))
            chosen = [_into(graph, answered) for graph in graphs]
            sources = torch.cat(
                [graph.sources[edges] for graph, (edges, _) in zip(graphs, chosen, strict=True)]
            )
            others = sources[place[sources] < 0].unique()
            place[others] = torch.arange(len(answered), len(answered) + len(others))
            nodes = torch.cat([answered, others])
            own = [
                _part(graph, *of, place, nodes) for graph, of in zip(graphs, chosen, strict=True)
            ]
            parts.append(Part(nodes, len(answered), GraphNeighbors(*own)))
            place[nodes] = -1
        return cls(parts)

    def to(self, device: torch.device | str) -> PartedNeighbors:
        """Itself: parts come to a device when they are computed."""
        return self

    def on(self, device: torch.device) -> Iterator[Part]:
        """The parts, one after the other."""
        return (part.to(device) for part in self.parts)


def _into(graph: CsrGraph, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The edges that enter some nodes, in their order, and for each the place of its target."""
    first, counts = graph.offsets[nodes], graph.offsets[nodes + 1] - graph.offsets[nodes]
    targets = torch.arange(len(nodes)).repeat_interleave(counts)
    within = torch.arange(len(targets)) - (counts.cumsum(0) - counts)[targets]
    return first[targets] + within, targets


def _part(
    graph: CsrGraph, edges: Tensor, targets: Tensor, place: Tensor, nodes: Tensor
) -> CsrGraph:
    """The graph of some edges of another, between places of nodes."""
    weights = None if graph.weights is None else graph.weights[edges]
    attributes = None if graph.attributes is None else graph.attributes[edges]
    ends = torch.stack([place[graph.sources[edges]], targets])
    part = CsrGraph.from_edges(ends, len(nodes), weights, attributes)
    return replace(part, whole_totals=graph.totals[nodes])


def gains_by_parts(batch: GraphBatch, device: torch.device) -> bool:
    """Whether parts take less memory than the whole, of which they cost more time.

    Compiled kernels make no tensor of edges, so that with them the nodes' features take the memory;
    operations that read attributes of edges do, and a GPU need not hold all edges.
    """
    has_attributes = batch.neighbors.edges.attributes is not None
    return has_attributes or backend_for(device, LIBRARY) != "cpu"
