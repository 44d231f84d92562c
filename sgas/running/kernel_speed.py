"""How much faster the compiled kernels are on this machine: a search step by them and by torch."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sgas.errors import InputError
from sgas.family import Family
from sgas.native import backend
from sgas.protocols import search_parts
from sgas.running.search import Search
from sgas.running.settings import resolve

REPEATS, WARM_UP = 5, 2
GENERATED = "demo"  # the default preset of data sets that need no download


@dataclass(frozen=True)
class Speed:
    """CPU time of a search step by torch's operators over that by compiled kernels.

    `ratio` is the median of `repeats` pairs that took turns, `low` and `high` their range;
    `milliseconds` is the median of the compiled kernels' steps, on `threads` threads.
    """

    ratio: float
    low: float
    high: float
    milliseconds: float
    repeats: int
    threads: int

    def __str__(self) -> str:
        return (
            f"a search step takes {self.ratio:.2f} times less CPU time by compiled kernels than by "
            f"torch ({self.low:.2f} to {self.high:.2f} in {self.repeats} repeats, {self.threads} "
            f"threads, {self.milliseconds:.0f} ms)"
        )


def kernel_speeds(family: Family) -> dict[str, Speed]:
    """The speed in each compiled space of a family, by preset `demo` on data that it generates.

    Spaces whose operations are torch's or PyG's alone tell nothing of kernels.
    """
    compiled = [name for name, space in family.spaces.items() if space.compiled]
    datasets = {space: _generated(family, space) for space in compiled}
    return {space: _speed(family, space, name) for space, name in datasets.items() if name}


def _generated(family: Family, space: str) -> str | None:
    for name in family.datasets:
        with contextlib.suppress(InputError):
            fits = family.space_of(name, space) == space
            if fits and family.default_preset(name, space) == GENERATED:
                return name
    return None


def _speed(family: Family, space: str, dataset: str) -> Speed:
    before = backend.chosen()
    try:
        steps = {kind: _steps(family, space, dataset, kind) for kind in ("torch", "cpu")}
        pairs = []
        for repeat in range(WARM_UP + REPEATS):
            order = list(steps) if repeat % 2 else list(reversed(steps))
            seconds = {kind: _seconds_of(steps[kind], kind) for kind in order}
            pairs.append(seconds)
    finally:
        backend.use_kernels(before)
    counted = pairs[WARM_UP:]
    ratios = [pair["torch"] / pair["cpu"] for pair in counted]
    return Speed(
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        1000 * statistics.median(pair["cpu"] for pair in counted),
        REPEATS,
        torch.get_num_threads(),
    )


def _seconds_of(steps: Iterator[Any], kind: str) -> float:
    backend.use_kernels(kind)
    began = time.process_time()
    next(steps)
    return time.process_time() - began


def _steps(family: Family, space: str, dataset: str, kind: str) -> Iterator[Any]:
    """The steps of a search with nothing decided, without end."""
    backend.use_kernels(kind)
    options = {"dataset": dataset, "space": space, "preset": GENERATED, "device": "cpu"}
    settings = resolve(family, "search", options)
    run, device = settings.run, torch.device("cpu")
    task = family.open_task(run, settings.model, settings.data)
    fraction = settings.loop.validation_fraction
    parts = search_parts(task, run.protocol, run.seed, fraction, device)
    search = Search(task, settings.loop, parts=parts, seed=run.seed, device=device, notes={})
    while True:
        yield from search.steps(0, 0)
