"""A found graph cell beside the networks that everybody knows, trained by one script on one split.

    python benchmarks/graph_baselines.py --dataset FOLDER --genotype RUN --seeds 0-9 [--keep FILE]

Every network sees the same parts of the same data in the same batches through the same training
loop (`sgas.running.train`), keeps the epoch that the preset says, and sees the test split once, at
the end. Ours takes the settings of `--preset`. Of the others, those of one labelled graph take
their published settings (row-normalised features, sizes, dropout, rates and decays below; SAGE,
which has none for such a graph, takes GCN's), for 200 epochs; those of several graphs take ours,
for as many epochs, or with `--seconds` for as many as fit into these CPU seconds.

Sources: GCN, Kipf and Welling, ICLR 2017; GAT, Veličković et al., ICLR 2018; GraphSAGE, Hamilton et
al., NeurIPS 2017; APPNP, Klicpera et al., ICLR 2019; all as PyTorch Geometric has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from reporting import kept, report
from torch import Tensor, nn
from torch_geometric.nn import APPNP, GATConv, GCNConv, SAGEConv

from sgas.cells.genotype import Genotype
from sgas.config import BEST, RunConfig, TrainConfig
from sgas.config import make as make_config
from sgas.errors import InputError, unknown_name
from sgas.protocols import train_parts
from sgas.running.genotype_files import load_genotype
from sgas.running.loop import Loop, measure
from sgas.running.runs import Run
from sgas.running.settings import load_preset
from sgas.running.train import Training
from sgas_gcn.config import GraphDataConfig, GraphModelConfig
from sgas_gcn.family import FAMILY
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import GraphTask
from sgas_gcn.standardize import RowNormalize

DEVICE = torch.device("cpu")
OURS = "ours"
TRIAL_EPOCHS = 3  # for the seconds that an epoch takes
Layers = Callable[[int, int], Sequence[nn.Module]]
Activation = Callable[[Tensor], Tensor]


class Baseline(nn.Module):
    """Logits `[R, L]` of the asked nodes: layers with dropout and an activation, propagated."""

    drop_path = 0.0  # the training loop sets it; nothing here drops paths

    def __init__(
        self,
        layers: Sequence[nn.Module],
        dropout: float = 0.0,
        activation: Activation = F.elu,
        row_normalize: bool = False,
        propagation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.dropout, self.activation = nn.ModuleList(layers), dropout, activation
        head: Any = layers[-1]
        head.is_head = True  # of which a decay of its own may be
        self.row_normalize = RowNormalize() if row_normalize else nn.Identity()
        self.propagation = propagation

    def forward(self, batch: GraphBatch) -> Tensor:
        """The logits."""
        edge_index, x = batch.neighbors.edges.edge_index, self.row_normalize(batch.x)
        x = x.to_dense() if x.is_sparse else x  # of which PyG's layers and dropout take none
        for number, layer in enumerate(self.layers):
            x = F.dropout(self.activation(x) if number else x, self.dropout, self.training)
            x = layer(x) if isinstance(layer, nn.Linear) else layer(x, edge_index)
        return batch.answers(x if self.propagation is None else self.propagation(x, edge_index))


@dataclass(frozen=True)
class Published:
    """A baseline on one labelled graph: its layers and the settings of its paper."""

    layers: Layers
    dropout: float
    activation: Activation
    learning_rate: float
    weight_decay: float
    head_decay: float | None = 0.0  # None: as the others
    propagation: Callable[[], nn.Module] | None = None
    epochs: int = 200

    def make(self, task: GraphTask) -> Baseline:
        """A fresh network."""
        layers = self.layers(task.in_channels, task.num_outputs)
        last = self.propagation and self.propagation()
        return Baseline(layers, self.dropout, self.activation, True, last)


def _gat(inputs: int, outputs: int) -> Sequence[nn.Module]:
    return GATConv(inputs, 8, heads=8, dropout=0.6), GATConv(64, outputs, dropout=0.6)


ONE_GRAPH = {
    "gcn": Published(
        lambda inputs, outputs: (GCNConv(inputs, 16), GCNConv(16, outputs)), 0.5, F.relu, 0.01, 5e-4
    ),
    "sage": Published(
        lambda inputs, outputs: (SAGEConv(inputs, 16), SAGEConv(16, outputs)),
        *(0.5, F.relu, 0.01, 5e-4),
    ),
    "gat": Published(_gat, 0.6, F.elu, 0.005, 5e-4, head_decay=None),
    "appnp": Published(
        lambda inputs, outputs: (nn.Linear(inputs, 64), nn.Linear(64, outputs)),
        *(0.5, F.relu, 0.01, 5e-3),
        propagation=lambda: APPNP(10, 0.1, dropout=0.5),
    ),
}

MANY_GRAPHS: dict[str, Layers] = {
    "logistic": lambda inputs, outputs: (nn.Linear(inputs, outputs),),
    "sage": lambda inputs, outputs: (SAGEConv(inputs, 256), SAGEConv(256, outputs)),
    "gat": lambda inputs, outputs: (
        GATConv(inputs, 64, heads=4),
        GATConv(256, outputs, heads=6, concat=False),
    ),
}


class BaselineTask(GraphTask):
    """A data set of graphs whose network is a baseline, whatever the genotype."""

    make: Callable[[], nn.Module]

    def build_network(self, genotype: Genotype, auxiliary: bool) -> Any:
        """A fresh baseline."""
        return self.make()


@dataclass(frozen=True)
class Result:
    """One network of one seed: test figure in [0, 1], CPU seconds of training, size."""

    seed: int
    test: float
    seconds: float
    epochs: int
    params: int


@dataclass(frozen=True)
class Settings:
    """What a training of ours takes from its preset."""

    dataset: str
    genotype: Genotype
    train: TrainConfig
    model: GraphModelConfig
    data: GraphDataConfig


def train_once(
    settings: Settings, seed: int, config: TrainConfig, make: Callable[[GraphTask], Any] | None
) -> Result:
    """Trains one network (`make`: a baseline) from scratch and opens the test split at the end."""
    kind = GraphTask if make is None else BaselineTask
    data = settings.data if make is None else GraphDataConfig()
    task = kind(settings.dataset, settings.model, data, RunConfig(seed=seed))
    if isinstance(task, BaselineTask) and make is not None:
        task.make = lambda: make(task)
    parts = train_parts(task, "clean", seed, config.validation_fraction, DEVICE)
    if config.kept_epoch != BEST:
        parts = dataclasses.replace(parts, measured={})  # nothing here looks at it
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.create(Path(folder) / "run", {"seed": seed}) as run,
    ):
        training = Training(task, settings.genotype, config, parts=parts, seed=seed, device=DEVICE)
        network: Any = training.network
        began = time.process_time()
        Loop(training, run).execute()
        training.keep()
        seconds = time.process_time() - began
    figures = measure(network, task.labels, task.test_part(DEVICE), config.batch_size, DEVICE)
    params = sum(weight.numel() for weight in network.parameters())
    return Result(seed, figures[task.labels.primary_metric], seconds, config.epochs, params)


def recipe(
    name: str, settings: Settings, transductive: bool, seconds: float | None
) -> tuple[TrainConfig, Callable[[GraphTask], Any] | None]:
    """Config of a network's training, and the builder of a baseline (None: ours)."""
    if name == OURS:
        return settings.train, None
    if transductive:
        entry = ONE_GRAPH[name]
        return _published_config(settings.train, entry), entry.make
    config, make = settings.train, _builder(MANY_GRAPHS[name])
    if seconds is not None:
        trial = dataclasses.replace(config, epochs=TRIAL_EPOCHS)
        epoch = train_once(settings, 0, trial, make).seconds / TRIAL_EPOCHS
        config = dataclasses.replace(config, epochs=max(1, round(seconds / epoch)))
    return config, make


def _published_config(ours: TrainConfig, entry: Published) -> TrainConfig:
    return dataclasses.replace(
        ours,
        epochs=entry.epochs,
        optimizer="adam",
        learning_rate=entry.learning_rate,
        learning_rate_min=entry.learning_rate,
        weight_decay=entry.weight_decay,
        operation_decay=None,
        head_decay=entry.head_decay,
        norm_decay=None,
        label_smoothing=0.0,
    )


def _builder(layers: Layers) -> Callable[[GraphTask], Any]:
    """A function that makes the baseline of several graphs for a task."""
    return lambda task: Baseline(layers(task.in_channels, task.num_outputs))


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample; None of one seed) over the seeds."""
    tests = [result.test for result in results]
    return {
        "n": len(tests),
        "mean": statistics.fmean(tests),
        "sd": statistics.stdev(tests) if len(tests) > 1 else None,
        "seconds": statistics.median(result.seconds for result in results),
        "epochs": results[0].epochs,
        "params": results[0].params,
        "seeds": [asdict(result) for result in results],
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All trainings, network by network."""
    preset = load_preset(FAMILY, "graph", options.preset, "train")
    if options.epochs is not None:
        preset["epochs"] = options.epochs
    settings = Settings(
        options.dataset,
        load_genotype(FAMILY, options.genotype),
        make_config(TrainConfig, preset),
        make_config(GraphModelConfig, preset),
        make_config(GraphDataConfig, preset),
    )
    seeds = parse_seeds(options.seeds)
    task = GraphTask(options.dataset, settings.model, settings.data, RunConfig())
    transductive = task.transductive
    known = [OURS, *(ONE_GRAPH if transductive else MANY_GRAPHS)]
    results = {}
    for name in options.networks.split(",") if options.networks else known:
        if name not in known:
            raise unknown_name("network", name, known)
        config, make = recipe(name, settings, transductive, options.seconds)
        results[name] = [_result(options, settings, name, seed, config, make) for seed in seeds]
    return {
        "metric": task.labels.primary_metric,
        "networks": {name: summary(found) for name, found in results.items()},
        "genotype": settings.genotype.to_text(),
        "preset": options.preset,
        "seconds": options.seconds,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _result(
    options: argparse.Namespace,
    settings: Settings,
    name: str,
    seed: int,
    config: TrainConfig,
    make: Callable[[GraphTask], Any] | None,
) -> Result:
    """What a network of a seed came to, before or now."""

    def measure() -> dict[str, Any]:
        result = train_once(settings, seed, config, make)
        print(f"{name} seed {seed}: {result.test:.4f}, {result.seconds:.0f} s", file=sys.stderr)
        return asdict(result)

    ours = (settings.genotype.to_text(), asdict(settings.model)) if make is None else None
    key = {"network": name, "seed": seed, "dataset": settings.dataset, "ours": ours}
    return Result(**kept(options.keep, {**key, "train": asdict(config)}, measure))


def parse_seeds(text: str) -> list[int]:
    """The seeds of `0-9` or `0,3,7`."""
    first, _, last = text.partition("-")
    if first.isdigit() and last.isdigit():
        return list(range(int(first), int(last) + 1))
    if all(part.isdigit() for part in text.split(",")):
        return [int(part) for part in text.split(",")]
    raise InputError(f"--seeds is {text!r}; give for example 0-9 or 0,3,7")


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    print(f"{'':<10}{result['metric']:>18}{'n':>4}{'params':>10}{'epochs':>8}{'CPU s':>8}")
    for name, row in result["networks"].items():
        spread = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
        shown = f"{row['mean']:.4f}{spread}"
        sizes = f"{row['params']:>10,}{row['epochs']:>8}{row['seconds']:>8.0f}"
        print(f"{name:<10}{shown:>18}{row['n']:>4}{sizes}")
    some = next(iter(result["networks"].values()))
    if some["n"] < 10:
        print(f"n is {some['n']}: fewer than ten seeds")


def main() -> int:
    """Runs the comparison; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--dataset", required=True, help="name of a data set, or path")
    parser.add_argument("--genotype", required=True, help="run folder, file or published name")
    parser.add_argument("--preset", default="small", help="of our training")
    parser.add_argument("--epochs", type=int, help="of our training (default: the preset's)")
    parser.add_argument("--seeds", default="0-9", help="for example 0-9 or 0,3,7")
    parser.add_argument("--keep", help="file of trainings that are done, to go on with")
    parser.add_argument("--networks", help="for example ours,sage (default: all)")
    parser.add_argument(
        "--seconds",
        type=float,
        help="CPU seconds of a baseline on several graphs (default: epochs)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: compare(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
