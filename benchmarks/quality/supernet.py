"""What a search says of cells, beside what `cells.py` found them to be worth when trained.

    python benchmarks/quality/supernet.py --space point|graph|image --dataset FOLDER \
        --cells cells.jsonl --seed 0 [--trained EPOCHS] [NAME=VALUE ...]
    python benchmarks/quality/supernet.py --space nasbenchgraph|nasbench201 --dataset DATA \
        --cells TABLE

A search by `darts`, which frees nothing, with the settings of a preset. After each quarter of its
epochs the supernet is asked about every cell of the file: the loss and the figure on the alphas'
part with that cell alone switched on (norms by the batch, as no running statistics are a cell's),
and the probability that the alphas give it, the product over its edges. Each is compared with the
mean figure of the cell's trainings by Kendall's τ-b, with an interval over the cells. Beside them
stands how many operations without weights the cell has that would be cut then.

With `--trained EPOCHS` each cell is trained alone for so many epochs instead, as `random_trained`
does with candidates, and compared by its figure on the alphas' part. NAME=VALUE are options of the
search, such as `optimizer=adam`. Of a published TABLE 100 cells at even ranks are asked about, in
searches with the parts and settings of `search_quality.py`, which takes the same DATA and TABLE.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from cells import FAMILIES, LOSS, PRESET
from nasbenchgraph import chosen_keys
from reporting import read_lines, report
from search_quality import BENCHMARKS

from sgas.cells.decisions import CellDecisions, Status, genotype_of
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import SearchConfig, make
from sgas.data import batches, in_order
from sgas.errors import DataError
from sgas.family import Family, Trainable
from sgas.protocols import SearchParts, search_parts
from sgas.running.candidates import open_search
from sgas.running.listeners import Silent
from sgas.running.loop import Loop, Tally, evaluation_step
from sgas.running.machine import environment
from sgas.running.paths import Path as Cells
from sgas.running.runs import Run
from sgas.running.search import Search
from sgas.running.settings import resolve
from sgas.studies.statistics import rank_correlation
from sgas_cnn.nasbench201_text import from_nasbench201
from sgas_gcn.nasbenchgraph_text import architecture_of, from_nasbenchgraph

DEVICE = torch.device("cpu")
SPACES = {**FAMILIES, "nasbenchgraph": "sgas_gcn", "nasbench201": "sgas_cnn"}
NAMED_CELL = {  # the genotype of a name in a table
    "nasbenchgraph": lambda key: from_nasbenchgraph(*architecture_of(int(key))),
    "nasbench201": from_nasbench201,
}
FROM_TABLE = 100  # cells
STAGES = 4
WITHOUT_WEIGHTS = ("skip_connect", "skip", "avg_pool_3x3", "max_pool_3x3")


def known_cells(path: Path, space: SearchSpace) -> tuple[list[Cells], list[float]]:
    """Cells and what each is worth: of a file of `cells.py` the mean figure over its trainings."""
    if space.name in BENCHMARKS:
        table = BENCHMARKS[space.name].read_table(path)
        names = chosen_keys(table, FROM_TABLE)
        genotypes = [NAMED_CELL[space.name](name) for name in names]
        return [_decided(genotype, space) for genotype in genotypes], [table[n] for n in names]
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path} has no trainings: make them by cells.py")
    metric = next(n for n in lines[0] if n.startswith("validation_") and n != LOSS)
    figures: dict[str, list[float]] = {}
    for line in lines:
        figures.setdefault(line["genotype"], []).append(line[metric])
    cells = [_decided(Genotype.from_text(text, space.name), space) for text in figures]
    return cells, [statistics.fmean(values) for values in figures.values()]


def _decided(genotype: Genotype, space: SearchSpace) -> Cells:
    genes = genotype.validate(space).cells
    return {kind: CellDecisions.of_gene(space, gene) for kind, gene in genes.items()}


@torch.no_grad()
def losses_of(
    search: Search, cells: Sequence[Cells], num_samples: int | None = None
) -> tuple[list[float], list[float]]:
    """Loss and primary figure of each cell alone on the alphas' part; the search goes on as it was.

    Chance in it (dropout) is the same for each. Of the part, the first `num_samples` or all.
    """
    network = copy.deepcopy(search.network)
    network.train()
    step = evaluation_step(network, search.labels, DEVICE, "float32")
    source, metric = search.parts.alphas, search.labels.primary_metric
    order = [*in_order(num_samples or len(source), search.batch_size, source.index_device)]
    losses, figures = [], []
    for cell in cells:
        network.select(cell)
        tally = Tally()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            for inputs, targets in batches(source, order, 0, None):
                loss, predictions = step(inputs, targets)
                tally.add(loss, predictions, targets, getattr(inputs, "rows", ()))
        found = tally.figures(search.labels)
        losses.append(found["loss"])
        figures.append(found[metric])
    return losses, figures


def log_probability(cell: Cells, search: Search) -> float:
    """The logarithm of the product of the probabilities of a cell's operations by the alphas."""
    total = 0.0
    for kind, decisions in cell.items():
        logs = torch.log_softmax(search.network.alphas[kind].detach().double(), -1)
        for edge in decisions.with_status(Status.DECIDED):
            op = decisions.states[edge].op
            assert op is not None, "a decided edge has an operation"
            total += float(logs[edge, search.space.operations.index(op)])
    return total


class Asking(Silent):
    """Asks a search about cells at the end of some epochs."""

    def __init__(
        self, search: Search, cells: Sequence[Cells], truth: Sequence[float], stages: Sequence[int]
    ) -> None:
        self.search, self.cells, self.truth, self.stages = search, cells, list(truth), stages
        self.told: list[dict[str, Any]] = []

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Asks, where the epoch is one of the stages."""
        if epoch not in self.stages:
            return
        losses, figures = losses_of(self.search, self.cells)
        said = {
            "loss of the cell alone": [-loss for loss in losses],
            "figure of the cell alone": figures,
            "probability by the alphas": [log_probability(c, self.search) for c in self.cells],
        }
        alphas = {k: v.detach().double() for k, v in self.search.network.alphas.items()}
        cut = self.search.cells.cut(epoch, alphas)
        ops = [state.op for cell in cut.values() for state in cell.states if state.op]
        of_supernet = f"validation_{self.search.labels.primary_metric}"
        self.told.append(
            {
                "epochs": epoch + 1,
                "supernet": metrics[of_supernet],
                "without_weights": sum(op in WITHOUT_WEIGHTS for op in ops) / len(ops),
                "tau": {
                    name: asdict(rank_correlation(values, self.truth))
                    for name, values in said.items()
                },
            }
        )
        print(f"epoch {epoch + 1}: asked about {len(self.cells)} cells", file=sys.stderr)


def strategy_of(options: argparse.Namespace, space: SearchSpace, cells: Sequence[Cells]) -> Any:
    """The options that say which search is asked: of a supernet, or of the cells in training."""
    if options.trained is None:
        return {"strategy": "darts"}
    given = [genotype_of(space, cell) for cell in cells]
    more = {"candidate_epochs": options.trained, "candidates": given}
    return {"strategy": "random_trained", **more}


def opened(
    options: argparse.Namespace, family: Family, asked: Mapping[str, Any]
) -> tuple[Trainable, SearchConfig, SearchParts]:
    """What is searched, with which settings, on which parts."""
    if options.space in BENCHMARKS:
        benchmark = BENCHMARKS[options.space]
        published = benchmark.task(benchmark.load(options.dataset), options.seed, False)
        config = make(SearchConfig, {**benchmark.settings()["search"], **asked})
        return published, config, published.search_parts(DEVICE)
    where = {"dataset": options.dataset, "space": options.space, "preset": options.preset}
    settings = resolve(family, "search", {**where, **asked, "seed": options.seed, "threads": 1})
    task = family.open_task(settings.run, settings.model, settings.data)
    split = settings.run.protocol, options.seed, settings.loop.validation_fraction, DEVICE
    parts = search_parts(task, *split, settings.loop.sees, settings.loop.alphas_from)
    return task, settings.loop, parts


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One search, asked at its stages, or when all cells are trained."""
    began = time.process_time()
    family: Family = import_module(f"{SPACES[options.space]}.family").FAMILY
    space = family.search_space(options.space)
    cells, truth = known_cells(Path(options.cells), space)
    asked = {k: yaml.safe_load(v) for k, v in (one.split("=", 1) for one in options.settings)}
    asked |= strategy_of(options, space, cells)
    torch.set_num_threads(1)
    task, config, parts = opened(options, family, asked)
    more = {"parts": parts, "seed": options.seed, "device": DEVICE, "notes": {}}
    search = open_search(task, config, **more)
    listener, told = Silent(), []
    if isinstance(search, Search):
        stages = [math.ceil(search.num_epochs * n / STAGES) - 1 for n in range(1, STAGES)]
        listener = Asking(search, cells, truth, [*stages, search.num_epochs - 2])
        told = listener.told
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.create(Path(folder) / "run", {"seed": options.seed}) as run,
    ):
        Loop(search, run, listener).execute()
    if not isinstance(search, Search):
        figures = [judged[-1].figure for judged in search.judged]
        worth = [truth[cells.index(cell)] for cell in search.candidates]
        found = {"training of the cell alone": asdict(rank_correlation(figures, worth))}
        told = [{"epochs": options.trained, "tau": found, "figures": figures}]
    return {
        "stages": told,
        "cells": len(cells),
        "seed": options.seed,
        "preset": options.preset,
        "options": options.settings,
        "dataset": Path(options.dataset).name,
        "cpu_seconds": round(time.process_time() - began, 1),
        "environment": environment(DEVICE),
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    print(f"{result['cells']} cells, Kendall's tau with their figure after training:")
    for stage in result["stages"]:
        shown = f"after {stage['epochs']} epochs"
        if "supernet" in stage:
            shown += f": the supernet's own figure {stage['supernet']:.3f}"
            shown += f", {stage['without_weights']:.0%} of the cell to be cut without weights"
        print(shown)
        for name, found in stage["tau"].items():
            shown = "none" if found["tau"] is None else f"{found['tau']:+.2f}"
            if found["low"] is not None:
                shown += f" ({found['low']:+.2f} to {found['high']:+.2f})"
            print(f"  {name:<28}{shown}")


def main() -> int:
    """Runs the search and prints; 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--space", required=True, choices=SPACES)
    parser.add_argument("--dataset", required=True, help="folder, as the family's verbs take it")
    parser.add_argument("--cells", required=True, help="file of trainings by cells.py, or table")
    parser.add_argument("--preset", default=PRESET, help="of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trained", type=int, help="epochs of each cell alone, in its place")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="options of the search")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return report(lambda: measure(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
