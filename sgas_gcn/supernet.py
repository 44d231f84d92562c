"""The point-cloud supernet: every edge holds all candidates until it is decided.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 4.2.
Dimensions: B clouds, P points of each, C channels, E edges of a cell, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sgas.decisions import CellDecisions, EdgeState, Status
from sgas_gcn.cells import (
    CellEdge,
    build_cells,
    build_heads,
    build_stem,
    classify,
    forward_cells,
)
from sgas_gcn.config import POINT_SPACE, PointModelConfig
from sgas_gcn.neighbors import CellNeighbors

KIND = "normal"
ALPHA_SCALE = 1e-3


class PointSupernet(nn.Module):
    """Logits `[B, num_classes]` for clouds `[B, P, in_channels]`; `alphas["normal"]` is `[E, O]`.

    All cells share the alphas, and each has weights of its own for every edge and operation.
    """

    undecided: Tensor

    def __init__(self, config: PointModelConfig, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        topology = POINT_SPACE.topology(config.num_steps)
        names = POINT_SPACE.operations
        edges = [CellEdge(edge.source, edge.step, names) for edge in topology.edges]
        self.stem = build_stem(config, in_channels)
        self.cells = build_cells(config, edges, topology.num_steps, topology.concat)
        heads = build_heads(config, self.cells, num_classes)
        self.fusion, self.head0, self.head1, self.head2 = heads
        alphas = ALPHA_SCALE * torch.randn(topology.num_edges, len(names))
        self.alphas = nn.ParameterDict({KIND: nn.Parameter(alphas)})
        self._decisions = CellDecisions.none_yet(topology)
        self.register_buffer(
            "undecided", torch.ones(topology.num_edges, 1, dtype=torch.bool), persistent=False
        )

    @property
    def decisions(self) -> dict[str, CellDecisions]:
        """What is decided, by kind of cell."""
        return {KIND: self._decisions}

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas; after a decision, those that are left."""
        return [value for name, value in self.named_parameters() if not name.startswith("alphas.")]

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Free the operations that `decisions` gives up; those that stay keep their parameters.

        Takes any later state of the decisions, also one that is in force already, and is how a
        fresh supernet gets the shape of a checkpoint. What is gone cannot come back.
        """
        self._decisions = decisions[KIND]
        kept = [operations_of(state) for state in self._decisions.states]
        for cell in self.cells:
            cell.restrict(kept)
        is_open = [[state.status is Status.UNDECIDED] for state in self._decisions.states]
        self.undecided = torch.tensor(is_open, device=self.undecided.device)

    def mixture_weights(self) -> Tensor | None:
        """Softmax of the alphas `[E, O]`, ones for decided edges; None where no edge is open."""
        if self._decisions.complete:
            return None
        return torch.where(self.undecided, torch.softmax(self.alphas[KIND], dim=-1), 1.0)

    def forward(self, points: Tensor, neighbors: Sequence[Tensor] | None = None) -> Tensor:
        """Logits `[B, num_classes]` for clouds `[B, P, in_channels]`.

        `neighbors`, int `[B, P, k]` for each cell with the point itself first, replaces the
        searches among features. ConfigError where the clouds have too few points for the last cell.
        """
        config, num_clouds = self.config, points.shape[0]
        search = CellNeighbors(points.shape, config.k, config.num_cells, neighbors)
        weights = self.mixture_weights()
        outputs = forward_cells(
            self.cells,
            self.stem(points.flatten(0, 1)),
            search,
            lambda cell, s0, s1, graph: cell(s0, s1, graph, weights),
        )
        heads = (self.head0, self.head1, self.head2)
        return classify(outputs, self.fusion, heads, num_clouds, config.dropout)


def operations_of(state: EdgeState) -> tuple[str, ...]:
    """The operations that an edge holds: all candidates, the one decided, or none."""
    if state.status is Status.UNDECIDED:
        return POINT_SPACE.operations
    return () if state.op is None else (state.op,)
