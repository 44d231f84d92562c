"""The three families of the benchmark: their sizes, and how a contest of each is built.

Sizes are those of the paper's searches (Li et al., CVPR 2020), but for the batch: at the paper's,
a step of the plain form takes up to forty seconds and 8 GiB. Dimensions: B samples, P points,
N nodes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from contest import CPU, Batch, Contest, OurSearch, OurTraining, Plain
from plain import graph, image, point
from plain.common import CellNetwork, Plan, derived_plan, search_plan

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.labels import ManyLabels
from sgas.running.capture import Recorder
from sgas_cnn.config import IMAGE_SPACE, ImageModelConfig
from sgas_cnn.published import load_published as published_image
from sgas_cnn.task import ImageModels
from sgas_gcn.config import GRAPH_SPACE, POINT_SPACE, GraphModelConfig, PointModelConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import GraphModels
from sgas_gcn.published import load_published as published_graph
from sgas_gcn.task import PointModels

Size = Mapping[str, Any]
NUM_BATCHES = 2  # one for the alphas, one for the weights


class LabelledGraphs(GraphModels):
    """Graph models for nodes with any number of labels, as PPI's."""

    labels = ManyLabels()


def point_batch(size: Size) -> Batch:
    """Clouds on a sphere with some noise, `[B, 3, P]` and `[B, P, 3]`."""
    points = F.normalize(torch.randn(size["batch"], size["points"], 3), dim=-1)
    points = points + 0.05 * torch.randn_like(points)
    targets = torch.randint(size["classes"], (size["batch"],))
    return Batch((points.transpose(1, 2).contiguous(),), points, targets)


def point_models(size: Size) -> PointModels:
    """Our models."""
    config = PointModelConfig(
        num_points=size["points"],
        k=size["k"],
        channels=size["channels"],
        num_cells=size["cells"],
        emb_dims=size["emb_dims"],
        dropout=size["dropout"],
    )
    return PointModels(config, 3, size["classes"])


def plain_point(plans: Mapping[str, Plan], size: Size, search: bool) -> CellNetwork:
    """The plain network."""
    return point.PlainPoint(
        plans["normal"],
        search=search,
        num_classes=size["classes"],
        channels=size["channels"],
        num_cells=size["cells"],
        k=size["k"],
        emb_dims=size["emb_dims"],
        dropout=size["dropout"],
    )


def graph_batch(size: Size) -> Batch:
    """Random undirected graphs side by side, without self-loops: features `[N, 50]`, edges."""
    nodes, parts, graphs = size["nodes"], [], []
    for number in range(size["batch"]):
        pairs = torch.randint(nodes, (2, nodes * size["degree"] // 2))
        low, high = pairs.min(0).values, pairs.max(0).values
        low, high = torch.unique(torch.stack([low, high])[:, low < high], dim=1)
        edges = torch.stack([torch.cat([low, high]), torch.cat([high, low])])
        x = torch.randn(nodes, size["features"])
        graphs.append(GraphBatch.of_graph(x, edges))
        parts.append(edges + number * nodes)
    joined = GraphBatch.join(graphs)
    targets = torch.rand(len(joined.x), size["outputs"]) < 0.3
    return Batch((joined.x, torch.cat(parts, dim=1)), joined, targets)


def graph_models(size: Size) -> GraphModels:
    """Our models."""
    config = GraphModelConfig(channels=size["channels"], num_cells=size["cells"])
    return LabelledGraphs(config, size["features"], size["outputs"])


def plain_graph(plans: Mapping[str, Plan], size: Size, search: bool) -> CellNetwork:
    """The plain network."""
    return graph.PlainGraph(
        plans["normal"],
        search=search,
        in_channels=size["features"],
        num_outputs=size["outputs"],
        channels=size["channels"],
        num_cells=size["cells"],
    )


def image_batch(size: Size) -> Batch:
    """Images of noise `[B, 3, side, side]`, for ours in the layout that its loader gives."""
    images = torch.randn(size["batch"], 3, size["side"], size["side"])
    targets = torch.randint(size["classes"], (size["batch"],))
    return Batch((images,), images.contiguous(memory_format=torch.channels_last), targets)


def image_models(size: Size) -> ImageModels:
    """Our models."""
    config = ImageModelConfig(channels=size["channels"], num_cells=size["cells"])
    return ImageModels(config, 3, size["classes"], size["side"])


def plain_image(plans: Mapping[str, Plan], size: Size, search: bool) -> CellNetwork:
    """The plain network."""
    return image.PlainImage(
        plans,
        search=search,
        num_classes=size["classes"],
        channels=size["channels"],
        num_cells=size["cells"],
    )


def class_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of one class a sample."""
    return F.cross_entropy(logits, targets)


def label_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of bool targets, over all labels."""
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


@dataclass(frozen=True)
class FamilySettings:
    """A family: its sizes, and what builds its networks and batches.

    `paper` is the paper's search setting, `measured` what differs from it here, `small` what does
    for scaling curves and quick runs, `scaling` the values that each size takes in turn; `derived`
    differs from these for networks of the published `genotype`. `num_samples` are those for
    training of the data set that the sizes are of, ModelNet10, PPI or CIFAR-10; the weights train
    on `half`, the alphas on as many, and a tenth of the first and the last validates.
    """

    package: str
    space: SearchSpace
    num_samples: int
    half: int
    num_steps: int
    learning_rate: float
    paper: Size
    measured: Size
    small: Size
    scaling: Mapping[str, tuple[int, ...]]
    genotype: str
    derived: Size
    batch: Callable[[Size], Batch]
    models: Callable[[Size], Any]
    plain: Callable[[Mapping[str, Plan], Size, bool], CellNetwork]
    published: Callable[[str], Genotype]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def search_contest(self, size: Size, device: torch.device = CPU) -> Contest:
        """Supernets of a size on a device, nothing decided, with equal weights."""
        plan = search_plan(self.num_steps, self.space.operations)
        plans = dict.fromkeys(self.space.cell_kinds, plan)
        ours = OurSearch(self.models(size), self.learning_rate, device)
        return self._contest(ours, plans, size, device)

    def derived_contest(
        self,
        size: Size,
        device: torch.device = CPU,
        precision: str = "float32",
        recorder: Recorder | None = None,
    ) -> Contest:
        """Networks of the published genotype, with equal weights; ours in a precision."""
        genotype = self.published(self.genotype)
        plans = {
            kind: derived_plan([(edge.op, edge.source) for edge in gene.edges], gene.concat)
            for kind, gene in genotype.cells.items()
        }
        models = self.models(size)
        ours = OurTraining(models, genotype, self.learning_rate, device, precision, recorder)
        return self._contest(ours, plans, size, device)

    def _contest(
        self, ours: Any, plans: Mapping[str, Plan], size: Size, device: torch.device = CPU
    ) -> Contest:
        network = self.plain(plans, size, isinstance(ours, OurSearch)).to(device)
        batches = [self.batch(size).to(device) for _ in range(NUM_BATCHES)]
        plain = Plain(network, self.loss, self.learning_rate)
        contest = Contest(plain, ours, batches, self.space)
        contest.equalise()
        return contest


FAMILIES = {
    "point": FamilySettings(
        package="sgas_gcn",
        space=POINT_SPACE,
        num_samples=3991,
        half=1796,
        num_steps=3,
        learning_rate=0.005,
        paper={
            "batch": 28,
            "points": 1024,
            "k": 9,
            "channels": 32,
            "cells": 2,
            "emb_dims": 1024,
            "classes": 10,
            "dropout": 0.5,
        },
        measured={"batch": 4},
        small={"batch": 2},
        scaling={
            "points": (256, 512, 1024),
            "channels": (16, 32, 64),
            "k": (5, 9, 17),
            "batch": (2, 4, 8),
        },
        genotype="cri2-modelnet-best",
        derived={"channels": 128, "cells": 3, "classes": 40},
        batch=point_batch,
        models=point_models,
        plain=plain_point,
        published=published_graph,
        loss=class_loss,
    ),
    "graph": FamilySettings(
        package="sgas_gcn",
        space=GRAPH_SPACE,
        num_samples=20,
        half=10,
        num_steps=3,
        learning_rate=0.005,
        paper={
            "batch": 6,
            "nodes": 2245,
            "degree": 28,
            "features": 50,
            "outputs": 121,
            "channels": 32,
            "cells": 1,
        },
        measured={"batch": 2},
        small={"batch": 1},
        scaling={"degree": (7, 14, 28, 56), "channels": (16, 32, 64), "batch": (1, 2)},
        genotype="cri2-ppi-best",
        derived={"channels": 64, "cells": 5},
        batch=graph_batch,
        models=graph_models,
        plain=plain_graph,
        published=published_graph,
        loss=label_loss,
    ),
    "image": FamilySettings(
        package="sgas_cnn",
        space=IMAGE_SPACE,
        num_samples=50_000,
        half=22_500,
        num_steps=4,
        learning_rate=0.025,
        paper={"batch": 64, "side": 32, "channels": 16, "cells": 8, "classes": 10},
        measured={"batch": 8},
        small={"batch": 4},
        scaling={"channels": (8, 16), "batch": (2, 4, 8)},
        genotype="cri2-cifar-best",
        derived={"channels": 36, "cells": 20},
        batch=image_batch,
        models=image_models,
        plain=plain_image,
        published=published_image,
        loss=class_loss,
    ),
}
