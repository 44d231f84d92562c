"""How long a whole search takes on a device: plain, ours, and ours as CUDA graphs.

    python benchmarks/search_time.py --family point|graph|image [--device cuda] [--json]

All steps of a search between two decisions are alike: of each such stage some are timed, at its
batch, and counted as often as the paper's search of the family's data set takes them. README.md
beside this file says what the figures mean.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from bench_search_step import cpu_name, search_contest
from contest import Batch, Contest, OurSearch, Plain, decisions_at
from reporting import report
from settings import FAMILIES, FamilySettings

from sgas.config import SearchConfig
from sgas.data import BatchOrder
from sgas.deciding.schedule import Schedule
from sgas.errors import ConfigError
from sgas.native.allocator import keep_freed_memory
from sgas.running.capture import AS_EVER, CudaGraphs, can_repeat, captured
from sgas.running.settings import load_preset

Step = Callable[[], None]
REPEATS, STEPS = 3, 5
NAMES = {"plain": "plain", "ours": "ours", "graphs": "ours, CUDA graphs"}


def stages_of(family: FamilySettings) -> list[dict[str, int]]:
    """Of each stage of the paper's search: decisions made, epochs, batch size, steps an epoch."""
    home = import_module(f"{family.package}.family").FAMILY
    preset = load_preset(home, family.space.name, "paper", "search")
    names = SearchConfig.__dataclass_fields__
    config = SearchConfig(**{name: value for name, value in preset.items() if name in names})
    schedule = Schedule.of(config, family.space.topology(family.num_steps))
    ends = [epoch + 1 for epoch in schedule.decision_epochs] + [schedule.num_epochs]
    order = BatchOrder(family.half, 0, "weights", torch.device("cpu"))
    found = []
    for made, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        batch = min(config.batch_size + config.batch_increase * made, family.half)
        steps = order.num_batches(batch)
        found.append({"decided": made, "epochs": end - start, "batch": batch, "steps": steps})
    return [stage for stage in found if stage["epochs"]]


def both_steps(player: Plain | OurSearch, batches: list[Batch]) -> Step:
    """An alpha step and a weight step."""
    for_alphas, for_weights = batches

    def step() -> None:
        player.alpha_step(for_alphas)
        player.weight_step(for_weights)

    return step


def graph_steps(ours: OurSearch, batches: list[Batch]) -> Step:
    """The same by CUDA graphs, which the first calls make."""
    search = ours.search
    alpha_step, weight_step = captured(search.recorder, search.alpha_step, search.weight_step)
    for_alphas, for_weights = batches

    def step() -> None:
        alpha_step(for_alphas.ours, for_alphas.targets)
        weight_step(for_weights.ours, for_weights.targets)

    return step


def repeated(family: FamilySettings, contest: Contest, made: int, size: Any) -> OurSearch:
    """A supernet like that of the contest whose steps are recorded."""
    ours = contest.ours
    assert isinstance(ours, OurSearch)
    device = ours.search.device
    twin = OurSearch(family.models(size), family.learning_rate, device, CudaGraphs(device))
    if made:
        twin.decide(decisions_at(family.space, family.num_steps, made))
    twin.network.load_state_dict(ours.network.state_dict())
    return twin


class Clock:
    """Times steps on a device, which has nothing else to do when the clock starts and stops."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, step: Step, times: int) -> float:
        """Seconds of `times` steps together."""
        self.wait()
        began = time.perf_counter()
        for _ in range(times):
            step()
        self.wait()
        return time.perf_counter() - began

    def peak_mib(self, step: Step) -> float | None:
        """What a step allocates on a GPU at most beside what was there, in MiB; None on the CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        step()
        self.wait()
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20


def time_stage(
    family: FamilySettings, stage: Mapping[str, int], options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds of a search step of a stage for each player, with their spread."""
    device, clock = options.device, Clock(options.device)
    size = {**family.paper, **(family.small if options.quick else {"batch": stage["batch"]})}
    contest = search_contest(family, size, stage["decided"], device)
    batches = list(contest.batches)
    assert isinstance(contest.ours, OurSearch)
    steps: dict[str, Step] = {}
    if "plain" in options.players:
        steps["plain"] = both_steps(contest.plain, batches)
    if "ours" in options.players:
        steps["ours"] = both_steps(contest.ours, batches)
    # The first step compiles kernels and makes what is made once.
    first = {name: clock.seconds(step, 1) for name, step in steps.items()}
    peak = {name: clock.peak_mib(step) for name, step in steps.items()}
    record_ms = None
    if "graphs" in options.players and device.type == "cuda" and can_repeat(batches[0].ours):
        step = graph_steps(repeated(family, contest, stage["decided"], size), batches)
        first["graphs"] = clock.seconds(step, AS_EVER)
        torch.cuda.empty_cache()
        reserved = torch.cuda.memory_reserved(device)
        record_ms = 1e3 * clock.seconds(step, 1)
        peak["graphs"] = (torch.cuda.memory_reserved(device) - reserved) / 2**20
        steps["graphs"] = step
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats):
        names = list(steps) if repeat % 2 else list(steps)[::-1]
        for name in names:
            taken[name].append(1e3 * clock.seconds(steps[name], options.steps) / options.steps)
    return {
        **stage,
        "batch": size["batch"],
        "players": {
            name: {
                "ms": statistics.median(taken[name]),
                "spread": [min(taken[name]), max(taken[name])],
                "first_s": first[name],
                "record_ms": record_ms if name == "graphs" else None,
                "mib": peak[name],
            }
            for name in steps
        },
    }


def whole_search(
    stages: Sequence[Mapping[str, int]], timed: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Seconds of the steps of all `stages` for each player.

    Stages that were not timed lie between those that were, in proportion to the decisions made;
    graphs take the steps of each stage as ever that come before a capture, and the capture.
    """
    total: dict[str, float] = {}
    for stage in stages:
        steps = stage["epochs"] * stage["steps"]
        for name in timed[0]["players"]:
            ms = steps * _between(timed, stage["decided"], name, "ms")
            if name == "graphs":
                # At most the time of a capture, which launches what they launch.
                once = _between(timed, stage["decided"], name, "record_ms")
                ms = (steps - AS_EVER - 1) * ms / steps + (AS_EVER + 1) * once
            total[name] = total.get(name, 0) + ms / 1e3
    return total


def _between(timed: Sequence[Mapping[str, Any]], decided: int, name: str, figure: str) -> float:
    """A figure of a player after some decisions, on the line between the stages timed."""
    places = [stage["decided"] for stage in timed]
    values = [stage["players"][name][figure] for stage in timed]
    return float(np.interp(decided, places, values))


def run(options: argparse.Namespace, tell: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """All figures that were asked for; `tell` gets those of a stage as soon as they are there."""
    family = FAMILIES[options.family]
    stages = stages_of(family)
    asked = options.stages or [stage["decided"] for stage in stages]
    known = {stage["decided"]: stage for stage in stages}
    for decided in asked:
        if decided not in known:
            raise ConfigError(
                f"there is no stage after {decided} decisions; give some of "
                f"{' '.join(map(str, known))}"
            )
    timed = []
    for decided in sorted(set(asked)):
        timed.append(time_stage(family, known[decided], options))
        tell(timed[-1])
    ends = {stages[0]["decided"], stages[-1]["decided"]}
    is_whole = ends <= set(asked) and not options.quick
    return {
        "family": options.family,
        "samples": family.num_samples,
        "search_s": whole_search(stages, timed) if is_whole else None,
        "stages": timed,
        "settings": settings_of(options),
    }


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on, and how."""
    on_gpu = options.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(options.device) if on_gpu else cpu_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tf32": options.tf32,
        "repeats": options.repeats,
        "steps": options.steps,
    }


def print_head(settings: Mapping[str, Any]) -> None:
    """What stands above the table."""
    print(
        f"{settings['device']}, torch {settings['torch']}, CUDA {settings['cuda']}, "
        f"TF32 {'on' if settings['tf32'] else 'off'}; median of {settings['repeats']} times "
        f"{settings['steps']} steps\n\n"
        f"{'decided':>7}{'epochs':>8}{'steps':>7}{'batch':>7}  {'search step':<19}{'ms':>9}"
        f"  {'low to high':<18}{'MiB':>9}",
        flush=True,
    )


def print_stage(stage: Mapping[str, Any]) -> None:
    """The rows of a stage."""
    for name, figures in stage["players"].items():
        low, high = figures["spread"]
        mib = figures["mib"]
        print(
            f"{stage['decided']:>7}{stage['epochs']:>8}{stage['steps']:>7}{stage['batch']:>7}"
            f"  {NAMES[name]:<19}{figures['ms']:>9.2f}  {f'{low:.2f} to {high:.2f}':<18}"
            f"{'' if mib is None else f'{mib:.0f}':>9}",
            flush=True,
        )


def a_device(text: str) -> torch.device:
    """The device of a name; ArgumentTypeError for one that is not here."""
    try:
        device = torch.device(text)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {str(error).splitlines()[0]}") from None
    return device


def print_whole(result: Mapping[str, Any]) -> None:
    """The seconds of whole searches, where enough stages were timed."""
    for name, seconds in (result["search_s"] or {}).items():
        print(f"whole search of {result['samples']} samples, {NAMES[name]}: {seconds:.0f} s")


def main() -> int:
    """Runs the benchmark; 2 for wrong input, 1 where plain and ours disagree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--family", required=True, choices=FAMILIES)
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--steps", type=int, default=STEPS, help="search steps timed together")
    parser.add_argument(
        "--tf32", action="store_true", help="both may round factors of products to TF32, on a GPU"
    )
    parser.add_argument(
        "--stages",
        type=int,
        nargs="*",
        help="time those after so many decisions alone; the first and last are needed for a total",
    )
    parser.add_argument(
        "--players", nargs="+", choices=NAMES, default=[*NAMES], help="default: all that run there"
    )
    parser.add_argument("--quick", action="store_true", help="a small batch, to see that it runs")
    options = parser.parse_args()
    if min(options.repeats, options.steps) < 1:
        parser.error("--repeats and --steps take at least 1")
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.backends.cudnn.allow_tf32 = options.tf32
    keep_freed_memory()
    if not options.json:
        print_head(settings_of(options))
    told = (lambda _: None) if options.json else print_stage
    return report(lambda: run(options, told), print_whole, options.json)


if __name__ == "__main__":
    sys.exit(main())
