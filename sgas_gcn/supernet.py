"""The supernets: every edge holds all candidates until it is decided.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 4.2.
Dimensions: B clouds, P points of each, N nodes of graphs, C channels, E edges of a cell,
O candidate operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sgas.cells.alphas import draw_alphas, weights_of
from sgas.cells.decisions import CellDecisions, Status
from sgas.cells.edges import kept_operations, searched_layout
from sgas.cells.space import SearchSpace
from sgas_gcn.cells import (
    ModelConfig,
    Operations,
    Stem,
    build_cells,
    build_stem,
    forward_cells,
    keep_statistics,
)
from sgas_gcn.config import GRAPH_SPACE, POINT_SPACE, GraphModelConfig, PointModelConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.heads import answer, build_classifier, build_heads, build_propagation, classify
from sgas_gcn.neighbors import CellNeighbors
from sgas_gcn.network import KIND
from sgas_gcn.ops.graph import GRAPH_OPERATIONS
from sgas_gcn.ops.point import POINT_OPERATIONS
from sgas_gcn.standardize import RowNormalize, Standardize

if TYPE_CHECKING:
    from typing_extensions import Self


class Supernet(nn.Module):
    """What the supernets of all spaces have: stem, cells, alphas, and how decisions change them.

    `alphas["normal"]` is `[E, O]`. All cells share the alphas, and each has weights of its own for
    every edge and operation. A space adds the layers after the cells, and its forward pass.
    """

    undecided: Tensor

    def __init__(
        self,
        space: SearchSpace,
        operations: Operations,
        config: ModelConfig,
        in_channels: int,
        edge_channels: int = 0,
    ) -> None:
        super().__init__()
        self._space, self._topology = space, space.topology(config.num_steps)
        self.stem = build_stem(config, in_channels)
        layout = searched_layout(space, self._topology)
        self.cells = build_cells(operations, config, layout, self.stem, in_channels, edge_channels)

    def open_all_edges(self) -> None:
        """Draws the alphas, with nothing decided: the last step of building a supernet."""
        self.alphas = draw_alphas(self._space, self._topology)
        self._running = self._decisions = CellDecisions.none_yet(self._topology)
        undecided = torch.ones(self._topology.num_edges, 1, dtype=torch.bool)
        self.register_buffer("undecided", undecided, persistent=False)

    @property
    def decisions(self) -> dict[str, CellDecisions]:
        """What is decided, by kind of cell."""
        return {KIND: self._decisions}

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas; after a decision, those that are left."""
        return weights_of(self)

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Free the operations that `decisions` gives up; those that stay keep their parameters.

        Takes any later state of the decisions, also one that is in force already, and is how a
        fresh supernet gets the shape of a checkpoint. What is gone cannot come back.
        """
        self._running = self._decisions = decisions[KIND]
        kept = kept_operations(self._space, self._decisions)
        for cell in self.cells:
            cell.restrict(kept)
        is_open = [[state.status is Status.UNDECIDED] for state in self._decisions.states]
        self.undecided = torch.tensor(is_open, device=self.undecided.device)

    def select(self, cells: Mapping[str, CellDecisions] | None) -> None:
        """Run what complete `cells` keep and nothing else; None: all that is held."""
        self._running = self._decisions if cells is None else cells[KIND]
        kept = kept_operations(self._space, self._running)
        for cell in self.cells:
            cell.select(kept)

    def mixture_weights(self) -> Tensor | None:
        """Softmax of the alphas `[E, O]`, ones for decided edges; None where no edge is open."""
        if self._running.complete:
            return None
        return torch.where(self.undecided, torch.softmax(self.alphas[KIND], dim=-1), 1.0)


class PointSupernet(Supernet):
    """Logits `[B, num_classes]` for clouds `[B, P, in_channels]`, with `per_point` `[B·P, …]`."""

    stem: Stem

    def __init__(
        self,
        config: PointModelConfig,
        in_channels: int,
        num_classes: int,
        space: SearchSpace = POINT_SPACE,
        operations: Operations = POINT_OPERATIONS,
        per_point: bool = False,
    ) -> None:
        super().__init__(space, operations, config, in_channels)
        self.config, self.per_point = config, per_point
        heads = build_heads(config, self.cells, num_classes, per_point)
        self.fusion, self.head0, self.head1, self.head2 = heads
        self.dropout = nn.Dropout(config.dropout)
        self.open_all_edges()

    def forward(self, points: Tensor, neighbors: Sequence[Tensor] | None = None) -> Tensor:
        """Logits for clouds `[B, P, in_channels]`.

        `neighbors`, int `[B, P, k]` for each cell with the point itself first, replaces the
        searches among features. ConfigError where the clouds have too few points for the last cell.
        """
        config, num_clouds = self.config, points.shape[0]
        inputs = points.flatten(0, 1)
        search = CellNeighbors(
            points.shape,
            config.k,
            config.num_cells,
            neighbors,
            partial(self.stem.coordinates, inputs),
        )
        weights = self.mixture_weights()
        outputs = forward_cells(
            self.cells,
            self.stem.affine(inputs),
            search.of_cell,
            lambda cell, s0, s1, graph: cell(s0, s1, graph, weights),
        )
        heads = (self.head0, self.head1, self.head2)
        return classify(outputs, self.fusion, heads, num_clouds, self.dropout, self.per_point)


class GraphSupernet(Supernet):
    """Logits `[R, num_outputs]` of the asked nodes of graphs, or graphs, `[N, in_channels]`."""

    def __init__(
        self,
        config: GraphModelConfig,
        in_channels: int,
        num_outputs: int,
        space: SearchSpace = GRAPH_SPACE,
        operations: Operations = GRAPH_OPERATIONS,
        per_graph: bool = False,
        edge_channels: int = 0,
    ) -> None:
        super().__init__(space, operations, config, in_channels, edge_channels)
        self.config = config
        self.standardize = Standardize(in_channels) if config.standardize else None
        self.row_normalize = RowNormalize() if config.row_normalize else None
        self.classifier = build_classifier(config, self.cells, num_outputs, per_graph)
        self.propagation = build_propagation(config, per_graph)
        self.open_all_edges()
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for norms that have no statistics to take, or evaluation mode."""
        super().train(mode)
        keep_statistics(self.config, self.stem, *self.cells)
        return self

    def forward(self, batch: GraphBatch) -> Tensor:
        """Logits `[R, num_outputs]` of the asked nodes, or of all graphs."""
        x = batch.x if self.standardize is None else self.standardize(batch.x)
        x = x if self.row_normalize is None else self.row_normalize(x)
        weights = self.mixture_weights()
        outputs = forward_cells(
            self.cells,
            x if self.stem is None else self.stem(x),
            lambda number, s0: batch.neighbors,
            lambda cell, s0, s1, graph: cell(s0, s1, graph, weights),
        )
        return answer(self.classifier, self.propagation, outputs, batch)
