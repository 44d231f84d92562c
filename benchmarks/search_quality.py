"""How good the cells are that each strategy finds, where the truth of every cell is published.

The spaces are those of NAS-Bench-201 (Dong and Yang, ICLR 2020; 15,625 cells) and NAS-Bench-Graph
(Qin et al., NeurIPS 2022; 26,206 cells), each cell trained and tested by the authors. A search here
sees real data and nothing else; only when all searches of a strategy have ended are their cells
looked up in a table that the user supplies. A percentile is the share of all cells with a higher
test accuracy, in per cent: 0 is the best cell.

    python benchmarks/search_quality.py --table TABLE.csv --images cifar10_small --seeds 0-9
    python benchmarks/search_quality.py --space nasbenchgraph --table nasbench_graph_cora.npz \
        --graph cora.npz --seeds 0-9

TABLE: of NAS-Bench-201, CSV with a column of architecture strings and one of test accuracies in per
cent (a header names them `arch` and `test`; without one they are the first two), or npz with two
such arrays; of NAS-Bench-Graph, npz with `hash`, `valid` and `test` (0 to 1). IMAGES: a folder with
train*.npz as `sgas-cnn` takes it. GRAPH: one graph as `sgas-gcn` takes it. The settings are frozen
in SEARCH below and in `nasbenchgraph.py`.

With `--restarts N`, of NAS-Bench-201, each search is done N times on the same data, with other
weights and orders, and of the cells that were found the one is taken that is best on the alphas'
images after a short training by CHOICE; all of it counts as cost.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nasbenchgraph
import numpy as np
import torch
from reporting import kept, report

from sgas.cells.genotype import Genotype
from sgas.config import STRATEGIES, SearchConfig
from sgas.data import DeviceSource, SubsetSource, stratified_parts, stream_seed
from sgas.errors import DataError, InputError, unknown_name
from sgas.protocols import SearchParts
from sgas.running.candidates import CandidateSearch, open_search
from sgas.running.loop import Loop
from sgas.running.runs import Run
from sgas.running.search import Search
from sgas_cnn.augment import ImageAugmentation
from sgas_cnn.config import NASBENCH201_OPERATIONS, ImageDataConfig, NasBench201Config
from sgas_cnn.datasets.folder import load_folder
from sgas_cnn.nasbench201_text import to_nasbench201
from sgas_cnn.task import ImageModels

SEARCH: dict[str, Any] = {
    "warmup_epochs": 9,
    "decision_interval": 4,
    "final_epochs": 0,
    "batch_size": 64,
    "batch_increase": 0,
    "learning_rate": 0.4,  # this and beta_decay chosen on seeds 100 to 107, see quality/LOG.md
    "beta_decay": 1.0,
    "learning_rate_min": 0.001,
    "alpha_learning_rate": 1e-2,
    "alpha_start_epoch": 2,
}
MODEL = NasBench201Config(channels=8, num_cells=1)
DATA = ImageDataConfig(crop_padding=2, flip=True)
IMAGES_A_PART = 1000  # for the weights, and as many for the alphas
VALIDATION_IMAGES = 200
SIDE = 16
CHOICE: dict[str, Any] = {  # of cells that restarts found, in networks of three cells a stage:
    "strategy": "random_trained",  # with one the best cell of the table is none of the best
    "candidate_epochs": 12,
    "batch_size": 64,
    "batch_increase": 0,
    "learning_rate": 0.1,
    "learning_rate_min": 0.001,
}
CHOICE_CELLS = 3
CONTROLS = ("permuted_labels",)
BOOTSTRAPS = 10_000
NUM_EDGES = 6


class BenchmarkTask(ImageModels):
    """The images of one seed: 1,000 for the weights, 1,000 for the alphas, 200 to report on."""

    def __init__(self, data: tuple[np.ndarray, np.ndarray], seed: int, permuted: bool) -> None:
        images, labels = data
        super().__init__(MODEL, images.shape[3], int(labels.max()) + 1, SIDE)
        wanted = 2 * IMAGES_A_PART + VALIDATION_IMAGES
        if len(labels) < wanted:
            raise DataError(f"the folder has {len(labels)} training images; it takes {wanted}")
        rest = len(labels) - wanted
        sizes = (IMAGES_A_PART, IMAGES_A_PART, VALIDATION_IMAGES, rest)
        fractions = tuple(size / len(labels) for size in sizes)
        self.chosen = stratified_parts(labels, fractions, seed)[:3]
        if permuted:
            labels = np.random.default_rng(stream_seed(seed, "permuted")).permutation(labels)
        self.images, self.truth = images, labels
        self.augmentation = ImageAugmentation.of(DATA, images)

    def search_parts(self, device: torch.device) -> SearchParts:
        """The three parts on the device."""
        source = DeviceSource(
            torch.from_numpy(self.images).to(device),
            torch.from_numpy(self.truth).to(device),
            self.augmentation.augment,
            self.augmentation.prepare,
        )
        parts = [SubsetSource(source, torch.from_numpy(p).to(device)) for p in self.chosen]
        return SearchParts(parts[0], parts[1], parts[2], "benchmark")


def load_small_images(folder: str, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, 16, 16, C]` of a split, each pixel the mean of a block; labels `[N]`."""
    arrays = load_folder(Path(folder), split)
    images = arrays.inputs
    block = images.shape[1] // SIDE
    if images.shape[1] != images.shape[2] or images.shape[1] % SIDE:
        raise DataError(f"images are {images.shape[1:3]}; the sides have to be multiples of {SIDE}")
    shape = (len(images), SIDE, block, SIDE, block, images.shape[3])
    return images.reshape(shape).mean((2, 4)).round().astype(np.uint8), arrays.labels


@dataclass(frozen=True)
class Benchmark:
    """A space whose every cell was trained and tested: its searches, and what judges them.

    `load` reads the data of `option`, `task` opens them for a seed (with permuted labels or not),
    `cell` names a genotype as `read_table` does, and `controls` are figures of other cells.
    """

    option: str
    settings: Callable[[], dict[str, Any]]
    load: Callable[[str], Any]
    task: Callable[[Any, int, bool], Any]
    cell: Callable[[Genotype], str]
    read_table: Callable[[Path], dict[str, float]]
    controls: Callable[[Mapping[str, float], Path], dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """A search that ended: its seed, its cell as its benchmark names it, CPU seconds."""

    seed: int
    cell: str
    seconds: float


@contextmanager
def searching(
    task: Any, strategy: str, seed: int, settings: Mapping[str, Any]
) -> Iterator[tuple[Search | CandidateSearch, Run]]:
    """A search that is ready to begin, and its run folder, which goes when this ends."""
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        config = SearchConfig(**{**settings, "strategy": strategy})
        parts = task.search_parts(device)
        with Run.create(Path(folder) / "run", {"search": asdict(config), "seed": seed}) as run:
            more = {"parts": parts, "seed": seed, "device": device, "notes": {}}
            yield open_search(task, config, **more), run


def search_once(benchmark: Benchmark, data: Any, strategy: str, seed: int, permuted: bool) -> Found:
    """One search. Nothing in here, or below it, looks into a table."""
    began = time.process_time()
    task = benchmark.task(data, seed, permuted)
    with searching(task, strategy, seed, benchmark.settings()["search"]) as (search, run):
        Loop(search, run).execute()
    return Found(seed, benchmark.cell(search.genotype()), time.process_time() - began)


def search_with_restarts(
    benchmark: Benchmark, data: Any, strategy: str, seed: int, permuted: bool, restarts: int
) -> Found:
    """The best after a short training of what so many searches of the same data found."""
    began = time.process_time()
    task = benchmark.task(data, seed, permuted)
    streams = [seed, *(stream_seed(seed, "restart", n) for n in range(1, restarts))]
    found = []
    for stream in streams:
        with searching(task, strategy, stream, benchmark.settings()["search"]) as (search, run):
            Loop(search, run).execute()
        found.append(search.genotype())
    cells = {genotype.content_hash: genotype for genotype in found}
    best = found[0]
    if len(cells) > 1:
        task.model = replace(task.model, num_cells=CHOICE_CELLS)
        given = msgspec.json.encode(list(cells.values())).decode()
        settings = {**CHOICE, "candidates": given, "num_candidates": len(cells)}
        with searching(task, CHOICE["strategy"], seed, settings) as (choice, run):
            Loop(choice, run).execute()
        best = choice.genotype()
    return Found(seed, benchmark.cell(best), time.process_time() - began)


def as_fields(search: Callable[..., Found], *arguments: Any) -> dict[str, Any]:
    """The fields of what a search finds."""
    return asdict(search(*arguments))


def read_table(path: Path) -> dict[str, float]:
    """Test accuracy in per cent by architecture string; DataError where there is no such table."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"arch", "test"} - set(arrays.files)
            if missing:
                raise DataError(f"{path} has no array {sorted(missing)}; it has {arrays.files}")
            pairs = list(zip(arrays["arch"].tolist(), arrays["test"].tolist(), strict=True))
    else:
        pairs = _read_csv(path)
    table = {str(cell).strip(): float(test) for cell, test in pairs}
    wrong = next((cell for cell in table if cell.count("|") != 9), None)
    if not table or wrong is not None:
        raise DataError(f"{path}: {wrong!r} is no architecture string |op~0|+|op~0|op~1|+|…|")
    return table


def _read_csv(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    columns = (0, 1)
    if rows and not any("|" in value for value in rows[0]):
        header = [name.strip().lower() for name in rows.pop(0)]
        places = [
            next((i for i, name in enumerate(header) if word in name), None)
            for word in ("arch", "test")
        ]
        if None in places:
            raise DataError(f"{path}: the header {header} names no column arch, or none test")
        columns = (int(places[0] or 0), int(places[1] or 0))
    return [(row[columns[0]], row[columns[1]]) for row in rows]


def percentile(table: Mapping[str, float], test: float) -> float:
    """The share of cells with a higher test accuracy, in per cent."""
    values = np.fromiter(table.values(), float)
    return float(100 * (values > test).mean())


def judge(table: Mapping[str, float], searches: Sequence[Found]) -> list[dict[str, Any]]:
    """What the table says of each found cell."""
    best, judged = max(table.values()), []
    for found in searches:
        if found.cell not in table:
            raise DataError(f"the table has no cell {found.cell}; is it whole?")
        test = table[found.cell]
        judged.append(
            {
                **asdict(found),
                "test": test,
                "percentile": percentile(table, test),
                "regret": best - test,
            }
        )
    return judged


def bootstrap(values: Sequence[float], of: Callable[..., Any] = np.mean) -> list[float]:
    """The 95 % interval of a statistic by resampling the seeds."""
    draw = np.random.default_rng(0)
    samples = np.asarray(values)[draw.integers(len(values), size=(BOOTSTRAPS, len(values)))]
    return [float(bound) for bound in np.quantile(of(samples, axis=1), [0.025, 0.975])]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one strategy over its seeds."""
    ranks = [row["percentile"] for row in rows]
    return {
        "n": len(rows),
        "mean_percentile": statistics.fmean(ranks),
        "mean_percentile_interval": bootstrap(ranks),
        "median_percentile": statistics.median(ranks),
        "worst_percentile": max(ranks),
        "worst_seed": max(rows, key=lambda row: row["percentile"])["seed"],
        "mean_test": statistics.fmean(row["test"] for row in rows),
        "mean_regret": statistics.fmean(row["regret"] for row in rows),
        "seconds": statistics.fmean(row["seconds"] for row in rows),
        "seeds": list(rows),
    }


def paired(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Difference of percentiles to another strategy, seed by seed: below 0 is better."""
    differences = [a["percentile"] - b["percentile"] for a, b in zip(ours, theirs, strict=True)]
    return {
        "mean_difference": statistics.fmean(differences),
        "interval": bootstrap(differences),
        "better": sum(d < 0 for d in differences),
        "worse": sum(d > 0 for d in differences),
        "equal": sum(d == 0 for d in differences),
    }


def random_cells(table: Mapping[str, float], operations: Sequence[str]) -> dict[str, float]:
    """Exact figures of uniformly random cells of some operations, from the whole table."""
    tests = []
    for ops in itertools.product(operations, repeat=NUM_EDGES):
        text = f"|{ops[0]}~0|+|{ops[1]}~0|{ops[2]}~1|+|{ops[3]}~0|{ops[4]}~1|{ops[5]}~2|"
        if text not in table:
            raise DataError(f"the table has no cell {text}; is it whole?")
        tests.append(table[text])
    return of_cells(table, tests)


def of_cells(table: Mapping[str, float], tests: Sequence[float]) -> dict[str, float]:
    """Exact figures of cells of these test accuracies, each as likely as the others."""
    values = np.sort(np.fromiter(table.values(), float))
    above = 100 * (1 - np.searchsorted(values, tests, side="right") / len(values))
    return {
        "cells": len(tests),
        "mean_percentile": float(above.mean()),
        "median_percentile": float(np.median(above)),
        "mean_test": float(np.mean(tests)),
    }


def best_of_random(
    table: Mapping[str, float], judged: Sequence[tuple[float, float]], count: int
) -> dict[str, float]:
    """Exact figures of the best by validation of `count` random cells: what a search can hope for.

    `judged` are the validation and test accuracies of all cells that it draws from.
    """
    tests = [test for _, test in sorted(judged, reverse=True)]
    left = len(tests) - 1 - np.arange(len(tests) - 1)  # cells after each but the last
    first = count / len(tests)
    chance = first * np.cumprod(np.r_[1.0, np.clip(1 - (count - 1) / left, 0, None)])
    values = np.sort(np.fromiter(table.values(), float))
    above = 100 * (1 - np.searchsorted(values, tests, side="right") / len(values))
    order = np.argsort(above)
    middle = order[np.searchsorted(np.cumsum(chance[order]), 0.5)]
    return {
        "cells": count,
        "mean_percentile": float(above @ chance),
        "median_percentile": float(above[middle]),
        "mean_test": float(np.asarray(tests) @ chance),
    }


def _controls_of_nasbench201(table: Mapping[str, float], path: Path) -> dict[str, Any]:
    return {
        "random_without_none": random_cells(table, NASBENCH201_OPERATIONS[1:]),
        "random_convolutions": random_cells(table, ["nor_conv_1x1", "nor_conv_3x3"]),
    }


def _controls_of_nasbenchgraph(table: Mapping[str, float], path: Path) -> dict[str, Any]:
    judged = nasbenchgraph.read_validation(path)
    gcn = table[nasbenchgraph.cell_name(nasbenchgraph.TWO_GCN)]
    return {
        "random_cells_of_the_table": of_cells(table, list(table.values())),
        "gcn_of_two_layers": of_cells(table, [gcn]),
        "best_validation_of_24": best_of_random(table, judged, 24),
        "best_validation_of_192": best_of_random(table, judged, 192),
    }


BENCHMARKS = {
    "nasbench201": Benchmark(
        "images",
        lambda: {
            "search": SEARCH,
            "model": asdict(MODEL),
            "images_a_part": IMAGES_A_PART,
            "side": SIDE,
        },
        load_small_images,
        BenchmarkTask,
        to_nasbench201,
        read_table,
        _controls_of_nasbench201,
    ),
    "nasbenchgraph": Benchmark(
        "graph",
        lambda: {"search": nasbenchgraph.SEARCH, "model": asdict(nasbenchgraph.MODEL)},
        Path,
        nasbenchgraph.BenchmarkTask,
        nasbenchgraph.cell_name,
        nasbenchgraph.named_table,
        _controls_of_nasbenchgraph,
    ),
}


def parse_seeds(text: str) -> list[int]:
    """`0-9` or `0,3,7` or both: `0-3,8`."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(f"--seeds is {text!r}; give for example 0-9 or 0,3,7")
        seeds += range(int(first), int(last or first) + 1)
    if not seeds:
        raise InputError(f"--seeds {text!r} names none")
    return seeds


def parse_strategies(text: str) -> list[str]:
    """`cri2,darts`; InputError for a name that is no strategy's."""
    strategies = text.split(",")
    for name in strategies:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
    return strategies


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All searches, then the figures."""
    strategies = parse_strategies(options.strategies)
    seeds = parse_seeds(options.seeds)
    benchmark = BENCHMARKS[options.space]
    source = getattr(options, benchmark.option)
    if source is None:
        raise InputError(f"--space {options.space} takes its data by --{benchmark.option} PATH")
    if not Path(options.table).is_file():  # told now, not after an hour; read after the searches
        raise DataError(f"table {options.table} does not exist")
    if options.restarts > 1 and options.space != "nasbench201":
        raise InputError(f"--restarts is of nasbench201 alone: leave it out for {options.space}")
    again, search = {}, search_once
    if options.restarts > 1:
        again = {"restarts": options.restarts, "choice": [CHOICE, CHOICE_CELLS]}
        search = partial(search_with_restarts, restarts=options.restarts)
    data = benchmark.load(source)
    runs = [(name, False) for name in strategies]
    runs += [(name, True) for name in strategies if options.control == "permuted_labels"]
    found: dict[tuple[str, bool], list[Found]] = {}
    for name, permuted in runs:
        found[name, permuted] = []
        for seed in seeds:
            fields = kept(
                options.keep,
                {
                    **{**benchmark.settings(), "strategy": name, "permuted": permuted},
                    **{"seed": seed, **again},
                },
                partial(as_fields, search, benchmark, data, name, seed, permuted),
            )
            last = Found(**fields)
            found[name, permuted].append(last)
            note = " (permuted labels)" if permuted else ""
            took = f"{last.seconds:.0f} CPU s"
            print(f"{name}{note} seed {seed}: {last.cell}  {took}", file=sys.stderr, flush=True)
    table = benchmark.read_table(Path(options.table))
    judged = {key: judge(table, searches) for key, searches in found.items()}
    result: dict[str, Any] = {
        "strategies": {name: summary(judged[name, False]) for name in strategies},
        "controls": benchmark.controls(table, Path(options.table)),
        "paired_with_darts": {},
        "space": options.space,
        "settings": {**benchmark.settings(), **again},
        "n": len(seeds),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    for name in strategies:
        if "darts" in strategies and name != "darts":
            result["paired_with_darts"][name] = paired(judged[name, False], judged["darts", False])
        if (name, True) in judged:
            result["controls"].setdefault("permuted_labels", {})[name] = summary(judged[name, True])
    return result


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text; percentile 0 is the best of all cells."""
    print(
        f"{'':<28}{'mean %':>8}  {'95 % interval':>15}{'median':>8}{'worst':>8}{'test':>8}"
        f"{'regret':>8}{'CPU s':>8}"
    )
    rows = [(name, figures) for name, figures in result["strategies"].items()]
    for name, figures in result["controls"].get("permuted_labels", {}).items():
        rows.append((f"{name}, permuted labels", figures))
    for name, figures in rows:
        low, high = figures["mean_percentile_interval"]
        print(
            f"{name:<28}{figures['mean_percentile']:>8.1f}  {f'{low:.1f} to {high:.1f}':>15}"
            f"{figures['median_percentile']:>8.1f}{figures['worst_percentile']:>8.1f}"
            f"{figures['mean_test']:>8.2f}{figures['mean_regret']:>8.2f}"
            f"{figures['seconds']:>8.1f}"
        )
    for name, figures in result["controls"].items():
        if name in CONTROLS:
            continue
        print(
            f"{name:<28}{figures['mean_percentile']:>8.1f}  {'exact':>15}"
            f"{figures['median_percentile']:>8.1f}{'':>8}{figures['mean_test']:>8.2f}"
        )
    for name, figures in result["paired_with_darts"].items():
        low, high = figures["interval"]
        print(
            f"{name} − darts: {figures['mean_difference']:+.1f} ({low:+.1f} to {high:+.1f}), "
            f"better on {figures['better']}, worse on {figures['worse']} of {result['n']} seeds"
        )
    if result["n"] < 10:
        print(f"n is {result['n']}: too few seeds to tell strategies apart; give --seeds 0-9")


def main() -> int:
    """Runs the benchmark; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--space", choices=BENCHMARKS, default="nasbench201")
    parser.add_argument("--table", required=True, help="CSV or npz: architecture, test accuracy")
    parser.add_argument("--images", help="of nasbench201: folder with train*.npz")
    parser.add_argument("--graph", help="of nasbenchgraph: npz of one graph")
    parser.add_argument("--seeds", default="0-9", help="for example 0-9 or 0,3,7")
    parser.add_argument("--strategies", default="cri1,cri2,darts,random")
    parser.add_argument("--control", choices=CONTROLS, help="searches more: on permuted labels")
    parser.add_argument(
        "--restarts", type=int, default=1, help="searches of a seed, of whose cells one is taken"
    )
    parser.add_argument("--keep", help="file of searches that ended, none of which is run again")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: run(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
