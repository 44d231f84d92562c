"""The networks derived from a genotype.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 4.2.
Dimensions: B clouds, P points of each, N nodes of graphs, R nodes that are asked, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sgas.cells.edges import derived_layout
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.errors import InputError
from sgas.native.precision import runs_plain
from sgas_gcn.cells import (
    DropPath,
    Operations,
    build_cells,
    build_stem,
    drop_clouds,
    drop_graphs,
    forward_cells,
    keep_statistics,
)
from sgas_gcn.config import GRAPH_SPACE, POINT_SPACE, GraphModelConfig, PointModelConfig
from sgas_gcn.graph_batch import GraphBatch, edges_of
from sgas_gcn.heads import (
    AuxiliaryHead,
    NodeAuxiliaryHead,
    answer,
    build_classifier,
    build_heads,
    build_propagation,
    classify,
)
from sgas_gcn.neighbors import CellNeighbors
from sgas_gcn.ops.graph import GRAPH_OPERATIONS
from sgas_gcn.ops.plain import PlainNeighbors, given_edges, nearest_points
from sgas_gcn.ops.point import POINT_OPERATIONS
from sgas_gcn.pooling import pool_clouds
from sgas_gcn.standardize import RowNormalize, Standardize

if TYPE_CHECKING:
    from typing_extensions import Self

KIND = "normal"


class PointNetwork(nn.Module):
    """Logits `[B, num_classes]` for clouds `[B, P, in_channels]`, by the cells of a genotype.

    With `per_point` they are `[B·P, num_classes]`, those of the points of the first cloud first.

    The number of steps and the output of a cell are the genotype's; `config.num_steps` is not read.
    `drop_path` is the probability of dropping an edge for a cloud and may change between epochs.
    GenotypeError where the genotype is not one of point clouds.
    """

    def __init__(
        self,
        genotype: Genotype,
        config: PointModelConfig,
        in_channels: int,
        num_classes: int,
        drop_path: float = 0.0,
        auxiliary: bool = False,
        space: SearchSpace = POINT_SPACE,
        operations: Operations = POINT_OPERATIONS,
        per_point: bool = False,
    ) -> None:
        super().__init__()
        self.genotype = genotype.validate(space)
        self.config = config
        self.drop_path = drop_path
        self.stem = build_stem(config, in_channels)
        layout = derived_layout(space, genotype.cells[KIND])
        self.cells = build_cells(operations, config, layout, self.stem, in_channels)
        self.per_point = per_point
        heads = build_heads(config, self.cells, num_classes, per_point)
        self.fusion, self.head0, self.head1, self.head2 = heads
        self.dropout = nn.Dropout(config.dropout)
        self.auxiliary_cell = 2 * config.num_cells // 3
        self.auxiliary = None
        if auxiliary:
            out_channels = self.cells[self.auxiliary_cell].out_channels
            self.auxiliary = AuxiliaryHead(out_channels, num_classes)

    def forward(
        self, points: Tensor, neighbors: Sequence[Tensor] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits for clouds `[B, P, in_channels]`.

        In training mode with an auxiliary head, the pair of the logits and the auxiliary logits.
        `neighbors`, int `[B, P, k]` for each cell with the point itself first, replaces the
        searches among features. ConfigError where the clouds have too few points for the last cell.
        """
        if neighbors is None and runs_plain(self, points):
            return self.plain(points)
        config, num_clouds = self.config, points.shape[0]
        inputs = points.flatten(0, 1)
        search = CellNeighbors(
            points.shape,
            config.k,
            config.num_cells,
            neighbors,
            partial(self.stem.coordinates, inputs),
        )
        drop_path: DropPath | None = None
        if self.training and self.drop_path > 0:
            drop_path = partial(drop_clouds, probability=self.drop_path, num_clouds=num_clouds)
        outputs = forward_cells(
            self.cells,
            self.stem.affine(inputs),
            search.of_cell,
            lambda cell, s0, s1, graph: cell(s0, s1, graph, drop_path=drop_path),
        )
        heads = (self.head0, self.head1, self.head2)
        logits = classify(outputs, self.fusion, heads, num_clouds, self.dropout, self.per_point)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, self.auxiliary(outputs[self.auxiliary_cell + 1], num_clouds)

    def plain(self, points: Tensor) -> Tensor:
        """Logits for clouds `[B, P, in_channels]`, in plain torch."""
        num_clouds = points.shape[0]
        s0 = s1 = self.stem.plain(points.flatten(0, 1))
        outputs = [s0]
        for number, cell in enumerate(self.cells):
            clouds = s0.unflatten(0, (num_clouds, -1))
            neighbors = nearest_points(clouds, self.config.k, dilation=number + 1)
            s0, s1 = s1, cell.plain(s0, s1, neighbors)
            outputs.append(s1)
        states = torch.cat(outputs, dim=1)
        x = pool_clouds(self.fusion.plain(states), num_clouds)
        if self.per_point:
            each = x.unsqueeze(1).expand(-1, points.shape[1], -1).flatten(0, 1)
            x = torch.cat([each, states], dim=1)
        x = self.dropout(self.head0.plain(x))
        x = self.dropout(self.head1.plain(x))
        return self.head2(x)


class GraphNetwork(nn.Module):
    """Logits `[R, num_outputs]` of the asked nodes of graphs, or graphs, by a genotype's cells.

    The number of steps and the output of a cell are the genotype's; `config.num_steps` is not read.
    `drop_path` is the probability of dropping an edge of the cell for a graph, or for a node where
    `config.drop_path_by` says so, and may change between epochs. Of `edge_channels` attributes of
    edges, `operations` has to read as many.
    GenotypeError where the genotype is not one of graphs.
    """

    def __init__(
        self,
        genotype: Genotype,
        config: GraphModelConfig,
        in_channels: int,
        num_outputs: int,
        drop_path: float = 0.0,
        auxiliary: bool = False,
        space: SearchSpace = GRAPH_SPACE,
        operations: Operations = GRAPH_OPERATIONS,
        per_graph: bool = False,
        edge_channels: int = 0,
    ) -> None:
        super().__init__()
        self.genotype = genotype.validate(space)
        self.config, self.in_channels, self.edge_channels = config, in_channels, edge_channels
        self.drop_path = drop_path
        self.stem = build_stem(config, in_channels)
        layout = derived_layout(space, genotype.cells[KIND])
        self.cells = build_cells(operations, config, layout, self.stem, in_channels, edge_channels)
        self.standardize = Standardize(in_channels) if config.standardize else None
        self.row_normalize = RowNormalize() if config.row_normalize else None
        self.classifier: Any = build_classifier(config, self.cells, num_outputs, per_graph)
        self.per_graph = per_graph
        self.propagation = build_propagation(config, per_graph)
        self.auxiliary_cell = 2 * config.num_cells // 3
        self.auxiliary = None
        if auxiliary:
            out_channels = self.cells[self.auxiliary_cell].out_channels
            self.auxiliary = NodeAuxiliaryHead(out_channels, num_outputs)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for norms that have no statistics to take, or evaluation mode."""
        super().train(mode)
        keep_statistics(self.config, self.stem, *self.cells)
        return self

    def forward(
        self,
        batch: GraphBatch | Tensor,
        edge_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
        graph_of_node: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits `[R, num_outputs]` of the asked nodes, or of all graphs.

        In training mode with an auxiliary head, the pair of the logits and the auxiliary logits.
        In place of a batch, tensors as `plain` and `plain_of_graphs` take them run by these.
        """
        if isinstance(batch, Tensor):
            given = edge_weight, edge_attr, graph_of_node
            return self._of_tensors(batch, edges_of(edge_index), *given)
        if torch.compiler.is_compiling() and not self.training:
            edges, graphs = batch.neighbors.edges, batch.graph_of_node if self.per_graph else None
            given = edges.weights, edges.attributes, graphs
            logits = self._of_tensors(batch.x, torch.stack(edges.ends), *given)
            return logits if self.per_graph else batch.answers(logits)
        drop_path: DropPath | None = None
        if self.training and self.drop_path > 0 and self.config.drop_path_by == "node":
            drop_path = partial(drop_clouds, probability=self.drop_path, num_clouds=len(batch.x))
        elif self.training and self.drop_path > 0:
            drop_path = partial(
                drop_graphs,
                probability=self.drop_path,
                graph_of_node=batch.graph_of_node,
                num_graphs=len(batch.sizes),
            )
        x = batch.x if self.standardize is None else self.standardize(batch.x)
        x = x if self.row_normalize is None else self.row_normalize(x)
        outputs = forward_cells(
            self.cells,
            x if self.stem is None else self.stem(x),
            lambda number, s0: batch.neighbors,
            lambda cell, s0, s1, graph: cell(s0, s1, graph, drop_path=drop_path),
            last=not (self.training or self.per_graph),
        )
        logits = answer(self.classifier, self.propagation, outputs, batch)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, self.auxiliary(outputs[self.auxiliary_cell + 1], batch)

    def _of_tensors(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None,
        edge_attr: Tensor | None,
        graph_of_node: Tensor | None,
    ) -> Tensor:
        if edge_attr is not None and edge_attr.shape != (edge_index.shape[1], self.edge_channels):
            raise InputError(
                f"edge_attr has shape {list(edge_attr.shape)} for {edge_index.shape[1]} edges; the "
                f"network takes [edges, {self.edge_channels}]"
            )
        if not self.per_graph:
            return self.plain(x, edge_index, edge_weight, edge_attr)
        if graph_of_node is None:
            graph_of_node = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return self.plain_of_graphs(x, edge_index, graph_of_node, edge_weight, edge_attr)

    def plain(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
    ) -> Tensor:
        """Logits `[N, num_outputs]` of all nodes `[N, in_channels]`, in plain torch.

        Edges are int64 `[2, E]`, sources above targets; an undirected one is there both ways. Their
        weights are float32 `[E]`, none below 0 (None: all 1), their attributes `[E, A]`.
        """
        neighbors = given_edges(edge_index, x.shape[0], edge_weight, edge_attr)
        logits = self.classifier.plain(self.states(x, neighbors)[-1])
        return logits if self.propagation is None else self.propagation(logits, neighbors)

    def plain_of_graphs(
        self,
        x: Tensor,
        edge_index: Tensor,
        graph_of_node: Tensor,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, num_outputs]` of graphs of nodes `[N, in_channels]`, in plain torch.

        Edges, weights and attributes are as of `plain`. `graph_of_node` int64 `[N]` is the number
        of each node's graph.
        """
        states = self.states(x, given_edges(edge_index, x.shape[0], edge_weight, edge_attr))
        return self.classifier.plain(torch.cat(states, dim=1), graph_of_node)

    def states(self, x: Tensor, neighbors: PlainNeighbors) -> list[Tensor]:
        """What the first cell reads of `x`, and the outputs of all cells, in plain torch."""
        if self.standardize is not None:
            x = self.standardize(x)
        if self.row_normalize is not None:
            x = self.row_normalize.plain(x)
        states = [x if self.stem is None else self.stem.plain(x)]
        s0 = s1 = states[0]
        for cell in self.cells:
            s0, s1 = s1, cell.plain(s0, s1, neighbors)
            states.append(s1)
        return states
