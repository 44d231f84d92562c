"""NAS-Bench-Graph: whether our networks are those of its tables, and searches in its space.

What `search_quality.py` takes of this space stands here too. As a script:

    python benchmarks/nasbenchgraph.py --table nasbench_graph_cora.npz --graph cora.npz \
        --preset cora --out networks.jsonl

Networks are taken at even ranks of the table's test accuracy, from the worst to the best, and
trained with the settings of a preset as the benchmark did: every epoch is measured, and the test
accuracy at the first epoch of the best validation accuracy counts (Qin et al., NeurIPS 2022,
section 3.3). Each is written to OUT as it ends, in an order whose every beginning spans the whole
range; the same command goes on where it stopped.

TABLE: npz with `hash` and `test`. GRAPH: one graph as `sgas-gcn` takes it; where it has no split,
20 nodes of each class are for training and 30 for validation, the others for tests, of its largest
connected component, as the benchmark does for Amazon Photo.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from reporting import add_line, read_lines, report
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sgas.cells.genotype import Genotype
from sgas.config import RunConfig, TrainConfig, make
from sgas.data import stream_seed
from sgas.errors import DataError
from sgas.protocols import CLEAN, SearchParts, train_parts
from sgas.running.settings import load_preset
from sgas.running.train import Training
from sgas.studies.statistics import rank_correlation
from sgas_gcn.config import NASBENCHGRAPH_SPACE, GraphDataConfig, NasBenchGraphConfig
from sgas_gcn.family import FAMILY
from sgas_gcn.graph_task import GraphTask
from sgas_gcn.nasbenchgraph_text import (
    architecture_of,
    from_nasbenchgraph,
    key_of,
    to_nasbenchgraph,
)

Key = TypeVar("Key", int, str)
DEVICE = torch.device("cpu")
OF_A_CLASS = {"train": 20, "val": 30}
SEARCH: dict[str, Any] = {
    "warmup_epochs": 40,  # an epoch is one step: the graph
    "decision_interval": 20,
    "final_epochs": 0,
    "batch_size": 1,
    "batch_increase": 0,
    "learning_rate": 0.1,
    "learning_rate_min": 0.001,
    "weight_decay": 5e-4,
    "alpha_learning_rate": 1e-2,
    "num_candidates": 24,
    "candidate_epochs": 40,
}
MODEL = NasBenchGraphConfig(channels=64)
TWO_GCN = from_nasbenchgraph([0, 1, 2, 3], ["skip", "skip", "gcn", "gcn"])
NOTHING = "88888"  # skips alone: in no table; the benchmark counts its accuracy as 0


def read_table(path: Path) -> dict[int, float]:
    """Test accuracy in per cent by key; DataError where there is no such table."""
    if not path.is_file():
        raise DataError(f"table {path} does not exist: give an npz with hash and test")
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"hash", "test"} - set(arrays.files)
        if missing:
            raise DataError(f"{path} has no array {sorted(missing)}; it has {arrays.files}")
        return dict(zip(arrays["hash"].tolist(), (100.0 * arrays["test"]).tolist(), strict=True))


def read_validation(path: Path) -> list[tuple[float, float]]:
    """Validation and test accuracy of each network, in per cent; DataError where there is none."""
    with np.load(path, allow_pickle=False) as arrays:
        if "valid" not in arrays:
            raise DataError(f"{path} has no array valid; it has {arrays.files}")
        columns = (100.0 * arrays[name] for name in ("valid", "test"))
        return list(zip(*(column.tolist() for column in columns), strict=True))


def named_table(path: Path) -> dict[str, float]:
    """The table by the names of cells, the one of skips alone with an accuracy of 0."""
    return {**{f"{key:05d}": test for key, test in read_table(path).items()}, NOTHING: 0.0}


def cell_name(genotype: Genotype) -> str:
    """The key of a genotype, five digits."""
    return f"{key_of(*to_nasbenchgraph(genotype)):05d}"


class BenchmarkTask(GraphTask):
    """A graph for searches: its training nodes train the weights, its validation nodes the alphas.

    The benchmark's searches see these labels too; its figures are of the test nodes.
    """

    def __init__(self, path: Path, seed: int, permuted: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            graph = str(benchmark_graph(path, Path(folder)))
            super().__init__(graph, MODEL, GraphDataConfig(), RunConfig(seed=seed))
            parts = self.training_part(DEVICE), self.validation_part(DEVICE)
        self.seed, self.permuted = seed, permuted
        assert parts[1] is not None, "benchmark_graph has drawn one"
        self._parts = parts[0], parts[1]

    def search_parts(self, device: torch.device) -> SearchParts:
        """The two parts; the second is also what is reported."""
        weights, alphas = self._parts
        if self.permuted:
            together = torch.cat([weights.targets[0], alphas.targets[0]])
            draw = np.random.default_rng(stream_seed(self.seed, "permuted"))
            order = torch.from_numpy(draw.permutation(len(together)))
            sizes = weights.num_asked, alphas.num_asked
            first, second = together[order].split(sizes)
            weights = replace(weights, targets=[first])
            alphas = replace(alphas, targets=[second])
        return SearchParts(weights, alphas, alphas, "benchmark")


def benchmark_graph(path: Path, folder: Path) -> Path:
    """The file itself where it has a split; else one in `folder` with that of the benchmark."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if "train" in arrays:
        return path
    label, edge = arrays["label"], arrays["edge"].astype(np.int64)
    links = coo_array((np.ones(len(edge)), edge.T), shape=(len(label), len(label)))
    component = connected_components(links, directed=False)[1]
    largest = component == np.bincount(component).argmax()
    draw = np.random.default_rng(stream_seed(0, "nasbenchgraph"))
    parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for number in range(int(label.max()) + 1):
        members = draw.permutation(np.flatnonzero((label == number) & largest))
        for name, count in (*OF_A_CLASS.items(), ("test", len(members))):
            part, members = np.split(members, [min(count, len(members))])
            parts[name].append(part)
    arrays.update({name: np.concatenate(part) for name, part in parts.items()})
    made = folder / "graph.npz"
    np.savez(made, allow_pickle=False, **arrays)
    return made


def chosen_keys(table: Mapping[Key, float], count: int) -> list[Key]:
    """The keys at `count` even ranks, in an order whose every beginning spans the range."""
    ordered = sorted(table, key=table.__getitem__)
    ranks = [int((number + 0.5) * len(ordered) / count) for number in range(count)]
    spread = sorted(range(count), key=lambda number: f"{number:016b}"[::-1])
    return [ordered[ranks[number]] for number in spread]


def train_network(graph: Path, settings: Mapping[str, Any], key: int, seed: int) -> dict[str, Any]:
    """Validation and test accuracy at the first best epoch, in per cent, and CPU seconds."""
    began = time.process_time()
    config, model, data = (
        make(kind, settings) for kind in (TrainConfig, NasBenchGraphConfig, GraphDataConfig)
    )
    task = GraphTask(str(graph), model, data, RunConfig(seed=seed))
    parts = train_parts(task, CLEAN, seed, config.validation_fraction, DEVICE)
    genotype = from_nasbenchgraph(*architecture_of(key))
    training = Training(task, genotype, config, parts=parts, seed=seed, device=DEVICE)
    validation_part = task.validation_part(DEVICE)
    assert validation_part is not None, "benchmark_graph has drawn one"
    measured = [validation_part, task.test_part(DEVICE)]
    sizes = [part.num_asked for part in measured]
    asked = torch.cat([part.graphs[0].asked_nodes for part in measured])
    targets = torch.cat([part.targets[0] for part in measured])
    batch, best = replace(measured[0].graphs[0], asked=asked), (-1.0, 0.0)
    for epoch in range(config.epochs):
        list(training.steps(epoch, 0))
        training.network.eval()
        with torch.no_grad():
            right = (training.network(batch).argmax(1) == targets).float().split(sizes)
        validation, test = (float(part.mean()) for part in right)
        if validation > best[0]:
            best = validation, test
    return {"valid": 100 * best[0], "test": 100 * best[1], "seconds": time.process_time() - began}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Trains what OUT does not hold yet, then sets all beside the table."""
    table, out = read_table(Path(options.table)), Path(options.out)
    settings = load_preset(FAMILY, NASBENCHGRAPH_SPACE.name, options.preset, "train")
    asked = {"preset": options.preset, "seed": options.seed}
    done = {line["key"]: line for line in read_lines(out) if asked.items() <= line.items()}
    keys = chosen_keys(table, options.count)
    with tempfile.TemporaryDirectory() as folder:
        graph = benchmark_graph(Path(options.graph), Path(folder))
        for key in keys:
            if key in done:
                continue
            done[key] = {"key": key, **asked, **train_network(graph, settings, key, options.seed)}
            add_line(out, done[key])
            print(f"{key:05d}: {done[key]['test']:.1f}, table {table[key]:.1f}", file=sys.stderr)
    return summary([done[key] for key in keys], table)


def summary(networks: Sequence[Mapping[str, Any]], table: Mapping[int, float]) -> dict[str, Any]:
    """Kendall's τ-b of our test accuracies to the table's, and the differences."""
    ours = [network["test"] for network in networks]
    theirs = [table[network["key"]] for network in networks]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return {
        "n": len(networks),
        "kendall": asdict(rank_correlation(ours, theirs)),
        "mean_difference": statistics.fmean(differences),
        "median_difference": statistics.median(differences),
        "largest_difference": max(differences, key=abs),
        "seconds": statistics.fmean(network["seconds"] for network in networks),
        "networks": [
            {**network, "table": test} for network, test in zip(networks, theirs, strict=True)
        ],
        "torch": torch.__version__,
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    print(f"{'key':>6}{'ours':>8}{'table':>8}")
    for network in sorted(result["networks"], key=lambda network: network["table"]):
        print(f"{network['key']:>6}{network['test']:>8.1f}{network['table']:>8.1f}")
    found = result["kendall"]
    print(
        f"n {result['n']}: Kendall's tau-b {found['tau']:.2f} ({found['low']:.2f} to "
        f"{found['high']:.2f}); ours - table: mean {result['mean_difference']:+.1f}, median "
        f"{result['median_difference']:+.1f}, largest {result['largest_difference']:+.1f}"
    )


def main() -> int:
    """Runs the comparison; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--table", required=True, help="npz: hash, test")
    parser.add_argument("--graph", required=True, help="npz of one graph")
    parser.add_argument("--preset", required=True, help="whose trainings: cora, citeseer, photo")
    parser.add_argument(
        "--out", required=True, help="file of results, a JSON line for each network"
    )
    parser.add_argument("--count", type=int, default=30, help="networks (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: compare(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
