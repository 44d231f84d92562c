"""The network derived from a genotype, for point clouds.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, section 4.2.
Dimensions: B clouds, P points of each, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sgas.genotype import Genotype
from sgas_gcn.cells import (
    CellEdge,
    LinearNorm,
    build_cells,
    build_heads,
    build_stem,
    classify,
    forward_cells,
    pool_clouds,
)
from sgas_gcn.config import POINT_SPACE, PointModelConfig
from sgas_gcn.neighbors import CellNeighbors

AUXILIARY_CHANNELS = 128


class AuxiliaryHead(nn.Module):
    """Logits `[B, num_classes]` from a cell's output `[N, in_channels]`, for training alone.

    Linear, ReLU, batch norm, pooling and a linear layer. Ours: the published auxiliary head puts a
    norm of 768 channels after a layer of 128 and cannot run.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pre = LinearNorm(in_channels, AUXILIARY_CHANNELS, F.relu_)
        self.lin = nn.Linear(2 * AUXILIARY_CHANNELS, num_classes)

    def forward(self, x: Tensor, num_clouds: int) -> Tensor:
        """The logits."""
        return self.lin(pool_clouds(self.pre(x), num_clouds))


class PointNetwork(nn.Module):
    """Logits `[B, num_classes]` for clouds `[B, P, in_channels]`, by the cells of a genotype.

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
    ) -> None:
        super().__init__()
        self.genotype = genotype.validate(POINT_SPACE)
        self.config = config
        self.drop_path = drop_path
        gene = genotype.cells["normal"]
        steps = gene.edges_by_step(POINT_SPACE)
        edges = [
            CellEdge(edge.source, step, (edge.op,))
            for step, genes in enumerate(steps)
            for edge in genes
        ]
        self.stem = build_stem(config, in_channels)
        self.cells = build_cells(config, edges, len(steps), gene.concat)
        heads = build_heads(config, self.cells, num_classes)
        self.fusion, self.head0, self.head1, self.head2 = heads
        self.auxiliary_cell = 2 * config.num_cells // 3
        self.auxiliary = None
        if auxiliary:
            out_channels = self.cells[self.auxiliary_cell].out_channels
            self.auxiliary = AuxiliaryHead(out_channels, num_classes)

    def forward(
        self, points: Tensor, neighbors: Sequence[Tensor] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits `[B, num_classes]` for clouds `[B, P, in_channels]`.

        In training mode with an auxiliary head, the pair of the logits and the auxiliary logits.
        `neighbors`, int `[B, P, k]` for each cell with the point itself first, replaces the
        searches among features. ConfigError where the clouds have too few points for the last cell.
        """
        config, num_clouds = self.config, points.shape[0]
        search = CellNeighbors(points.shape, config.k, config.num_cells, neighbors)
        outputs = forward_cells(
            self.cells,
            self.stem(points.flatten(0, 1)),
            search,
            lambda cell, s0, s1, graph: cell(
                s0, s1, graph, drop_path=self.drop_path, num_clouds=num_clouds
            ),
        )
        heads = (self.head0, self.head1, self.head2)
        logits = classify(outputs, self.fusion, heads, num_clouds, config.dropout)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, self.auxiliary(outputs[self.auxiliary_cell + 1], num_clouds)
