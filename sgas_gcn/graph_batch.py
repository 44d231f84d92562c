"""GraphBatch: whole graphs side by side, as the networks take them.

Dimensions: N nodes of all graphs together, D features of a node, B graphs, R nodes that are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sgas.errors import InputError
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.sparse import Features, SparseRows


def edges_of(edge_index: Tensor | None) -> Tensor:
    """The edges that a network was given beside features; InputError where it was given none."""
    if edge_index is None:
        raise InputError(
            "a network of graphs was given features alone: give edge_index too, or a GraphBatch"
        )
    return edge_index


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Features `x` `[N, D]` and edges of graphs of `sizes` nodes, of which `asked` want logits.

    `asked` is an int64 index `[R]` of nodes, or None for all: where only some nodes are labelled
    (one graph, transductive), the others take part and are not answered.
    """

    x: Tensor
    neighbors: Any  # GraphNeighbors, or PartedNeighbors of a large graph in evaluation mode
    sizes: tuple[int, ...]
    asked: Tensor | None = None

    @classmethod
    def of_graph(
        cls,
        x: Tensor,
        edge_index: Tensor,
        asked: Tensor | None = None,
        weights: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> GraphBatch:
        """One graph of nodes `x` `[N, D]` and edges int `[2, E]`, sources above targets.

        `weights` of edges are float32 `[E]`, at least 0, their `attributes` float32 `[E, A]`.
        DataError where an edge names a node that is not there.
        """
        neighbors = GraphNeighbors.from_edges(edge_index, len(x), weights, attributes)
        return cls(x, neighbors, (len(x),), asked)

    @classmethod
    def join(cls, batches: Sequence[GraphBatch]) -> GraphBatch:
        """The graphs of several batches as one."""
        if len(batches) == 1:
            return batches[0]
        asked = None
        if any(batch.asked is not None for batch in batches):
            first, parts = 0, []
            for batch in batches:
                parts.append(batch.asked_nodes + first)
                first += len(batch.x)
            asked = torch.cat(parts)
        return cls(
            torch.cat([batch.x for batch in batches]),
            GraphNeighbors.join([batch.neighbors for batch in batches]),
            tuple(size for batch in batches for size in batch.sizes),
            asked,
        )

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on a device."""
        asked = None if self.asked is None else self.asked.to(device)
        return GraphBatch(self.x.to(device), self.neighbors.to(device), self.sizes, asked)

    def with_features(self, x: Tensor) -> GraphBatch:
        """The same graphs with other features `[N, D]`."""
        return replace(self, x=x)

    @cached_property
    def features(self) -> Features:
        """`x`, on the CPU as sparse rows where nearly all of it is 0."""
        if self.x.device.type != "cpu" or self.x.requires_grad:
            return self.x
        sparse = SparseRows.of(self.x)
        return self.x if sparse is None else sparse

    def answers(self, rows: Tensor) -> Tensor:
        """The rows `[R, …]` of the asked nodes out of `[N, …]`."""
        return rows if self.asked is None else rows.index_select(0, self.asked)

    @property
    def asked_nodes(self) -> Tensor:
        """The index `[R]` of the nodes that want logits, also where it is all of them."""
        if self.asked is not None:
            return self.asked
        return torch.arange(len(self.x), device=self.x.device)

    @property
    def rows(self) -> list[int]:
        """How many nodes of each graph are asked."""
        if self.asked is None:
            return list(self.sizes)
        asked = self.graph_of_node.index_select(0, self.asked)
        return torch.bincount(asked, minlength=len(self.sizes)).tolist()

    @cached_property
    def graph_of_node(self) -> Tensor:
        """The number of each node's graph, int64 `[N]`."""
        # From memory that is not pinned a copy that waits would wait for the whole device.
        sizes = torch.tensor(self.sizes).to(self.x.device, non_blocking=True)
        numbers = torch.arange(len(self.sizes), device=self.x.device)
        return numbers.repeat_interleave(sizes, output_size=len(self.x))
