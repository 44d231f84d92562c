"""Where the time of our search step goes, operator by operator, against a counted floor.

    python benchmarks/profile_search_step.py --family point|graph|image [--threads N] [--json]

On the CPU, at the batch of the paper's search. The floor of an operator is the larger of two times:
its FLOPs at the rate of a matrix product, and its bytes at the rate of large reads, both measured
here. README.md beside this file says what is counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bench_search_step import cpu_name, search_contest
from contest import OurSearch
from rates import rates
from reporting import report
from settings import FAMILIES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sgas.native.allocator import keep_freed_memory

PARTS = ("alpha_step", "weight_step")
REPEATS, WARM_UP = 5, 2
SHOWN = 20  # operators that the table names


@dataclass
class Cost:
    """What the calls of an operator took, and what they have to do at least."""

    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0

    def __iadd__(self, other: Cost) -> Cost:
        self.calls += other.calls
        self.seconds += other.seconds
        self.flops += other.flops
        self.bytes += other.bytes
        return self


class Profile(TorchDispatchMode):
    """Costs by operator of all that torch dispatches while the mode is on, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, Cost] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operator and adds its cost."""
        kwargs = kwargs or {}
        began = time.process_time()
        out = func(*args, **kwargs)
        seconds = time.process_time() - began
        flops, moved = flops_of(func, args, kwargs, out), bytes_of(func, args, kwargs, out)
        name = str(func._overloadpacket)
        self.costs[name] = self.costs.get(name, Cost())
        self.costs[name] += Cost(1, seconds, flops, moved)
        return out


def flops_of(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """The matrix products and convolutions of a call, as torch's counter has them.

    That knows `addmm` and not `addmm_`.
    """
    packet = torch.ops.aten.addmm if func is torch.ops.aten.addmm_.default else func._overloadpacket
    count = flop_registry.get(packet)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))


def bytes_of(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """The bytes of all that a call is given and returns, once each; twice what it changes.

    Views move nothing, nor does memory that is only taken.
    """
    schema = func._schema
    views = any(result.alias_info and not result.alias_info.is_write for result in schema.returns)
    if views or "empty" in schema.name:
        return 0
    seen: dict[tuple[int, int], int] = {}
    changed = 0
    for argument, value in zip(schema.arguments, [*args], strict=False):
        for tensor in tensors_of(value):
            size = tensor.numel() * tensor.element_size()
            seen[tensor.data_ptr(), size] = size
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed += size
    for tensor in tensors_of([out, *kwargs.values()]):
        size = tensor.numel() * tensor.element_size()
        seen[tensor.data_ptr(), size] = size
    return sum(seen.values()) + changed


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def profile(family: str, size: Mapping[str, Any], repeats: int) -> dict[str, dict[str, Any]]:
    """Of each part of a step: milliseconds of the whole, and the median costs by operator."""
    contest = search_contest(FAMILIES[family], size)
    ours, batches = contest.ours, contest.batches
    assert isinstance(ours, OurSearch)
    parts = dict(zip(PARTS, batches, strict=True))
    whole: dict[str, list[float]] = {part: [] for part in PARTS}
    runs: dict[str, list[dict[str, Cost]]] = {part: [] for part in PARTS}
    for turn in range(WARM_UP + repeats):
        for part, batch in parts.items():
            began = time.process_time()
            getattr(ours, part)(batch)
            seconds = time.process_time() - began
            with Profile() as found:
                getattr(ours, part)(batch)
            if turn >= WARM_UP:
                whole[part].append(1e3 * seconds)
                runs[part].append(found.costs)
    return {
        part: {"ms": statistics.median(whole[part]), "operators": medians(runs[part])}
        for part in PARTS
    }


def medians(runs: list[dict[str, Cost]]) -> dict[str, Any]:
    """By operator: calls, median milliseconds, FLOPs and bytes, the dearest first."""
    found = {
        name: {
            "calls": cost.calls,
            "ms": 1e3 * statistics.median(run[name].seconds for run in runs if name in run),
            "flops": cost.flops,
            "bytes": cost.bytes,
        }
        for name, cost in runs[-1].items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]["ms"]))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    keep_freed_memory()
    family = FAMILIES[options.family]
    size = {**family.paper, **(family.small if options.quick else {})}
    product_rate, read_rate = rates()
    return {
        **profile(options.family, size, options.repeats),
        "settings": {
            "family": options.family,
            "size": dict(size),
            "repeats": options.repeats,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cpu": cpu_name(),
            "gflop_s": product_rate / 1e9,
            "gb_s": read_rate / 1e9,
        },
    }


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text: both parts of a step, and the floors of the two together."""
    settings = result["settings"]
    flop_rate, byte_rate = settings["gflop_s"] * 1e6, settings["gb_s"] * 1e6  # a millisecond
    print(", ".join(f"{name} {value}" for name, value in settings["size"].items()))
    print(
        f"torch {settings['torch']}, {settings['threads']} threads, {settings['cpu']}; products "
        f"{settings['gflop_s']:.0f} GFLOP/s, reads {settings['gb_s']:.0f} GB/s\n\n"
        f"{'operator':<36}{'calls':>7}{'alpha ms':>10}{'weight ms':>11}"
        f"{'FLOPs ms':>10}{'bytes ms':>10}"
    )
    parts = [result[part]["operators"] for part in PARTS]
    names = sorted(
        {name for part in parts for name in part},
        key=lambda name: -sum(part[name]["ms"] for part in parts if name in part),
    )
    nothing = {"calls": 0, "ms": 0.0, "flops": 0, "bytes": 0}
    total = dict.fromkeys(("calls", "alpha", "weight", "flops", "bytes"), 0.0)

    def line(name: str, given: Mapping[str, float]) -> str:
        return (
            f"{name:<36}{given['calls']:>7.0f}{given['alpha']:>10.1f}{given['weight']:>11.1f}"
            f"{given['flops'] / flop_rate:>10.1f}{given['bytes'] / byte_rate:>10.1f}"
        )

    rows = []
    for name in names:
        alpha, weight = (part.get(name, nothing) for part in parts)
        row = {key: alpha[key] + weight[key] for key in ("calls", "flops", "bytes")}
        rows.append((name, {**row, "alpha": alpha["ms"], "weight": weight["ms"]}))
        total = {key: total[key] + rows[-1][1][key] for key in total}
    for name, row in rows[:SHOWN]:
        print(line(name, row))
    if rest := rows[SHOWN:]:
        print(line(f"{len(rest)} others", {key: sum(r[key] for _, r in rest) for key in total}))
    spent = [result[part]["ms"] for part in PARTS]
    outside = [whole - total[key] for whole, key in zip(spent, ("alpha", "weight"), strict=True)]
    print(f"{'Python, autograd, dispatch':<43}{outside[0]:>10.1f}{outside[1]:>11.1f}")
    print(
        f"{'step':<43}{spent[0]:>10.1f}{spent[1]:>11.1f}"
        f"{total['flops'] / flop_rate:>10.1f}{total['bytes'] / byte_rate:>10.1f}"
    )


def main() -> int:
    """Runs the profile; 2 for wrong input, 1 where it cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--family", required=True, choices=FAMILIES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default: {REPEATS}")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all that torch takes)")
    parser.add_argument("--quick", action="store_true", help="a small batch")
    options = parser.parse_args()
    if min(options.repeats, options.threads or 1) < 1:
        parser.error("--repeats and --threads take at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    return report(lambda: run(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
