"""A found cell beside GIN and GCN on labelled graphs: ten-fold, equal epochs, paired intervals.

    python benchmarks/graph_classification.py --dataset TU/MUTAG.npz --genotype RUN --folds 10

Every fold trains each network on the same nine tenths, drawn within the classes, in the same
batches by the same steps (`sgas.running.train`) for the same epochs, and measures the last tenth
once, after the last epoch. With `--keep FILE` trainings that ended are kept and not run again. The
baselines are GCN and GIN as PyTorch Geometric has them, of four layers whose outputs are joined,
with the head of ours (mean, largest value and sum of each graph).

A cell that was searched on the data set has seen graphs of every fold; `--genotype` of another data
set, or a published name, has not. The table says which it was.

Sources: GIN, Xu et al., ICLR 2019; GCN, Kipf and Welling, ICLR 2017; folds as in Errica et al.,
ICLR 2020, without their choice among settings.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import kept, report
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, GINConv

from sgas.cells.genotype import Genotype
from sgas.config import RunConfig, TrainConfig
from sgas.config import make as make_config
from sgas.data import SubsetSource
from sgas.errors import InputError
from sgas.protocols import TrainParts, cell_in_words
from sgas.running.genotype_files import load_genotype
from sgas.running.loop import measure
from sgas.running.settings import load_preset
from sgas.running.train import Training
from sgas_gcn.config import GraphDataConfig, GraphModelConfig
from sgas_gcn.datasets.graph_file import find_file
from sgas_gcn.family import FAMILY
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import GraphTask
from sgas_gcn.heads import GraphClassifier

DEVICE = torch.device("cpu")
OURS, LAYERS, WIDTH = "ours", 4, 64


class Baseline(nn.Module):
    """Logits `[B, L]` of graphs: convolutions with batch norm and ReLU, joined, pooled."""

    drop_path = 0.0  # the training loop sets it; nothing here drops paths

    def __init__(
        self, make: Callable[[int], nn.Module], inputs: int, outputs: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [inputs, *[WIDTH] * (LAYERS - 1)]
        self.layers = nn.ModuleList(make(width) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in widths)
        self.classifier = GraphClassifier(LAYERS * WIDTH, WIDTH, outputs, dropout)

    def forward(self, batch: GraphBatch) -> Tensor:
        """The logits."""
        x, states = batch.x, []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x, batch.neighbors.edges.edge_index)))
            states.append(x)
        logits: Tensor = self.classifier(torch.cat(states, dim=1), batch)
        return logits


def _gin(width: int) -> nn.Module:
    inner = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    return GINConv(inner, train_eps=True)


BASELINES: dict[str, Callable[[int], nn.Module]] = {
    "gin": _gin,
    "gcn": lambda width: GCNConv(width, WIDTH),
}


class FoldTask(GraphTask):
    """A data set of labelled graphs, whose network is a baseline where `make` is one."""

    make: Callable[[int], nn.Module] | None = None

    def build_network(self, genotype: Genotype, auxiliary: bool) -> Any:
        """A fresh network."""
        if self.make is None:
            return super().build_network(genotype, auxiliary)
        assert isinstance(self.model, GraphModelConfig), "graphs are labelled in the graph space"
        return Baseline(self.make, self.in_channels, self.num_outputs, self.model.dropout)


def in_training(path: Path, folder: Path) -> Path:
    """A copy of a file of graphs in `folder` whose graphs are all for training."""
    with np.load(find_file(path), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "split"}
    if "node_ptr" not in arrays:
        raise InputError(f"{path} has one graph; a file of several is compared here")
    arrays["split"] = np.full(len(arrays["node_ptr"]) - 1, "train")
    np.savez(folder / "graphs.npz", **arrays)
    return folder / "graphs.npz"


def train_once(
    task: FoldTask, genotype: Genotype, config: TrainConfig, fold: np.ndarray, seed: int
) -> dict[str, Any]:
    """Accuracy on a fold after a training on all others, the network's parameters, CPU seconds."""
    began = time.process_time()
    whole = task.training_part(DEVICE)
    others = np.setdiff1d(np.arange(len(whole)), fold)
    parts = TrainParts(SubsetSource(whole, torch.from_numpy(others)), {})
    training = Training(task, genotype, config, parts=parts, seed=seed, device=DEVICE)
    for epoch in range(config.epochs):
        for _ in training.steps(epoch, 0):
            pass
    training.statistics.estimate(config.epochs - 1, config.batch_size, last=True)
    held_out = SubsetSource(whole, torch.from_numpy(fold))
    figures = measure(training.network, task.labels, held_out, config.batch_size, DEVICE)
    return {
        "accuracy": figures["accuracy"],
        "params": sum(each.numel() for each in training.network.parameters()),
        "seconds": time.process_time() - began,
    }


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Mean difference of folds, and half of its 95 % interval by Student's t."""
    from scipy.stats import t

    off = np.subtract(ours, theirs)
    half = t.ppf(0.975, len(off) - 1) * off.std(ddof=1) / len(off) ** 0.5
    return {"difference": float(off.mean()), "half_interval": float(half)}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All trainings, network by network."""
    preset = load_preset(FAMILY, "graph", options.preset, "train")
    preset |= {"epochs": options.epochs, "batch_size": options.batch_size}
    genotype = load_genotype(FAMILY, options.genotype)
    config = make_config(TrainConfig, preset)
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(in_training(Path(options.dataset), Path(folder)))
        data = make_config(GraphDataConfig, preset)
        task = FoldTask(path, make_config(GraphModelConfig, preset), data, RunConfig(dataset=path))
        if not task.per_graph or task.labels.primary_metric != "accuracy":
            raise InputError(f"{options.dataset} has no graphs of one class each")
        parts = task.parts_of_training((1 / options.folds,) * options.folds, options.seed, DEVICE)
        folds = [part.index.numpy() for part in parts if isinstance(part, SubsetSource)]
        asked = {
            "dataset": [Path(options.dataset).stem, task.fingerprint()],
            "folds": [options.folds, options.seed],
            "settings": preset,
        }
        for name, make in {OURS: None, **BASELINES}.items():
            task.make = make
            of_network = {**asked, "network": genotype.to_text() if make is None else name}
            told = [
                kept(
                    options.keep,
                    {**of_network, "fold": number},
                    partial(train_once, task, genotype, config, fold, number),
                )
                for number, fold in enumerate(folds)
            ]
            figures[name] = {
                "folds": [line["accuracy"] for line in told],
                "params": told[0]["params"],
                "seconds": sum(line["seconds"] for line in told),
            }
            mean = statistics.fmean(figures[name]["folds"])
            print(f"{name}: {mean:.4f}, {figures[name]['seconds']:.0f} s", file=sys.stderr)
    ours = figures[OURS]["folds"]
    return {
        "dataset": Path(options.dataset).stem,
        "cell": cell_in_words(genotype.meta),
        "genotype": genotype.to_text(),
        "epochs": options.epochs,
        "networks": figures,
        "ours_less": {name: paired(ours, figures[name]["folds"]) for name in BASELINES},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    print(f"{result['dataset']} · {result['epochs']} epochs · {result['cell']}")
    for name, row in result["networks"].items():
        mean, sd = statistics.fmean(row["folds"]), statistics.stdev(row["folds"])
        less = result["ours_less"].get(name)
        told = ""
        if less:
            told = f"   ours {less['difference']:+.4f} ± {less['half_interval']:.4f} (95 %, paired)"
        print(f"{name:<6} {mean:.4f} ± {sd:.4f}  n {len(row['folds'])}  {row['params']:,}{told}")


def main() -> int:
    """Runs the comparison; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--dataset", required=True, help="file of labelled graphs")
    parser.add_argument("--genotype", required=True, help="run folder, file or published name")
    parser.add_argument("--preset", default="graphs", help="of our training, for all networks")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--keep", help="file of trainings that ended, none of which is run again")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: compare(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
