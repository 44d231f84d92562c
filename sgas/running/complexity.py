"""Size and cost of a network: parameters, FLOPs, latency of one sample."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sgas.cells.decisions import CellDecisions, Choice, genotype_of
from sgas.family import Network, Trainable
from sgas.reports import LayerOfNetwork

MOST_REPEATS = 100
BUSY = 0.5  # of the cores, by others: the time of a pass is then theirs too


def num_parameters(network: Network) -> int:
    """The number of trained values of a network as it is used: without an auxiliary head."""
    named = network.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith("auxiliary."))


@torch.no_grad()
def num_flops(network: Network, example: Any) -> int:
    """Floating-point operations of matrix products and convolutions for one sample.

    Counted by `torch.utils.flop_counter` in evaluation mode: 2 for each multiply-add.
    """
    network.eval()
    network(example)  # compiled kernels come with their formulas, which the counter reads once
    with FlopCounterMode(display=False) as counter:
        network(example)
    return int(counter.get_total_flops())


@torch.no_grad()
def layers_of(network: Any, example: Any) -> list[LayerOfNetwork]:
    """The layers and cells of a network, in order, without an auxiliary head.

    A part's shape is that of what it gave for `example`, one sample; empty where it runs as a part
    of what comes before it.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            last = output[-1] if isinstance(output, tuple) else output
            if isinstance(last, torch.Tensor):
                shapes[name] = tuple(last.shape)

        return hook

    parts = dict(_parts(network))
    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        network.eval()
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        LayerOfNetwork(
            name,
            tuple(shapes.get(name, ()))[len(shapes.get(name, ())) > 2 :],
            sum(parameter.numel() for parameter in part.parameters()),
            name.startswith("cell "),
        )
        for name, part in parts.items()
    ]


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with parameters that a network is made of; those of a list by their numbers."""
    named = [
        (name, child)
        for name, child in network.named_children()
        if name != "auxiliary" and next(child.parameters(), None) is not None
    ]
    if len(named) == 1 and not isinstance(named[0][1], nn.ModuleList):
        (_, only) = named[0]
        yield from _parts(only) if next(only.children(), None) is not None else named
        return
    for name, child in named:
        if isinstance(child, nn.ModuleList):
            several = enumerate(child, 1)
            yield from ((f"{name.removesuffix('s')} {number}", part) for number, part in several)
        else:
            yield name, child


def cost_ranks(task: Trainable) -> tuple[int, ...]:
    """The rank of each operation of a space by what it costs, `none` first; equals share one.

    By the parameters, then the FLOPs, of the network whose every edge has it.
    """
    topology = task.space.topology(task.num_steps)
    costs = [(-1, -1)]
    for op in task.space.operations[1:]:
        cell = CellDecisions.none_yet(topology)
        while not cell.complete:
            cell = cell.decide(Choice(cell.undecided[0], op))
        cells = dict.fromkeys(task.space.cell_kinds, cell)
        network = task.build_network(genotype_of(task.space, cells), False)
        costs.append((num_parameters(network), num_flops(network, task.example_input())))
    return tuple(sorted(costs).index(cost) for cost in costs)


@dataclass(frozen=True)
class Latency:
    """Seconds of a forward pass of one sample: median, extremes, how often and on how many threads.

    `load` is how many processes wanted a core over the minute before, as a share of the cores that
    the machine has; None where the system does not tell.
    """

    median: float
    lowest: float
    highest: float
    repeats: int
    threads: int
    load: float | None

    @property
    def busy(self) -> bool:
        """Whether other work took enough of the machine to slow this down."""
        return self.load is not None and self.load > BUSY

    @property
    def shown(self) -> str:
        """The median."""
        return f"{1000 * self.median:.3g} ms"

    @property
    def note(self) -> str:
        """What one has to know to read it."""
        spread = f"{1000 * self.lowest:.3g} to {1000 * self.highest:.3g}"
        busy = f"; the machine was busy (load {self.load:.1f} a core)" if self.busy else ""
        return f"median of {self.repeats} ({spread}) on this machine, threads {self.threads}{busy}"


@torch.no_grad()
def latency(
    network: Network, example: Any, budget: float = 2.0, clock: Callable[[], float] | None = None
) -> Latency:
    """The latency in evaluation mode, measured until `budget` seconds of `clock` have passed.

    One pass warms up; of a network whose pass takes all of the budget it is what counts.
    """
    clock = clock or time.perf_counter
    load = _load()
    network.eval()
    on_gpu = next(network.parameters()).is_cuda
    seconds: list[float] = []
    end = clock() + budget
    while len(seconds) <= MOST_REPEATS:
        began = clock()
        network(example)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(clock() - began)
        if clock() + max(seconds[-1], min(seconds)) > end:
            break
    counted = seconds[1:] or seconds
    middle, threads = statistics.median(counted), torch.get_num_threads()
    return Latency(middle, min(counted), max(counted), len(counted), threads, load)


def _load() -> float | None:
    """The processes that wanted a core over the last minute, as a share of the cores."""
    if not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0] / (os.cpu_count() or 1)
