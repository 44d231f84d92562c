"""Blocks of one large graph, for training steps that hold a part of it.

Nodes that are joined come into one block where it has room, so that few edges join two: linear
deterministic greedy, streamed again (Nishimura and Ugander, KDD 2013). Steps see the edges within a
block (Chiang et al., Cluster-GCN, KDD 2019); measuring sees the whole graph. Dimensions: N nodes, E
edges, R asked nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from sgas_gcn.datasets.graph_arrays import GraphArrays
from sgas_gcn.graph_batch import GraphBatch

PASSES = 8
TIE = 1e-3  # neighbours: among blocks with as many, the emptier one


@dataclass(frozen=True)
class Blocks:
    """One graph in blocks: their batches, and for each node its block and its place there `[N]`.

    `left_out` is the share of edges that join two blocks, which no step sees.
    """

    batches: list[GraphBatch]
    block_of: np.ndarray
    place_of: np.ndarray
    left_out: float

    @classmethod
    def of(cls, graph: GraphArrays, most_nodes: int) -> Blocks:
        """Blocks of at most `most_nodes` nodes, as few as there can be."""
        x, edges = graph.x, graph.edges
        number = math.ceil(len(x) / most_nodes)
        block_of = partition(edges, len(x), number)
        order = np.argsort(block_of, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(block_of, minlength=number))[:-1])
        place_of = np.empty(len(x), np.int64)
        for nodes in members:
            place_of[nodes] = np.arange(len(nodes))
        source_block = block_of[edges[0]]
        within = source_block == block_of[edges[1]]
        kept, source_block = place_of[edges[:, within]], source_block[within]
        of_block = np.argsort(source_block, kind="stable")
        kept, ends = kept[:, of_block], np.cumsum(np.bincount(source_block, minlength=number))[:-1]

        def split(of_edges: np.ndarray | None) -> list[Any]:
            if of_edges is None:
                return [None] * number
            return [torch.from_numpy(part) for part in np.split(of_edges[within][of_block], ends)]

        parts = map(torch.from_numpy, np.split(kept, ends, axis=1))
        batches = [
            GraphBatch.of_graph(torch.from_numpy(x[nodes]), part, None, *of_edges)
            for nodes, part, *of_edges in zip(
                members, parts, split(graph.weights), split(graph.attributes), strict=True
            )
        ]
        return cls(batches, block_of, place_of, 1 - float(within.mean()) if len(within) else 0.0)

    def asking(
        self, nodes: np.ndarray, targets: Tensor, device: torch.device
    ) -> tuple[list[GraphBatch], list[Tensor]]:
        """The blocks on a device with `nodes` `[R]` asked, and their targets; others are left out.

        `targets` has a row for each of `nodes`, on the device.
        """
        block_of = self.block_of[nodes]
        order = np.argsort(block_of, kind="stable")
        blocks, counts = np.unique(block_of, return_counts=True)
        rows = [torch.from_numpy(part) for part in np.split(order, np.cumsum(counts)[:-1])]
        places = torch.from_numpy(self.place_of[nodes])
        batches = [
            replace(self.batches[block], asked=places[part]).to(device)
            for block, part in zip(blocks, rows, strict=True)
        ]
        return batches, [targets.index_select(0, part.to(device)) for part in rows]


def partition(edges: np.ndarray, num_nodes: int, number: int) -> np.ndarray:
    """The block `[N]` of each node, of `number` blocks of at most ⌈N / number⌉ nodes.

    A node goes where most of its neighbours are, weighted by the room there; nodes come in the
    order of reverse Cuthill-McKee, which is breadth first, and PASSES times.
    """
    pairs = np.concatenate([edges, edges[::-1]], axis=1)
    links = csr_array((np.ones(pairs.shape[1], np.int8), pairs), shape=(num_nodes, num_nodes))
    order = reverse_cuthill_mckee(links, symmetric_mode=True).tolist()
    first, ends = links.indptr.tolist(), links.indices
    capacity = math.ceil(num_nodes / number)
    block_of = np.full(num_nodes, number)  # of none yet
    for _ in range(PASSES):
        room = np.full(number, float(capacity))
        for node in order:
            neighbors = block_of[ends[first[node] : first[node + 1]]]
            joined = np.bincount(neighbors, minlength=number + 1)[:number]
            block = int((room * (joined + TIE)).argmax())
            block_of[node] = block
            room[block] -= 1
    return block_of
