"""The layers after the cells: how point-cloud networks pool and classify, and graph networks.

Dimensions: B clouds or graphs, N nodes of all of them together, C channels, R nodes that are asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sgas.errors import ConfigError
from sgas_gcn.cells import RELU, STEM_MULTIPLE, Cell, LinearNorm
from sgas_gcn.config import GraphModelConfig, PointModelConfig
from sgas_gcn.constants import LEAKY_SLOPE
from sgas_gcn.features import Features, reduced_parts
from sgas_gcn.fused.layer import linear_norm
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.pooling import pool_graphs, pool_layer
from sgas_gcn.propagation import Propagation

HEAD_CHANNELS = (512, 256)
AUXILIARY_CHANNELS = 128


def build_heads(
    config: PointModelConfig, cells: Sequence[Cell], num_classes: int, per_point: bool = False
) -> tuple[LinearNorm, LinearNorm, LinearNorm, nn.Sequential]:
    """The layers after the cells: fusion of stem and cells, then three layers of classifier.

    With `per_point` the first of these reads stem and cells beside what is pooled of them.
    """
    fused = STEM_MULTIPLE * config.channels + sum(cell.out_channels for cell in cells)
    return (
        LinearNorm(fused, config.emb_dims, LEAKY_SLOPE),
        LinearNorm(
            2 * config.emb_dims + per_point * fused, HEAD_CHANNELS[0], LEAKY_SLOPE, bias=True
        ),
        LinearNorm(*HEAD_CHANNELS, LEAKY_SLOPE, bias=True),
        nn.Sequential(OrderedDict(lin=nn.Linear(HEAD_CHANNELS[1], num_classes))),
    )


def classify(
    outputs: Sequence[Features],
    fusion: nn.Module,
    heads: Sequence[nn.Module],
    num_clouds: int,
    dropout: nn.Module,
    per_point: bool = False,
) -> Tensor:
    """Logits `[B, num_classes]` from the outputs of stem and cells, dropout between the heads.

    With `per_point` `[N, num_classes]`: a point is told by its own outputs and its cloud, as in
    Wang et al., "Dynamic Graph CNN for Learning on Point Clouds", ACM TOG 2019, section 4.2.
    """
    first, *others, last = heads
    x = pool_layer(fusion, outputs, num_clouds, LEAKY_SLOPE)
    if per_point:
        num_points = len(cast("Tensor", outputs[-1])) // num_clouds  # only the stem's is affine
        clouds = x.repeat_interleave(num_points, dim=0)
        own = cast("LinearNorm", first)
        parts, weight = reduced_parts([clouds, *outputs], own.lin.weight)
        x = linear_norm(torch.cat(parts, dim=1), weight, own.lin.bias, own.norm, LEAKY_SLOPE)
    else:
        x = first(x)
    for head in others:
        x = head(dropout(x))
    return last(dropout(x))


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


class GraphClassifier(nn.Module):
    """Logits `[B, num_outputs]` of graphs from the outputs of stem and cells, `[N, in_channels]`.

    Mean, largest value and sum over the nodes of each graph, batch norm, a linear layer of `width`
    channels, ReLU, dropout and a linear layer. The norm is before the first layer: sums are larger
    than means by the size of a graph.
    """

    def __init__(self, in_channels: int, width: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.in_channels, self.width, self.num_outputs = in_channels, width, num_outputs
        self.norm = nn.BatchNorm1d(3 * in_channels)
        self.hidden, self.lin = nn.Linear(3 * in_channels, width), nn.Linear(width, num_outputs)
        self.dropout, self.drop = dropout, nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """The logits of all graphs."""
        return self.logits(pool_graphs(x, batch.graph_of_node, len(batch.sizes)))

    def plain(self, x: Tensor, graph_of_node: Tensor) -> Tensor:
        """The logits of all graphs, whose nodes `graph_of_node` `[N]` tells apart."""
        return self.logits(pool_graphs(x, graph_of_node, graph_of_node.bincount().shape[0]))

    def logits(self, pooled: Tensor) -> Tensor:
        """Logits `[B, num_outputs]` of what was pooled `[B, 3 * in_channels]`."""
        return self.lin(self.drop(torch.relu(self.hidden(self.norm(pooled)))))


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


def build_classifier(
    config: GraphModelConfig, cells: Sequence[Cell], num_outputs: int, per_graph: bool
) -> NodeClassifier | GraphClassifier:
    """The layers after the cells of a network that is asked for nodes, or for graphs."""
    if not per_graph:
        return NodeClassifier(cells[-1].out_channels, num_outputs, config.dropout)
    width = cells[0].in_channels[0] + sum(cell.out_channels for cell in cells)
    return GraphClassifier(width, STEM_MULTIPLE * config.channels, num_outputs, config.dropout)


def build_propagation(config: GraphModelConfig, per_graph: bool) -> Propagation | None:
    """What follows the classifier; None where logits stay as they are.

    ConfigError where graphs are asked for, whose logits have no neighbours.
    """
    if per_graph and config.propagation:
        raise ConfigError(
            f"propagation is {config.propagation}, but the labels are of whole graphs, which have "
            "no neighbours: give 0"
        )
    return Propagation(config.propagation, config.teleport) if config.propagation else None


def answer(
    classifier: NodeClassifier | GraphClassifier,
    propagation: Propagation | None,
    outputs: Sequence[Features],
    batch: GraphBatch,
) -> Tensor:
    """Logits from the outputs of stem and cells: of nodes from the last, of graphs from all."""
    states = cast("Sequence[Tensor]", outputs)
    x = states[-1] if isinstance(classifier, NodeClassifier) else torch.cat([*states], dim=1)
    if propagation is not None and isinstance(classifier, NodeClassifier):
        return batch.answers(propagation(classifier.plain(x), batch.neighbors))
    logits: Tensor = classifier(x, batch)
    return logits
