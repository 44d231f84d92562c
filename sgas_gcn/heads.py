"""The layers after the cells: how point-cloud networks pool and classify, and graph networks.

Dimensions: B clouds, N nodes of all clouds or graphs together, C channels, R nodes that are asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sgas_gcn.cells import RELU, STEM_MULTIPLE, Cell, LinearNorm
from sgas_gcn.config import PointModelConfig
from sgas_gcn.constants import LEAKY_SLOPE
from sgas_gcn.features import Features
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.pooling import pool_layer

HEAD_CHANNELS = (512, 256)
AUXILIARY_CHANNELS = 128


def build_heads(
    config: PointModelConfig, cells: Sequence[Cell], num_classes: int
) -> tuple[LinearNorm, LinearNorm, LinearNorm, nn.Sequential]:
    """The layers after the cells: fusion of stem and cells, then three layers of classifier."""
    fused = STEM_MULTIPLE * config.channels + sum(cell.out_channels for cell in cells)
    return (
        LinearNorm(fused, config.emb_dims, LEAKY_SLOPE),
        LinearNorm(2 * config.emb_dims, HEAD_CHANNELS[0], LEAKY_SLOPE, bias=True),
        LinearNorm(*HEAD_CHANNELS, LEAKY_SLOPE, bias=True),
        nn.Sequential(OrderedDict(lin=nn.Linear(HEAD_CHANNELS[1], num_classes))),
    )


def classify(
    outputs: Sequence[Features],
    fusion: nn.Module,
    heads: Sequence[nn.Module],
    num_clouds: int,
    dropout: nn.Module,
) -> Tensor:
    """Logits `[B, num_classes]` from the outputs of stem and cells, dropout between the heads."""
    x = pool_layer(fusion, outputs, num_clouds, LEAKY_SLOPE)
    for head in heads[:-1]:
        x = dropout(head(x))
    return heads[-1](x)


class AuxiliaryHead(nn.Module):
    """Logits `[B, num_classes]` from a cell's output `[N, in_channels]`, for training alone.

    Linear, ReLU, batch norm, pooling and a linear layer. Ours: the published auxiliary head puts a
    norm of 768 channels after a layer of 128 and cannot run.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pre = LinearNorm(in_channels, AUXILIARY_CHANNELS, RELU)
        self.lin = nn.Linear(2 * AUXILIARY_CHANNELS, num_classes)

    def forward(self, x: Features, num_clouds: int) -> Tensor:
        """The logits."""
        return self.lin(pool_layer(self.pre, [x], num_clouds, 0.0))


class NodeClassifier(nn.Module):
    """Logits `[R, num_outputs]` of nodes from a cell's output `[N, in_channels]`.

    The input of the linear layer is the mean over the channels of the node itself, then the
    channels: what the authors call global pooling does not mix nodes.
    """

    def __init__(self, in_channels: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.in_channels, self.num_outputs = in_channels, num_outputs
        self.lin = nn.Linear(1 + in_channels, num_outputs)
        self.dropout, self.drop = dropout, nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """The logits of the asked nodes."""
        return self.plain(batch.answers(x))

    def plain(self, x: Tensor) -> Tensor:
        """Logits `[R, num_outputs]` for nodes `[R, in_channels]`."""
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        return self.lin(self.drop(x))


class NodeAuxiliaryHead(nn.Module):
    """Logits `[R, num_outputs]` of nodes from an inner cell's output, for training alone.

    Linear, ReLU, batch norm and a linear layer.
    """

    def __init__(self, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.pre = LinearNorm(in_channels, AUXILIARY_CHANNELS, RELU)
        self.lin = nn.Linear(AUXILIARY_CHANNELS, num_outputs)

    def forward(self, x: Features, batch: GraphBatch) -> Tensor:
        """The logits of the asked nodes."""
        return self.lin(batch.answers(self.pre(x)))
