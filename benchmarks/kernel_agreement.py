"""Whether a whole search finds with the compiled kernels what it finds with torch's own operators.

Each search of `search_quality.py`, with its images, settings and seeds, runs three times:

- `cpu`: the compiled kernels;
- `torch`: the same supernet on torch's own operators;
- `nudged`: the compiled kernels again, each initial weight made larger or smaller by one rounding
  unit. What changes here is what any other order of sums may change.

    python benchmarks/kernel_agreement.py --images cifar10_small --seeds 0-9 --strategies darts

In float64, the default, rounding is too small to reach a choice: the exit status is 1 where `torch`
found another cell than `cpu`. In float32 searches may part; then the question is whether `torch`
parts from `cpu` further than `nudged` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from search_quality import NUM_EDGES, BenchmarkTask, load_small_images, parse_seeds, searching
from torch import Tensor

from sgas.errors import InputError, unknown_name
from sgas.kernels import use_kernels
from sgas.loop import Silent
from sgas.search import Search
from sgas.strategies import STRATEGIES
from sgas_cnn.augment import ImageAugmentation
from sgas_cnn.nasbench201_text import to_nasbench201

PRECISIONS = ("float64", "float32")
REFERENCE, NUDGED = "cpu", "nudged"
VARIANTS = {REFERENCE: "cpu", "torch": "torch", NUDGED: "cpu"}  # the kernels of each


class Float64Augmentation(ImageAugmentation):
    """The same images, handed on as float64 `[B, C, H, W]`."""

    def prepare(self, images: Tensor) -> Tensor:
        """The images as they are, normalised in float32 as ever."""
        return super().prepare(images).double()


@dataclass
class Trace(Silent):
    """What a search went through, by epoch: probabilities `[edges, operations]` and the loss."""

    search: Search
    probabilities: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Keeps them."""
        (alphas,) = self.search.supernet.alphas.values()
        self.probabilities.append(torch.softmax(alphas.detach().double(), dim=-1))
        self.losses.append(metrics["train_loss"])


@dataclass(frozen=True)
class Outcome:
    """A search that ended: its cell as a string of NAS-Bench-201, its way there, CPU seconds."""

    cell: str
    trace: Trace
    seconds: float

    def apart(self, other: Outcome, epoch: int) -> float:
        """The largest difference of a probability between two searches after an epoch."""
        ours, theirs = (o.trace.probabilities[epoch] for o in (self, other))
        return float((ours - theirs).abs().max())

    def same_edges(self, other: Outcome) -> int:
        """How many of the cell's edges have the same operation."""
        pairs = zip(edges_of(self.cell), edges_of(other.cell), strict=True)
        return sum(ours == theirs for ours, theirs in pairs)


def edges_of(cell: str) -> list[str]:
    """`op~source` of each edge."""
    return [part for part in cell.replace("+", "").split("|") if part]


def nudge(weights: Sequence[Tensor], seed: int) -> None:
    """Multiplies each weight by 1 ± one rounding unit of its type, the sign drawn."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights:
            signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
            weight.mul_(1 + signs * torch.finfo(weight.dtype).eps)


def search_with(
    variant: str, images: np.ndarray, labels: np.ndarray, strategy: str, seed: int, precision: str
) -> Outcome:
    """One search of the benchmark with the kernels of a variant."""
    began = time.process_time()
    use_kernels(VARIANTS[variant])
    task = BenchmarkTask(images, labels, seed, permuted=False)
    if precision == "float64":
        augmentation = task.augmentation
        task.augmentation = Float64Augmentation(
            augmentation.config, augmentation.mean, augmentation.std
        )
    with searching(task, strategy, seed) as search:
        if variant == NUDGED:
            nudge(list(search.supernet.weights()), seed)
        search.listener = trace = Trace(search)
        cell = to_nasbench201(search.execute())
    return Outcome(cell, trace, time.process_time() - began)


def compare(reference: Outcome, other: Outcome) -> dict[str, Any]:
    """What two searches have in common, and when their probabilities parted by 1 %."""
    epochs = range(len(reference.trace.losses))
    apart = [reference.apart(other, epoch) for epoch in epochs]
    return {
        "cell": other.cell,
        "same_cell": other.cell == reference.cell,
        "same_edges": other.same_edges(reference),
        "largest_difference": max(apart),
        "differences": apart,
        "parted_in_epoch": next((epoch for epoch in epochs if apart[epoch] > 0.01), None),
        "last_loss_difference": abs(other.trace.losses[-1] - reference.trace.losses[-1]),
        "seconds": other.seconds,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All searches of all variants, and what they have in common."""
    strategies = options.strategies.split(",")
    for name in strategies:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
    seeds = parse_seeds(options.seeds)
    images, labels = load_small_images(options.images)
    torch.set_default_dtype(getattr(torch, options.precision))
    rows = []
    for strategy in strategies:
        for seed in seeds:
            outcomes = {
                name: search_with(name, images, labels, strategy, seed, options.precision)
                for name in VARIANTS
            }
            reference = outcomes.pop(REFERENCE)
            row = {
                "strategy": strategy,
                "seed": seed,
                "cell": reference.cell,
                "seconds": reference.seconds,
                **{name: compare(reference, other) for name, other in outcomes.items()},
            }
            rows.append(row)
            print(told(row), file=sys.stderr, flush=True)
    return {
        "searches": rows,
        "summary": {s: summary([r for r in rows if r["strategy"] == s]) for s in strategies},
        "precision": options.precision,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def told(row: Mapping[str, Any]) -> str:
    """One search in a line."""
    others = "; ".join(
        f"{name}: {row[name]['same_edges']} of {NUM_EDGES} edges, probabilities "
        f"{row[name]['largest_difference']:.1e} apart"
        for name in VARIANTS
        if name != REFERENCE
    )
    return f"{row['strategy']} seed {row['seed']}: {row['cell']}  {others}"


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one strategy over its seeds."""
    figures: dict[str, Any] = {"n": len(rows)}
    for name in VARIANTS:
        if name == REFERENCE:
            continue
        compared = [row[name] for row in rows]
        figures[name] = {
            "same_cells": sum(c["same_cell"] for c in compared),
            "same_edges": sum(c["same_edges"] for c in compared),
            "edges": NUM_EDGES * len(rows),
            "largest_difference": max(c["largest_difference"] for c in compared),
        }
    return figures


def print_table(result: Mapping[str, Any]) -> None:
    """The summary as text."""
    print(f"{result['precision']}, against the compiled kernels:")
    print(f"{'':<10}{'kernels':<10}{'same cells':>12}{'same edges':>14}{'largest difference':>22}")
    for strategy, figures in result["summary"].items():
        for name in VARIANTS:
            if name == REFERENCE:
                continue
            row = figures[name]
            cells = f"{row['same_cells']} of {figures['n']}"
            edges = f"{row['same_edges']} of {row['edges']}"
            print(
                f"{strategy:<10}{name:<10}{cells:>12}{edges:>14}{row['largest_difference']:>22.1e}"
            )


def main() -> int:
    """Runs the comparison; 1 where float64 searches differ by their kernels, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", required=True, help="folder with train*.npz")
    parser.add_argument("--seeds", default="0-9", help="for example 0-9 or 0,3,7")
    parser.add_argument("--strategies", default="cri2,darts")
    parser.add_argument("--precision", choices=PRECISIONS, default="float64")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        result = run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
    same = all(f["torch"]["same_cells"] == f["n"] for f in result["summary"].values())
    return 0 if same or options.precision == "float32" else 1


if __name__ == "__main__":
    sys.exit(main())
