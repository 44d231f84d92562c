"""A found cell beside hand-made networks of its size, trained by the same script: clouds, images.

    python benchmarks/hand_made.py --space point|image --dataset FOLDER --genotype RUN --seeds 0-9

Every network has the same parts of the same data in the same batches, and the same settings, those
of `--preset` (`--epochs`: as many), through the training loop of the packages; the test split is
opened once, at the end. A hand-made network is as wide as it may be with at most the parameters of
ours. `--genotype` may be given several times, one found cell for each seed in turn: what a search
found with a seed then stands beside networks that are trained with it.

Sources: PointNet, Qi et al., CVPR 2017, without its transformations of the input; DGCNN, Wang et
al., ACM TOG 2019, with the neighbours of the preset; ResNet of 20 layers for CIFAR, He et al., CVPR
2016. Dimensions: B samples, C channels, P points.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from graph_baselines import parse_seeds
from graph_classification import paired
from plain.common import layers
from plain.point import gather, knn
from reporting import kept, report
from torch import Tensor, nn

from sgas.cells.genotype import Genotype
from sgas.config import RunConfig, TrainConfig
from sgas.config import make as make_config
from sgas.errors import InputError, unknown_name
from sgas.family import Family, Space
from sgas.protocols import TrainParts, cell_in_words
from sgas.running.genotype_files import load_genotype
from sgas.running.loop import Loop, measure
from sgas.running.machine import environment
from sgas.running.runs import Run
from sgas.running.settings import load_preset
from sgas.running.train import Training

DEVICE = torch.device("cpu")
OURS = "ours"
FAMILIES = {"point": "sgas_gcn", "image": "sgas_cnn"}
DROPOUT = 0.5  # of the layers behind the pooling of clouds, as both papers have it
SLOPE = 0.2  # of DGCNN's leaky ReLUs


class Pooled(nn.Module):
    """Logits of clouds by the largest value and the mean of their points' features `[B, C, P]`."""

    def __init__(self, channels: int, wide: int, num_classes: int) -> None:
        super().__init__()
        self.wide = layers(
            lin=nn.Conv1d(channels, wide, 1, bias=False), norm=nn.BatchNorm1d(wide), act=nn.ReLU()
        )
        self.head = layers(
            lin=nn.Linear(2 * wide, wide // 2, bias=False),
            norm=nn.BatchNorm1d(wide // 2),
            act=nn.ReLU(),
            drop=nn.Dropout(DROPOUT),
            logits=nn.Linear(wide // 2, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, L]`."""
        x = self.wide(x)
        logits: Tensor = self.head(torch.cat([x.amax(-1), x.mean(-1)], dim=1))
        return logits


class PointNet(nn.Module):
    """Layers of single points, then the pooling."""

    drop_path = 0.0  # the training loop sets it; nothing here drops paths

    def __init__(self, task: Any, width: int) -> None:
        super().__init__()
        sizes = [task.in_channels, width, width, 2 * width]
        self.points = nn.Sequential(
            *(
                layers(lin=nn.Conv1d(a, b, 1, bias=False), norm=nn.BatchNorm1d(b), act=nn.ReLU())
                for a, b in pairwise(sizes)
            )
        )
        self.pooled = Pooled(2 * width, 8 * width, task.num_classes)

    def forward(self, clouds: Tensor) -> Tensor:
        """Logits of clouds `[B, P, C]`."""
        logits: Tensor = self.pooled(self.points(clouds.transpose(1, 2)))
        return logits


class EdgeConv(nn.Module):
    """The largest of leaky ReLU(BN(W [x_i, x_j - x_i])) over neighbours in the space of x.

    W is applied to points: W [x_i, x_j - x_i] = U x_i + V x_j.
    """

    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.of_point = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.of_neighbor = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in_channels, P]` to `[B, out_channels, P]`."""
        near = gather(self.of_neighbor(x), knn(x, self.k, 1))
        edges = self.norm(near + self.of_point(x).unsqueeze(-1))
        return F.leaky_relu(edges, SLOPE).amax(-1)


class DGCNN(nn.Module):
    """Four dynamic edge convolutions, joined, then the pooling."""

    drop_path = 0.0  # the training loop sets it; nothing here drops paths

    def __init__(self, task: Any, width: int) -> None:
        super().__init__()
        sizes = [task.in_channels, width, width, 2 * width, 4 * width]
        k = task.model.k
        self.layers = nn.ModuleList(EdgeConv(a, b, k) for a, b in pairwise(sizes))
        self.pooled = Pooled(8 * width, 8 * width, task.num_classes)

    def forward(self, clouds: Tensor) -> Tensor:
        """Logits of clouds `[B, P, C]`."""
        x, states = clouds.transpose(1, 2), []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        logits: Tensor = self.pooled(torch.cat(states, dim=1))
        return logits


class Residual(nn.Module):
    """Two 3 × 3 convolutions and the way around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = layers(
            first=nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            first_norm=nn.BatchNorm2d(out_channels),
            act=nn.ReLU(),
            second=nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            second_norm=nn.BatchNorm2d(out_channels),
        )
        self.around: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.around = layers(
                lin=nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                norm=nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in_channels, H, W]` to `[B, out_channels, H / stride, W / stride]`."""
        return F.relu(self.body(x) + self.around(x))


class ResNet20(nn.Module):
    """Three stages of three blocks, of `width`, twice and four times as many channels."""

    drop_path = 0.0  # the training loop sets it; nothing here drops paths

    def __init__(self, task: Any, width: int) -> None:
        super().__init__()
        self.stem = layers(
            conv=nn.Conv2d(task.in_channels, width, 3, 1, 1, bias=False),
            norm=nn.BatchNorm2d(width),
            act=nn.ReLU(),
        )
        blocks, channels = [], width
        for stage in range(3):
            for block in range(3):
                stride = 2 if stage and not block else 1
                blocks.append(Residual(channels, width << stage, stride))
                channels = width << stage
        self.blocks, self.logits = nn.Sequential(*blocks), nn.Linear(channels, task.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images `[B, C, H, W]`."""
        logits: Tensor = self.logits(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


Builder = Callable[[Any, int], Any]  # of a task and a width
HAND_MADE: dict[str, dict[str, Builder]] = {
    "point": {"pointnet": PointNet, "dgcnn": DGCNN},
    "image": {"resnet20": ResNet20},
}


def num_parameters(network: Any) -> int:
    """Weights of a network."""
    return sum(weight.numel() for weight in network.parameters())


def widest(build: Builder, task: Any, parameters: int) -> int:
    """The largest width by which a network has at most so many parameters; InputError for none."""
    width = 0
    while num_parameters(build(task, width + 1)) <= parameters:
        width += 1
    if not width:
        raise InputError(f"no hand-made network is as small as {parameters:,} parameters")
    return width


def train_once(task: Any, genotype: Genotype, config: TrainConfig, seed: int) -> dict[str, Any]:
    """The test figure of the task's network after a training from scratch, its size, CPU seconds.

    Nothing but the last epoch is looked at, so that all training samples train.
    """
    began, parts = time.process_time(), TrainParts(task.training_part(DEVICE), {})
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.create(Path(folder) / "run", {"seed": seed}) as run,
    ):
        training = Training(task, genotype, config, parts=parts, seed=seed, device=DEVICE)
        Loop(training, run).execute()
    seconds = time.process_time() - began
    network, test = training.network, task.test_part(DEVICE)
    figures = measure(network, task.labels, test, config.batch_size, DEVICE)
    metric = task.labels.primary_metric
    size = num_parameters(network)
    return {"test": figures[metric], "parameters": size, "seconds": round(seconds, 1)}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All trainings, network by network, what is kept left out."""
    family: Family = import_module(f"{FAMILIES[options.space]}.family").FAMILY
    space, seeds = family.spaces[options.space], parse_seeds(options.seeds)
    values = load_preset(family, options.space, options.preset, "train")
    values |= {"auxiliary": False}  # the others have no such head
    values |= {} if options.epochs is None else {"epochs": options.epochs}
    cells = [load_genotype(family, given) for given in options.genotype]
    known = [OURS, *networks_of(options.space, options.networks)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
    for place, seed in enumerate(seeds):
        genotype = cells[place % len(cells)]
        for name in known:
            found[name].append(_kept_or_trained(options, space, values, genotype, name, seed))
    ours = [line["test"] for line in found[OURS]]
    return {
        "networks": {name: summary(lines) for name, lines in found.items()},
        "ours_less": {
            name: paired(ours, [line["test"] for line in found[name]])
            for name in known[1:]
            if len(seeds) > 1
        },
        "cells": [cell_in_words(cell.meta) for cell in cells],
        "settings": {"preset": options.preset, **values},
        "environment": environment(DEVICE),
    }


def _kept_or_trained(
    options: argparse.Namespace,
    space: Space,
    values: Mapping[str, Any],
    genotype: Genotype,
    name: str,
    seed: int,
) -> dict[str, Any]:
    """What a network of a seed came to, before or now."""
    config = make_config(TrainConfig, values)

    def trained() -> dict[str, Any]:
        run = RunConfig(seed=seed, dataset=options.dataset, space=options.space)
        sizes = (make_config(kind, values) for kind in (space.model_config, space.data_config))
        task: Any = space.open_task(run, *sizes)
        if name != OURS:
            build = HAND_MADE[options.space][name]
            width = widest(build, task, num_parameters(task.build_network(genotype, False)))
            task.build_network = lambda _genotype, _auxiliary: build(task, width)
        line = train_once(task, genotype, config, seed)
        print(f"{name} seed {seed}: {line['test']:.4f}, {line['seconds']} s", file=sys.stderr)
        return {**line, "genotype": genotype.to_text()}

    key = {"network": name, "seed": seed, "dataset": Path(options.dataset).name, "train": values}
    return kept(options.keep, {**key, "genotype": genotype.to_text()}, trained)


def networks_of(space: str, asked: str | None) -> list[str]:
    """The hand-made networks of a space, or those that are asked for; InputError for another."""
    known = list(HAND_MADE[space])
    networks = known if asked is None else asked.split(",")
    for name in networks:
        if name not in known:
            raise unknown_name("network", name, known)
    return networks


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (None of one) over the seeds, mean parameters, all lines."""
    tests = [line["test"] for line in lines]
    return {
        "n": len(tests),
        "mean": statistics.fmean(tests),
        "sd": statistics.stdev(tests) if len(tests) > 1 else None,
        "parameters": round(statistics.fmean(line["parameters"] for line in lines)),
        "seconds": statistics.median(line["seconds"] for line in lines),
        "seeds": list(lines),
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    print(f"{'':<10}{'test':>18}{'n':>4}{'parameters':>12}{'CPU s':>8}  ours less it, 95 %, paired")
    for name, row in result["networks"].items():
        spread = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
        less = result["ours_less"].get(name)
        apart = "" if less is None else f"  {less['difference']:+.4f} ± {less['half_interval']:.4f}"
        shown = f"{row['mean']:.4f}{spread}"
        print(
            f"{name:<10}{shown:>18}{row['n']:>4}{row['parameters']:>12,}{row['seconds']:>8.0f}{apart}"
        )
    for text in sorted(set(result["cells"])):
        print(text)


def main() -> int:
    """Runs the comparison; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--space", required=True, choices=FAMILIES)
    parser.add_argument("--dataset", required=True, help="name of a data set, or path")
    parser.add_argument(
        "--genotype",
        required=True,
        action="append",
        help="run folder, file or published name; several: one for each seed in turn",
    )
    parser.add_argument("--networks", help="hand-made ones, with commas (default: all)")
    parser.add_argument("--preset", default="small", help="of all trainings")
    parser.add_argument("--epochs", type=int, help="of all trainings (default: the preset's)")
    parser.add_argument("--seeds", default="0-9", help="for example 0-9 or 0,3,7")
    parser.add_argument("--keep", help="file of trainings that are done, to go on with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: compare(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
