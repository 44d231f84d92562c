"""How much faster and lighter a search step is than in the plain form: ratios plain / ours.

    python benchmarks/bench_search_step.py --family point|graph|image [--paper|--derived] [--json]

Both networks have the same weights and batches and alternate in one process; README.md beside this
file says what the figures mean. Nothing is loaded or augmented while the clock runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contest import CPU, Contest, OurSearch, decisions_at
from measure import Pair, interleaved, saved_bytes, summary
from rates import rates
from reporting import report
from settings import FAMILIES, FamilySettings, Size

from sgas.config import KERNELS
from sgas.errors import ConfigError, SgasError
from sgas.native.backend import use_kernels
from sgas.native.compiler import NotBuilt, build_here

REPEATS = 5
FEWER_REPEATS = 3  # of stages of decision, of scaling curves, and at the paper's batch
LOSS_TOLERANCE = 1e-3  # float32; the tests compare in float64
NAMES = {
    "step": "whole search step",
    "alpha_step": "alpha step",
    "weight_step": "weight step",
    "forward": "forward",
    "train_step": "training step",
    "evaluation": "evaluation",
}


def search_actions(contest: Contest) -> dict[str, Pair]:
    """The parts of a search step, for both."""
    plain, ours = contest.plain, contest.ours
    assert isinstance(ours, OurSearch)
    for_alphas, for_weights = contest.batches
    return {
        "alpha_step": Pair(
            partial(plain.alpha_step, for_alphas), partial(ours.alpha_step, for_alphas)
        ),
        "weight_step": Pair(
            partial(plain.weight_step, for_weights), partial(ours.weight_step, for_weights)
        ),
        "forward": Pair(partial(plain.loss, for_weights), partial(ours.loss, for_weights)),
    }


def derived_actions(contest: Contest) -> dict[str, Pair]:
    """A step of training and an evaluation, for both."""
    batch, players = contest.batches[0], (contest.plain, contest.ours)

    @torch.no_grad()
    def evaluate(player: Any) -> None:
        player.network.eval()
        player.loss(batch)
        player.network.train()

    return {
        "train_step": Pair(*(partial(player.weight_step, batch) for player in players)),
        "forward": Pair(*(partial(player.loss, batch) for player in players)),
        "evaluation": Pair(*(partial(evaluate, player) for player in players)),
    }


def bytes_of(contest: Contest, action: Pair) -> Pair:
    """The bytes that both keep for the backward pass of an action."""
    given = contest.batches, contest.plain.network, contest.ours.network
    return Pair(saved_bytes(action.plain, given), saved_bytes(action.ours, given))


def with_bytes(figures: dict[str, Any], found: Pair) -> dict[str, Any]:
    """The figures and the bytes; no ratio where ours keeps nothing."""
    ratio = found.plain / found.ours if found.ours else None
    return {
        **figures,
        "bytes_ratio": ratio,
        "plain_mib": found.plain / 2**20,
        "ours_mib": found.ours / 2**20,
    }


def compare_steps(contest: Contest, repeats: int, forward: bool = False) -> dict[str, Any]:
    """The figures of a search step and its parts; `forward` adds that of its forward pass.

    The bytes of the whole step are those of its heavier part: the parts free theirs. To count them
    takes a step of each, which is the warm-up.
    """
    actions = search_actions(contest)
    if not forward:
        del actions["forward"]
    kept = {name: bytes_of(contest, actions[name]) for name in ("alpha_step", "weight_step")}
    costs = interleaved(actions, repeats)
    both = [a + w for a, w in zip(costs["alpha_step"], costs["weight_step"], strict=True)]
    most = Pair(*(max(getattr(k, who) for k in kept.values()) for who in ("plain", "ours")))
    kept |= {"step": most, "forward": kept["weight_step"]}
    return {
        name: with_bytes(summary(pairs), kept[name])
        for name, pairs in {"step": both, **costs}.items()
    }


def compare_derived(contest: Contest, repeats: int) -> dict[str, Any]:
    """The figures of a training step of a derived network, and of an evaluation."""
    actions = derived_actions(contest)
    kept = bytes_of(contest, actions["train_step"])
    costs = interleaved(actions, repeats)
    return {
        "train_step": with_bytes(summary(costs["train_step"]), kept),
        "forward": with_bytes(summary(costs["forward"]), kept),
        "evaluation": summary(costs["evaluation"]),
    }


def check_losses(contest: Contest) -> None:
    """SgasError where the two networks do not compute the same; timings would mean nothing."""
    plain, ours = contest.losses()
    if not abs(plain - ours) <= LOSS_TOLERANCE * abs(plain):
        raise SgasError(f"the loss of plain is {plain}, that of ours {ours}")


def search_contest(
    family: FamilySettings, size: Size, made: int = 0, device: torch.device = CPU
) -> Contest:
    """Supernets after `made` decisions of each kind of cell, checked against each other."""
    torch.manual_seed(0)
    contest = family.search_contest(size, device)
    if made:
        contest.decide(decisions_at(family.space, family.num_steps, made))
    check_losses(contest)
    return contest


def stages(family: FamilySettings, size: Size, repeats: int) -> dict[str, Any]:
    """The figures of a step by the number of decisions made: none, half, all but one."""
    last = family.space.topology(family.num_steps).num_decisions - 1
    return {
        str(made): compare_steps(search_contest(family, size, made), repeats)["step"]
        for made in (0, (last + 1) // 2, last)
    }


def scaling(family: FamilySettings, size: Size, repeats: int, quick: bool) -> dict[str, Any]:
    """The figures of a step by one size at a time, the others as in `size`."""
    base = compare_steps(search_contest(family, size), repeats)["step"]
    curves: dict[str, Any] = {}
    for name, values in family.scaling.items():
        curves[name] = {}
        for value in values[:2] if quick else values:
            figures = base
            if value != size[name]:
                contest = search_contest(family, {**size, name: value})
                figures = compare_steps(contest, repeats)["step"]
            curves[name][str(value)] = figures
    return curves


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures that were asked for; ConfigError for a batch that is too small."""
    family = FAMILIES[options.family]
    size = measured_size(family, options)
    few = 1 if options.quick else min(FEWER_REPEATS, options.repeats)
    result: dict[str, Any]
    if options.derived:
        torch.manual_seed(0)
        contest = family.derived_contest(size)
        check_losses(contest)
        result = compare_derived(contest, options.repeats)
    elif options.paper:
        result = compare_steps(search_contest(family, size), options.repeats)
    else:
        small = {**family.paper, **family.small}
        result = compare_steps(search_contest(family, size), options.repeats, forward=True)
        result["stages"] = stages(family, size, few)
        result["scaling"] = scaling(family, small, few, options.quick)
        result["scaling_size"] = small
    product_rate, read_rate = rates()
    result["settings"] = {
        "family": options.family,
        "size": size,
        "paper": dict(family.paper),
        "genotype": family.genotype if options.derived else None,
        "repeats": options.repeats,
        "repeats_of_stages_and_scaling": few if "stages" in result else None,
        "kernels": options.kernels,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "vectors": compiled_for(),
        "gflop_s": product_rate / 1e9,
        "gb_s": read_rate / 1e9,
    }
    return result


def compiled_for() -> str:
    """The width of compiled kernels' vectors and the compiler; why there is none."""
    try:
        return str(build_here())
    except NotBuilt as error:
        return str(error)


def measured_size(family: FamilySettings, options: argparse.Namespace) -> Size:
    """The size that the options ask for."""
    changed = family.small if options.quick else {} if options.paper else family.measured
    size = {**family.paper, **changed}
    if options.derived:
        size |= family.derived
    if options.batch:
        size["batch"] = options.batch
    smallest = family.models(size).smallest_batch
    if size["batch"] < smallest:
        raise ConfigError(f"batch is {size['batch']}; batch norm needs {smallest} to train")
    return size


def cpu_name() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def row(name: str, figures: Mapping[str, Any]) -> str:
    """One line of the table."""
    (low, high), ratio = figures["spread"], figures.get("bytes_ratio")
    kept = "" if ratio is None else f"{ratio:.1f}"
    return (
        f"{name:<20}{figures['cpu_ratio']:>8.2f}  {f'{low:.2f} to {high:.2f}':<16}"
        f"{figures['wall_ratio']:>8.2f}{kept:>9}"
        f"{figures['plain_cpu_ms']:>14.1f}{figures['ours_cpu_ms']:>10.1f}"
    )


def print_table(result: Mapping[str, Any]) -> None:
    """The figures as text."""
    settings = result["settings"]
    paper, size = settings["paper"], settings["size"]
    print(", ".join(f"{name} {value}" for name, value in size.items()))
    changed = [f"{name} {paper[name]}" for name in size if size[name] != paper[name]]
    if settings["genotype"]:
        print(f"networks derived from {settings['genotype']}")
    elif changed:
        print(f"the paper's search has {', '.join(changed)}; less here, for time and memory")
    print(
        f"torch {settings['torch']}, {settings['threads']} threads, {settings['cpu']}, kernels "
        f"{settings['kernels']}, median of {settings['repeats']} repeats\n"
        f"{settings['vectors']}; products {settings['gflop_s']:.0f} GFLOP/s, reads "
        f"{settings['gb_s']:.0f} GB/s\n\n"
        f"{'plain / ours':<20}{'CPU':>8}  {'low to high':<16}{'wall':>8}{'bytes':>9}"
        f"{'plain CPU ms':>14}{'ours':>10}"
    )
    for name in NAMES:
        if name in result:
            print(row(NAMES[name], result[name]))
    for made, figures in result.get("stages", {}).items():
        print(row(f"  {made} decided", figures))
    if "scaling" in result:
        small = result["scaling_size"]
        print(f"\nwhole search step at batch {small['batch']}, by one size at a time")
    for name, curve in result.get("scaling", {}).items():
        for value, figures in curve.items():
            print(row(f"  {name} {value}", figures))


def main() -> int:
    """Runs the benchmark; 2 for wrong input, 1 where plain and ours disagree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--family", required=True, choices=FAMILIES)
    parser.add_argument(
        "--paper", action="store_true", help="the search step alone, at the paper's batch"
    )
    parser.add_argument("--derived", action="store_true", help="a network of a published genotype")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--repeats", type=int, help=f"default: {REPEATS}, {FEWER_REPEATS} with --paper"
    )
    parser.add_argument("--batch", type=int, help="samples a batch (default: see README.md)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all that torch takes)")
    parser.add_argument("--kernels", choices=KERNELS, default="auto", help="which of ours to run")
    parser.add_argument("--quick", action="store_true", help="a small batch and few repeats")
    options = parser.parse_args()
    if options.paper and (options.derived or options.quick or options.batch is not None):
        parser.error("--paper goes without --derived, --quick and --batch")
    if options.repeats is None:
        options.repeats = FEWER_REPEATS if options.paper else REPEATS
    if min(options.repeats, options.threads or 1, options.batch or 1) < 1:
        parser.error("--repeats, --threads and --batch take at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    use_kernels(options.kernels)
    return report(lambda: run(options), print_table, options.json)


if __name__ == "__main__":
    sys.exit(main())
