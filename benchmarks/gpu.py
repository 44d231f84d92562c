"""What is claimed of a GPU, by one command: whole searches, a training step, decisions in bf16.

    python benchmarks/gpu.py [--minutes 12] [--keep FILE] [--images FOLDER] [--clouds FOLDER]

- `image_search`, `cloud_search`: the paper's search on data of the size of CIFAR-10 and ModelNet10,
  from start to end, with the cell that it finds. Without a folder the data are noise of that size,
  and the cell says nothing. One that does not end in its time is stopped, and its whole time is an
  estimate from the epochs that it had.
- `training_step`: a step of the published CIFAR-10 network, batch 96, by us in bf16 and by the
  plain form through torch.compile in bf16 with channels_last.
- `agreement`: searches on the digits in float32, again in float32 and in bf16, by seed: on how
  many edges their cells have the same operation.

Each part is a process of its own, so that one that fails or hangs costs the others nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_search_step import cpu_name
from contest import OurTraining
from reporting import add_line, read_lines
from search_time import Clock, a_device
from settings import FAMILIES

from sgas.deciding.schedule import Schedule
from sgas.errors import Interrupted
from sgas.family import Family
from sgas.interface import search
from sgas.running.capture import AS_EVER, CudaGraphs, captured
from sgas.running.run_results import SearchResult
from sgas.running.settings import open_settings
from sgas_cnn.family import FAMILY as CNN
from sgas_gcn.family import FAMILY as GCN

# What a small search takes in place of the paper's epochs and sizes, to see that it runs.
QUICK: dict[str, Any] = {
    "channels": 4,
    "warmup_epochs": 0,
    "decision_interval": 1,
    "final_epochs": 0,
    "batch_size": 16,
}
SEEDS, REPEATS, STEPS = 10, 5, 10
TO_STOP = 60  # seconds for a part that is asked to stop


@dataclass(frozen=True)
class Searched:
    """A search whose whole time is measured: its family, and noise of its data's size."""

    family: Family
    array: str
    shape: tuple[int, ...]
    count: int
    quick: Mapping[str, Any]

    def noise(self, folder: Path, count: int) -> Path:
        """A folder of one's own with noise of ten classes."""
        draw = np.random.default_rng(0)
        for split, size in (("train", count), ("test", 20)):
            samples: Any = draw.normal(size=(size, *self.shape)).astype(np.float32)
            if self.array == "image":
                samples = draw.integers(0, 256, (size, *self.shape), np.uint8)
            arrays: dict[str, Any] = {"label": np.arange(size) % 10, self.array: samples}
            np.savez(folder / f"{split}.npz", **arrays)
        return folder


SEARCHES = {
    "image_search": Searched(CNN, "image", (32, 32, 3), 50_000, {"num_cells": 3}),
    "cloud_search": Searched(
        GCN,
        "points",
        (1024, 3),
        3991,
        {"num_points": 32, "k": 3, "emb_dims": 8, "num_cells": 1, "num_steps": 1},
    ),
}


def whole_search(searched: Searched, folder: Path | None, device: str, quick: bool) -> Any:
    """Seconds of a whole search and its cell; of one that is stopped, those of its epochs."""
    options = {**QUICK, **searched.quick} if quick else {}
    with tempfile.TemporaryDirectory() as place:
        count = 60 if quick else searched.count
        data = folder or searched.noise(Path(place), count)
        out = Path(place, "run")
        began = time.perf_counter()
        with contextlib.suppress(Interrupted):
            search(
                searched.family,
                str(data),
                preset="paper",
                device=device,
                out=str(out),
                quiet=True,
                **options,
            )
        seconds = time.perf_counter() - began
        result = SearchResult.from_run(searched.family, out)
        settings, _ = open_settings(searched.family, out)
    topology = searched.family.search_space(result.genotype.space).topology(
        settings.model.num_steps
    )
    costs = Schedule.of(settings.loop, topology).expected_costs(frees_edges=True)
    done = len(result.history)
    return {
        "data": "noise" if folder is None else folder.name,
        "epochs": done,
        "of": len(costs),
        "seconds": seconds,
        "whole_s": seconds * sum(costs) / sum(costs[:done]),
        "cell": result.genotype.to_text(),
    }


def training_step(device: torch.device, quick: bool) -> Any:
    """Milliseconds of a training step of the published network, ours and torch.compile's."""
    family = FAMILIES["image"]
    size = {**family.paper, **family.derived, "batch": 96}
    if quick:
        size |= {"channels": 4, "cells": 3, "batch": 4}
    torch.manual_seed(0)
    recorder = CudaGraphs(device) if device.type == "cuda" else None
    contest = family.derived_contest(size, device, "bf16", recorder)
    ours, plain, batch = contest.ours, contest.plain, contest.batches[0]
    assert isinstance(ours, OurTraining)
    (our_step,) = captured(recorder, ours.training.train_step)
    network: Any = plain.network
    network.to(memory_format=torch.channels_last)
    images = batch.plain[0].to(memory_format=torch.channels_last)
    # To compile takes minutes, and at tiny sizes nothing is to be claimed.
    network.compile(backend="eager" if quick else "inductor")

    def our_training() -> None:
        our_step(batch.ours, batch.targets)

    def plain_step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            plain.loop.weight_step((images,), batch.targets)

    steps = {"ours": our_training, "torch_compile": plain_step}
    clock = Clock(device)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        clock.seconds(step, 1 if quick else AS_EVER + 2)
    times = 1 if quick else STEPS
    for _ in range(1 if quick else REPEATS):
        for name, step in steps.items():
            taken[name].append(1e3 * clock.seconds(step, times) / times)
    return {
        "batch": size["batch"],
        **{f"{name}_ms": statistics.median(found) for name, found in taken.items()},
        **{f"{name}_spread": [min(found), max(found)] for name, found in taken.items()},
    }


def agreement(device: str, quick: bool, tell: Callable[[Any], None]) -> None:
    """By seed, on how many edges cells agree with that of float32: again in it, and in bf16."""
    options = {**QUICK, "num_cells": 3} if quick else {}
    for seed in range(1 if quick else SEEDS):
        found = []
        for precision in ("float32", "float32", "bf16"):
            with tempfile.TemporaryDirectory() as place:
                noise = SEARCHES["image_search"].noise(Path(place), 60) if quick else None
                result = search(
                    CNN,
                    str(noise or "digits"),
                    preset="demo",
                    device=device,
                    precision=precision,
                    seed=seed,
                    out=f"{place}/run",
                    quiet=True,
                    **options,
                )
            found.append(
                [edge.op for gene in result.genotype.cells.values() for edge in gene.edges]
            )
        first, again, bf16 = found
        same = [sum(map(str.__eq__, first, other)) for other in (again, bf16)]
        tell({"seed": seed, "edges": len(first), "float32_again": same[0], "bf16": same[1]})


def parts(options: argparse.Namespace) -> dict[str, Callable[[Callable[[Any], None]], None]]:
    """What is measured by name, in order; each tells its lines."""
    device, quick = options.device, options.quick
    folders = {"image_search": options.images, "cloud_search": options.clouds}

    def whole(name: str, tell: Callable[[Any], None]) -> None:
        tell(whole_search(SEARCHES[name], folders[name], str(device), quick))

    return {
        "cloud_search": partial(whole, "cloud_search"),
        "training_step": lambda tell: tell(training_step(device, quick)),
        "image_search": partial(whole, "image_search"),
        "agreement": lambda tell: agreement(str(device), quick, tell),
    }


# Of the time that is given: the most that a part gets. What one leaves is the last one's.
SHARES, LAST = {"cloud_search": 0.15, "training_step": 0.2, "image_search": 0.5}, "agreement"


def measure_part(name: str, options: argparse.Namespace, seconds: float) -> str | None:
    """Runs a part in a process of its own for so long at most; why it failed, or None."""
    words = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                _, said = process.communicate(timeout=TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                return f"did not stop after {seconds:.0f} s"
    stopped = process.returncode in (-signal.SIGINT, 130)
    last = (said.strip().splitlines() or [""])[-1]
    return f"stopped after {seconds:.0f} s" if stopped else last if process.returncode else None


def settings_of(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def print_table(lines: list[dict[str, Any]]) -> None:
    """What was measured, a line each."""
    for line in lines:
        where = f"{line['device']}, torch {line['torch']}, CUDA {line['cuda']}"
        shown = {k: v for k, v in line.items() if k not in ("part", "device", "torch", "cuda")}
        told = ", ".join(
            f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
        )
        print(f"{line['part']:<14} {told}  [{where}]")


def main() -> int:
    """Measures all parts, or the one that is named; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", type=a_device, default="cuda")
    parser.add_argument("--minutes", type=float, default=12, help="for all parts together")
    parser.add_argument("--keep", type=Path, default=Path("gpu.jsonl"), help="file of results")
    parser.add_argument("--images", type=Path, help="a folder of images in place of noise")
    parser.add_argument("--clouds", type=Path, help="a folder of clouds in place of noise")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--only", choices=[*SHARES, LAST], help="this part alone, however long")
    options = parser.parse_args()
    about = settings_of(options.device)

    def tell(part: str, line: Mapping[str, Any]) -> None:
        add_line(options.keep, {"part": part, **line, **about})

    known = parts(options)
    if options.only:
        known[options.only](partial(tell, options.only))
        return 0
    end, failed = time.monotonic() + 60 * options.minutes, False
    for name in known:
        left = end - time.monotonic() - TO_STOP
        seconds = min(left, 60 * options.minutes * SHARES.get(name, 1))
        why = measure_part(name, options, max(seconds, 1))
        if why:
            tell(name, {"failed": why})
            failed = True
    print_table(read_lines(options.keep))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
