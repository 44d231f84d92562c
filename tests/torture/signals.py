"""signals: SIGINT and SIGTERM at any call that changes a file, inside the loop and outside."""

from __future__ import annotations

import random
import signal

from tests.torture.bench import JOBS, TOY, Bench, Wrong, error_line, require
from tests.torture.calls import Action, Disturbance


def check(bench: Bench, case: int, seed: int) -> None:
    """One run that gets a signal: it ends, and a line says how to go on, or it goes on."""
    draw = random.Random(f"{seed}/{case}")
    name, number = draw.choice(TOY), draw.choice((signal.SIGINT, signal.SIGTERM))
    at = draw.randrange(bench.undisturbed(name).calls)
    with bench.folder() as folder:
        ended = bench.run(
            JOBS[name], folder, disturbance=Disturbance(at, Action.SIGNAL, int(number))
        )
        try:
            require(ended.status in (0, 130), f"it ended with {ended.status}")
            if ended.status:
                line = error_line(ended)
                told = "go on with: " in line or "the same command goes on" in line
                require(told, f"it does not say what it left: {line}")
            bench.require_same_end(name, folder)
        except Wrong as error:
            raise Wrong(f"{name}, {number.name} at call {at}: {error}") from None


SMALL = 4
