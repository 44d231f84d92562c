"""Searches a graph cell on one's own list of PyG graphs: random ones stand in for it."""

import torch
from torch_geometric.data import Data
from torch_geometric.utils import erdos_renyi_graph, to_undirected

import sgas_gcn


def graph(seed: int) -> Data:
    """60 nodes; those with a neighbour whose first feature is above 1 are of class 1."""
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed))
    edge_index = to_undirected(erdos_renyi_graph(60, 0.05))
    reached = edge_index[1, x[edge_index[0], 0] > 1]
    return Data(x=x, edge_index=edge_index, y=torch.isin(torch.arange(60), reached).long())


graphs = [graph(seed) for seed in range(12)]
searched = sgas_gcn.search(graphs[:9], test=graphs[9:], preset="demo")
print(searched, sgas_gcn.train(searched, preset="demo").evaluate())
