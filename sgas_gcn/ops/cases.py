"""What every operation on points and graphs is tried on by `sgas.testing`.

Dimensions: N nodes, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgas.family import OperationCase
from sgas_gcn.config import GAT_HEADS
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.neighbors import knn

CHANNELS = 5


def _state(num_nodes: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.randn(num_nodes, channels, generator=generator, dtype=torch.float64)


def point_cases() -> list[OperationCase]:
    """Clouds, of which each is put into another order."""
    cases = []
    for clouds, points, k, dilation in ((1, 6, 2, 1), (3, 12, 4, 3)):
        generator = torch.Generator().manual_seed(points)
        places = torch.randn(clouds, points, 3, generator=generator)
        within = torch.stack([torch.randperm(points, generator=generator) for _ in range(clouds)])
        moved = places.gather(1, within.unsqueeze(-1).expand(-1, -1, 3))
        order = (within + points * torch.arange(clouds).unsqueeze(1)).flatten()
        x = _state(clouds * points, CHANNELS, generator)
        rest, reordered = knn(places, k, dilation), knn(moved, k, dilation)
        cases.append(OperationCase((CHANNELS,), x, (rest,), x.shape, order, (reordered,)))
    return cases


def graph_cases() -> list[OperationCase]:
    """Graphs with self-loops, edges that are there twice, nodes without any; one without edges."""
    return _graph_cases(CHANNELS, (CHANNELS,))


def nasbenchgraph_cases() -> list[OperationCase]:
    """The same graphs, for operations that are told two numbers of channels."""
    channels = 2 * GAT_HEADS
    return _graph_cases(channels, (channels, channels))


def _graph_cases(channels: int, arguments: tuple[int, ...]) -> list[OperationCase]:
    cases, num_nodes = [], 16
    for num_edges in (0, 50):
        generator = torch.Generator().manual_seed(num_edges)
        edges = torch.randint(num_nodes - 3, (2, num_edges), generator=generator)
        order = torch.randperm(num_nodes, generator=generator)
        moved = order.argsort()[edges]
        x = _state(num_nodes, channels, generator)
        rest, reordered = (GraphNeighbors.from_edges(e, num_nodes) for e in (edges, moved))
        cases.append(OperationCase(arguments, x, (rest,), x.shape, order, (reordered,)))
    return cases
