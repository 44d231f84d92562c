"""Whether a whole search finds with the compiled kernels what it finds with torch's own operators.

Each search of `search_quality.py`, with its images, settings and seeds, runs with the compiled
kernels and again as each of the variants that are asked for:

- `torch`: the same supernet on torch's own operators;
- `nudged`: the compiled kernels, each initial weight made larger or smaller by one rounding unit.
  What changes here is what any other order of sums may change;
- `torch_nudged`: both.

    python benchmarks/kernel_agreement.py --images cifar10_small --seeds 0-9 --strategies darts

In float64, the default, rounding is too small to reach a choice: the exit status is 1 where a
variant found another cell. In float32 searches part, because a ReLU that changes sides moves a
gradient by more than rounding does; then the question is whether `torch` parts further than
`nudged` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from search_quality import (
    BENCHMARKS,
    NUM_EDGES,
    BenchmarkTask,
    load_small_images,
    parse_seeds,
    parse_strategies,
    searching,
)
from torch import Tensor

from sgas.cells.space import NONE
from sgas.deciding.schedule import shown_epoch
from sgas.errors import InputError, unknown_name
from sgas.native.backend import use_kernels
from sgas.running.listeners import Silent
from sgas.running.loop import Loop
from sgas.running.search import Search
from sgas_cnn.augment import ImageAugmentation
from sgas_cnn.config import NASBENCH201_OPERATIONS
from sgas_cnn.nasbench201_text import to_nasbench201

PRECISIONS = ("float64", "float32")
REFERENCE = "cpu"
# The kernels of each, and whether its weights are nudged.
VARIANTS = {
    REFERENCE: ("cpu", False),
    "torch": ("torch", False),
    "nudged": ("cpu", True),
    "torch_nudged": ("torch", True),
}


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
        (alphas,) = self.search.network.alphas.values()
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
    variant: str,
    images: np.ndarray,
    labels: np.ndarray,
    strategy: str,
    seed: int,
    options: argparse.Namespace,
) -> Outcome:
    """One search of the benchmark as a variant has it."""
    began = time.process_time()
    kernels, nudged = VARIANTS[variant]
    use_kernels(kernels)
    task = BenchmarkTask((images, labels), seed, permuted=False)
    if options.precision == "float64":
        augmentation = task.augmentation
        task.augmentation = Float64Augmentation(
            augmentation.config, augmentation.mean, augmentation.std
        )
    settings = BENCHMARKS["nasbench201"].settings()["search"]
    with searching(task, strategy, seed, settings) as (search, folder):
        if not isinstance(search, Search):
            raise InputError(f"strategy {strategy} trains no supernet; give one that does")
        if nudged:
            nudge(list(search.network.weights()), 1000 * options.nudge + seed)
        trace = Trace(search)
        Loop(search, folder, trace).execute()
        cell = to_nasbench201(search.genotype())
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
        "parted_in_epoch": next(
            (shown_epoch(epoch) for epoch in epochs if apart[epoch] > 0.01), None
        ),
        "last_loss_difference": abs(other.trace.losses[-1] - reference.trace.losses[-1]),
        "seconds": other.seconds,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All searches of all variants, and what they have in common."""
    strategies = parse_strategies(options.strategies)
    variants = options.variants.split(",")
    for name in variants:
        if name == REFERENCE or name not in VARIANTS:
            raise unknown_name("variant", name, [v for v in VARIANTS if v != REFERENCE])
    seeds = parse_seeds(options.seeds)
    images, labels = load_small_images(options.images)
    torch.set_default_dtype(getattr(torch, options.precision))
    rows = []
    for strategy in strategies:
        for seed in seeds:
            reference, *others = (
                search_with(name, images, labels, strategy, seed, options)
                for name in (REFERENCE, *variants)
            )
            row = {
                "strategy": strategy,
                "seed": seed,
                "cell": reference.cell,
                "seconds": reference.seconds,
                **{n: compare(reference, other) for n, other in zip(variants, others, strict=True)},
            }
            rows.append(row)
            print(told(row, variants), file=sys.stderr, flush=True)
    return {
        "searches": rows,
        "summary": {
            s: summary([r for r in rows if r["strategy"] == s], variants) for s in strategies
        },
        "precision": options.precision,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def told(row: Mapping[str, Any], variants: Sequence[str]) -> str:
    """One search in a line."""
    others = "; ".join(
        f"{name}: {row[name]['same_edges']} of {NUM_EDGES} edges, probabilities "
        f"{row[name]['largest_difference']:.1e} apart"
        for name in variants
    )
    return f"{row['strategy']} seed {row['seed']}: {row['cell']}  {others}"


def tally(cells: Sequence[str]) -> dict[str, int]:
    """How many edges of some cells have each operation."""
    count = Counter(edge.partition("~")[0] for cell in cells for edge in edges_of(cell))
    return {name: count[name] for name in NASBENCH201_OPERATIONS if name != NONE}


def summary(rows: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> dict[str, Any]:
    """The figures of one strategy over its seeds."""
    figures: dict[str, Any] = {
        "n": len(rows),
        "edges": NUM_EDGES * len(rows),
        REFERENCE: {"operations": tally([row["cell"] for row in rows])},
    }
    for name in variants:
        compared = [row[name] for row in rows]
        figures[name] = {
            "same_cells": sum(c["same_cell"] for c in compared),
            "same_edges": sum(c["same_edges"] for c in compared),
            "largest_difference": max(c["largest_difference"] for c in compared),
            "operations": tally([c["cell"] for c in compared]),
        }
    return figures


def print_table(result: Mapping[str, Any]) -> None:
    """The summary as text; what is the same is so as with the compiled kernels, `cpu`."""
    names = [name for name in NASBENCH201_OPERATIONS if name != NONE]
    print(f"{result['precision']}; the same as with {REFERENCE}, and edges by operation")
    print(f"{'':<24}{'cells':>10}{'edges':>10}{'apart':>10}" + "".join(f"{n:>14}" for n in names))
    for strategy, figures in result["summary"].items():
        for name in VARIANTS:
            if name not in figures:
                continue
            row = figures[name]
            same = ["", "", ""]
            if name != REFERENCE:
                same = [f"{row['same_cells']}/{figures['n']}"]
                same += [f"{row['same_edges']}/{figures['edges']}"]
                same += [f"{row['largest_difference']:.1e}"]
            print(
                f"{f'{strategy} {name}':<24}"
                + "".join(f"{text:>10}" for text in same)
                + "".join(f"{row['operations'][n]:>14}" for n in names)
            )


def main() -> int:
    """Runs the comparison; 1 where float64 cells differ, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", required=True, help="folder with train*.npz")
    parser.add_argument("--seeds", default="0-9", help="for example 0-9 or 0,3,7")
    parser.add_argument("--strategies", default="cri2,darts")
    parser.add_argument("--variants", default="torch,nudged", help="beside cpu; also torch_nudged")
    parser.add_argument("--nudge", type=int, default=0, help="which signs the nudges have")
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
    same = all(
        f[name]["same_cells"] == f["n"]
        for f in result["summary"].values()
        for name in VARIANTS
        if name in f and name != REFERENCE
    )
    return 0 if same or options.precision == "float32" else 1


if __name__ == "__main__":
    sys.exit(main())
