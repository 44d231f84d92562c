"""What searches found, trained as the cells of a table are (`cells.py`), each several times.

    python benchmarks/quality/found.py --space point|graph|image --dataset FOLDER \
        --found image-space.jsonl --out trainings.jsonl [--trainings 3]

FOUND has a JSON line for each search: its strategy, its seed and its genotype. A figure of a search
is the mean test figure over the trainings of its cell, so that less of what strategies differ by is
the chance of a training. The first strategy is compared with the others by paired differences over
the seeds of searches; those of a seed are trained with the same seeds.

Each training is written to OUT as it ends, a JSON line; the same command goes on where it stopped,
and trains again what other settings, data or cells made.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from cells import FAMILIES, table_settings, train
from graph_classification import paired
from reporting import kept, read_lines, report

from sgas.cells.genotype import Genotype
from sgas.errors import DataError, InputError
from sgas.family import Family
from sgas.running.machine import environment

TRAINING_SEEDS = 1000  # of training n of search s: s + 1000 n


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains what OUT does not hold yet and sums up."""
    family: Family = import_module(f"{FAMILIES[options.space]}.family").FAMILY
    searches = read_lines(Path(options.found))
    if not searches:
        raise DataError(f"{options.found} has no searches: a JSON line each is needed")
    if options.trainings < 1:
        raise InputError(f"--trainings is {options.trainings}; at least 1 is needed")
    settings = table_settings(options.space, options.dataset)
    named = {**settings, "dataset": Path(options.dataset).name}
    lines = []
    for number in range(options.trainings):
        for search in searches:
            genotype = Genotype.from_text(search["genotype"], options.space)
            key = {"strategy": search["strategy"], "seed": search["seed"], "training": number}
            asked = {**key, "cell": genotype.content_hash, "settings": named}
            seed = search["seed"] + TRAINING_SEEDS * number
            trained = partial(train, family, genotype, seed, settings, test=True)
            lines.append({**key, **kept(options.out, asked, trained)})
            total = len(searches) * options.trainings
            print(f"{len(lines)}/{total}: {lines[-1]['test']:.4f}", file=sys.stderr)
    stamp = {"settings": named, "environment": environment(torch.device("cpu"))}
    return {**summary(lines), **stamp}


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and SD over searches by strategy, SD of trainings, the first strategy less others."""
    figures: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        figures.setdefault(line["strategy"], {}).setdefault(line["seed"], []).append(line["test"])
    worth = {
        name: {seed: statistics.fmean(tests) for seed, tests in sorted(found.items())}
        for name, found in figures.items()
    }
    several = [tests for found in figures.values() for tests in found.values() if len(tests) > 1]
    first = next(iter(worth))
    return {
        "strategies": {
            name: {
                "n": len(found),
                "mean": statistics.fmean(found.values()),
                "sd": statistics.stdev(found.values()) if len(found) > 1 else None,
                "seeds": found,
            }
            for name, found in worth.items()
        },
        "sd_between_trainings": (
            statistics.fmean(statistics.variance(tests) for tests in several) ** 0.5
            if several
            else None
        ),
        "first_less": {
            name: paired([worth[first][seed] for seed in both], [found[seed] for seed in both])
            for name, found in worth.items()
            if name != first and len(both := sorted(worth[first].keys() & found.keys())) > 1
        },
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    for name, row in result["strategies"].items():
        spread = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
        less = result["first_less"].get(name)
        apart = "" if less is None else f", first less it {less['difference']:+.4f}"
        apart += "" if less is None else f" ± {less['half_interval']:.4f} (paired, 95 %)"
        print(f"{name}: {row['mean']:.4f}{spread} over {row['n']} searches{apart}")
    print(f"SD between trainings of one cell: {result['sd_between_trainings']}")


def main() -> int:
    """Trains and prints; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--space", required=True, choices=FAMILIES)
    parser.add_argument("--dataset", required=True, help="folder, as the family's verbs take it")
    parser.add_argument("--found", required=True, help="file of searches, a JSON line each")
    parser.add_argument("--out", required=True, help="file of results, a JSON line a training")
    parser.add_argument("--trainings", type=int, default=3, help="of each cell (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: measure(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
