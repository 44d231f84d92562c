"""What a step costs: wall time, CPU time, and the bytes that autograd keeps for the backward pass.

All comparisons are ratios plain / ours of runs that alternate in one process, so that a machine
that slows down slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

Action = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and seconds of all threads on the CPU."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


@dataclass(frozen=True)
class Pair:
    """The same thing done by plain and by ours."""

    plain: Any
    ours: Any

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.plain + other.plain, self.ours + other.ours)


def cost_of(action: Action) -> Cost:
    """What one call costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def interleaved(actions: Mapping[str, Pair], repeats: int) -> dict[str, list[Pair]]:
    """The costs of each pair of actions, one pair a repeat; the caller has warmed them up.

    Who comes first changes from repeat to repeat.
    """
    found: dict[str, list[Pair]] = {name: [] for name in actions}
    for repeat in range(repeats):
        for name, action in actions.items():
            if repeat % 2:
                plain = cost_of(action.plain)
                ours = cost_of(action.ours)
            else:
                ours = cost_of(action.ours)
                plain = cost_of(action.plain)
            found[name].append(Pair(plain, ours))
    return found


def summary(costs: Iterable[Pair]) -> dict[str, Any]:
    """Median ratios of CPU and wall time with their smallest and largest, median milliseconds."""
    costs = list(costs)
    cpu = [pair.plain.cpu / pair.ours.cpu for pair in costs]
    wall = [pair.plain.wall / pair.ours.wall for pair in costs]
    return {
        "cpu_ratio": statistics.median(cpu),
        "wall_ratio": statistics.median(wall),
        "spread": [min(cpu), max(cpu)],
        "wall_spread": [min(wall), max(wall)],
        "plain_cpu_ms": 1e3 * statistics.median(pair.plain.cpu for pair in costs),
        "ours_cpu_ms": 1e3 * statistics.median(pair.ours.cpu for pair in costs),
    }


def saved_bytes(action: Action, given: Any) -> int:
    """The bytes of all storages that autograd saves while `action` runs, each counted once.

    Storages of the tensors in `given` (parameters, buffers, inputs) do not count: they exist
    anyway. What a function keeps without `save_for_backward` is not seen.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(given)}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # alive to the end, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        action()
    return sum(storage.nbytes() for storage in kept.values())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a value: containers, modules and dataclasses are looked into."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value):
        cached = getattr(value, "__dict__", {})  # what a graph has computed of itself lives as long
        yield from tensors_in([getattr(value, field.name) for field in fields(value)])
        yield from tensors_in(cached)
