"""writers: several processes begin the same run at once, and some are killed."""

from __future__ import annotations

import random

from tests.torture.bench import JOBS, TOY, Bench, error_line, require
from tests.torture.calls import KILLS, Disturbance


def check(bench: Bench, case: int, seed: int) -> None:
    """Two to four writers of one run: each ends it, is killed, or is told who has it."""
    draw = random.Random(f"{seed}/{case}")
    name = draw.choice(TOY)
    job, calls = JOBS[name], bench.undisturbed(name).calls
    with bench.folder() as folder:
        places = [folder / f"writer{number}" for number in range(draw.randint(2, 4))]
        (folder / "runs").mkdir()
        started = []
        for place in places:
            place.mkdir()
            (place / "genotype.json").write_bytes((folder / "genotype.json").read_bytes())
            (place / "runs").symlink_to(folder / "runs")
            kill = Disturbance(draw.randrange(calls), draw.choice(KILLS))
            killed = draw.random() < 0.3
            started.append(bench.start(job, place, disturbance=kill if killed else None))
        for process, place in zip(started, places, strict=True):
            ended = bench.wait(process, place)
            require(ended.status in (0, 2, -9), f"{name}: {ended.status} {ended.err[-200:]}")
            if ended.status == 2:
                line = error_line(ended)
                told = "another process" in line or "exists already" in line
                require(told, f"{name}: {line}")
        bench.require_same_end(name, folder)


SMALL = 2
