"""`gat` and `gin` on graphs whose edges have attributes; they run by their `forward`.

Dimensions: N nodes, E edges, C channels, A attributes of an edge.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sgas_gcn.ops.gat import GraphGAT
from sgas_gcn.ops.gin import GraphGIN
from sgas_gcn.ops.operation import Neighborhood
from sgas_gcn.ops.plain import attention, attributes_of, sums


class AttributeGAT(GraphGAT):
    """`gat` whose scores before the leaky ReLU are att · [h_i, h_j] + edge · e_ij.

    As by PyTorch Geometric's GATConv with one head, where an attribute's weight in a score is
    att_edge · W_edge: this vector is learnt itself. A node's own edge has the means of the others'
    attributes.
    """

    reads_attributes: ClassVar[bool] = True

    def __init__(self, channels: int, edge_channels: int) -> None:
        super().__init__(channels)
        self.edge_channels = edge_channels
        self.edge = nn.Linear(edge_channels, 1, bias=False)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        graph = neighbors.with_self
        scores = self.edge(attributes_of(graph, x)).squeeze(1)
        return self.norm(F.relu(attention(self.proj(x), self.att, graph, scores)))


class AttributeGIN(GraphGIN):
    """BN(R(W (x_i + Σ over the edges j→i of R(x_j + W_edge e_ij + b)))).

    Source: GINE of Hu et al., "Strategies for Pre-training Graph Neural Networks", ICLR 2020.
    """

    reads_attributes: ClassVar[bool] = True

    def __init__(self, channels: int, edge_channels: int) -> None:
        super().__init__(channels)
        self.edge_channels = edge_channels
        self.edge = nn.Linear(edge_channels, channels)

    def forward(self, x: Tensor, neighbors: Neighborhood) -> Tensor:
        """The output `[N, C]`."""
        graph = neighbors.edges
        sources, _ = graph.ends
        messages = F.relu(x[sources] + self.edge(attributes_of(graph, x)))
        return self.norm(F.relu(self.lin(x + sums(messages, graph))))
