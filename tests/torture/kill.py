"""kill: SIGKILL before, within and after each call that changes a file, and again in recovery."""

from __future__ import annotations

import random
from functools import cache

from tests.torture.bench import JOBS, TOY, Bench, require
from tests.torture.calls import KILLS, Disturbance

REAL = tuple(name for name in JOBS if name not in TOY)
ONE_IN = 250  # cases of the real families, which take a hundred times as long


@cache
def moments(bench: Bench, seed: int) -> list[tuple[str, Disturbance]]:
    """Every job, call and way, in an order of the seed's."""
    each = [
        (name, Disturbance(at, action))
        for name in TOY
        for at in range(bench.undisturbed(name).calls)
        for action in KILLS
    ]
    random.Random(seed).shuffle(each)
    return each


def check(bench: Bench, case: int, seed: int) -> None:
    """One run, killed at a moment, in every second case killed again in recovery."""
    draw = random.Random(f"{seed}/{case}")
    every = moments(bench, seed)
    name, first = every[case % len(every)]
    if case % ONE_IN == ONE_IN - 1:
        name = draw.choice(REAL)
        first = Disturbance(draw.randrange(bench.undisturbed(name).calls), draw.choice(KILLS))
    job = JOBS[name]
    with bench.folder() as folder:
        ended = bench.run(job, folder, disturbance=first)
        require(ended.status == -9, f"{name}, {first}: it ended with {ended.status}")
        while draw.random() < 0.5:
            by_name = draw.random() < 0.5 and (folder / "runs" / "x").is_dir()
            argv = [job.verb, "--resume", "runs/x"] if by_name else job.argv
            again = Disturbance(draw.randrange(60), draw.choice(KILLS))
            status = bench.run(job, folder, argv, disturbance=again).status
            require(status in (-9, 0), f"{name}, {first}, then {again}: {status}")
        bench.require_same_end(name, folder)


SMALL = 8
