"""How much the cells of our own spaces differ, beside chance: what a search there can win.

    python benchmarks/quality/cells.py --space point|graph|image --dataset FOLDER --out cells.jsonl

Random cells are trained by a short preset (TRAINING) and measured on a part of the training set
that they have not seen, or on the data set's own validation split; the test split stays closed. The
first `--repeated` cells are trained with a second seed. The variance of a figure is then that
between cells plus that of the rest (seed of the weights, order, augmentation), both estimated
without bias; the best cell of a search that knew everything is about `best - mean`, times the share
of the variance that is the cells' (shrinkage of the best of many noisy figures).

Each training is written to OUT as it ends, a JSON line; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from reporting import add_line, read_lines, report

from sgas import interface
from sgas.cells.decisions import CellDecisions, Choice, genotype_of
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology
from sgas.family import Family
from sgas.running.machine import environment
from sgas.studies.statistics import kendall_tau

FAMILIES = {"point": "sgas_gcn", "graph": "sgas_gcn", "image": "sgas_cnn"}
TRAINING: dict[str, dict[str, Any]] = {
    "point": {
        "num_points": 128,
        "k": 6,
        "num_cells": 2,
        "channels": 16,
        "emb_dims": 128,
        "epochs": 6,
        "validation_fraction": 0.5,
    },
    "graph": {"num_cells": 2, "channels": 32, "epochs": 20},
    "image": {"num_cells": 3, "channels": 8, "epochs": 4, "validation_fraction": 0.5},
}
PRESET = "small"
SEEDS = (0, 1)
LOSS = "validation_loss"


def random_cells(space: SearchSpace, num_steps: int) -> Iterator[Genotype]:
    """Cells without end: open edges in a random order take random operations other than `none`."""
    draw, topology = random.Random(0), space.topology(num_steps)
    while True:
        yield genotype_of(space, {k: _random_cell(draw, space, topology) for k in space.cell_kinds})


def _random_cell(draw: random.Random, space: SearchSpace, topology: CellTopology) -> CellDecisions:
    cell = CellDecisions.none_yet(topology)
    while not cell.complete:
        edge, op = draw.choice(cell.undecided), draw.choice(space.operations[1:])
        cell = cell.decide(Choice(edge, op))
    return cell


def table_settings(space: str, dataset: str) -> dict[str, Any]:
    """The options of all trainings of a space's table."""
    where = {"dataset": dataset, "space": space, "preset": PRESET, "threads": 1}
    return {**where, **TRAINING[space]}


def train(
    family: Family,
    genotype: Genotype,
    seed: int,
    options: Mapping[str, Any],
    test: bool = False,
) -> dict[str, Any]:
    """The figures of the last epoch on the held-out part, parameters and CPU seconds.

    With `test` the primary figure on the test split too, by the weights that the training keeps.
    """
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trained = interface.train(
            family, genotype, out=str(Path(folder) / "run"), seed=seed, quiet=True, **options
        )
        figures = {n: v for n, v in trained.history[-1].items() if n.startswith("validation_")}
        cost = {"parameters": trained.result["parameters"]}
        if test:
            metric = next(n for n in figures if n != LOSS).removeprefix("validation_")
            figures["test"] = trained.evaluate()[metric]
    return {**figures, **cost, "cpu_seconds": round(time.process_time() - began, 1)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains what OUT does not hold yet and sums up."""
    family: Family = import_module(f"{FAMILIES[options.space]}.family").FAMILY
    space = family.search_space(options.space)
    settings = table_settings(options.space, options.dataset)
    num_steps = family.spaces[options.space].model_config().num_steps
    out, stream = Path(options.out), random_cells(space, num_steps)
    cells = [next(stream) for _ in range(options.count)]
    jobs = [(n, SEEDS[0]) for n in range(options.count)]
    jobs += [(n, SEEDS[1]) for n in range(options.repeated)]
    done = {(line["cell"], line["seed"]): line for line in read_lines(out)}
    for number, seed in jobs:
        if (number, seed) in done:
            continue
        line = {"cell": number, "seed": seed, "genotype": cells[number].to_text()}
        line |= train(family, cells[number], seed, settings)
        add_line(out, line)
        done[number, seed] = line
        print(f"{len(done)}/{len(jobs)} trained", file=sys.stderr)
    lines = [done[job] for job in jobs]
    named = {**settings, "dataset": Path(options.dataset).name}
    stamp = {"settings": named, "environment": environment(torch.device("cpu"))}
    metric = next(n for n in lines[0] if n.startswith("validation_") and n != LOSS)
    figures = {name.removeprefix("validation_"): spreads(lines, name) for name in (metric, LOSS)}
    first = [line for line in lines if line["seed"] == SEEDS[0]]
    size = kendall_tau([x["parameters"] for x in first], [x[metric] for x in first])
    return {"figures": figures, "tau_with_parameters": size, "cells": lines, **stamp}


def spreads(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Variances of a figure between and within cells, by moments; what a search can win at most."""
    by_seed = [{x["cell"]: x[name] for x in lines if x["seed"] == seed} for seed in SEEDS]
    first = list(by_seed[0].values())
    pairs = [(by_seed[0][cell], other) for cell, other in by_seed[1].items()]
    within = statistics.fmean((a - b) ** 2 / 2 for a, b in pairs)
    total = statistics.variance(first)
    share = max(0.0, 1 - within / total)
    best = min(first) if name == LOSS else max(first)
    mean = statistics.fmean(first)
    return {
        "n": len(first),
        "pairs": len(pairs),
        "mean": mean,
        "sd_between_cells": (total * share) ** 0.5,
        "sd_between_seeds": within**0.5,
        "share_of_cells": share,
        "best": best,
        "most_to_win": abs(best - mean) * share,
        "tau_between_seeds": kendall_tau(*map(list, zip(*pairs, strict=True))),
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    for name, row in result["figures"].items():
        print(
            f"{name}: mean {row['mean']:.4f}, best {row['best']:.4f} of {row['n']} cells; SD "
            f"between cells {row['sd_between_cells']:.4f}, between seeds "
            f"{row['sd_between_seeds']:.4f} ({row['pairs']} pairs); the most to win "
            f"{row['most_to_win']:.4f}; tau between seeds {row['tau_between_seeds']}"
        )
    print(f"tau of the figure with parameters: {result['tau_with_parameters']}")


def main() -> int:
    """Trains and prints; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--space", required=True, choices=FAMILIES)
    parser.add_argument("--dataset", required=True, help="folder, as the family's verbs take it")
    parser.add_argument("--out", required=True, help="file of results, a JSON line a training")
    parser.add_argument("--count", type=int, default=100, help="cells (default: 100)")
    parser.add_argument("--repeated", type=int, default=30, help="with two seeds (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: measure(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
