"""signals: SIGINT and SIGTERM at any call that changes a file, or at any batch."""

from __future__ import annotations

import os
import random
import signal

from tests.torture.bench import JOBS, TOY, Bench, Wrong, error_line, require
from tests.torture.calls import Action, Disturbance

MOST_BATCHES = 15  # of the toy family's jobs; a signal that comes too late is none


def check(bench: Bench, case: int, seed: int) -> None:
    """One run that gets a signal: it ends, and a line says how to go on, or it goes on."""
    draw = random.Random(f"{seed}/{case}")
    name, number = draw.choice(TOY), draw.choice((signal.SIGINT, signal.SIGTERM))
    at = draw.randrange(bench.undisturbed(name).calls)
    batch = draw.randrange(1, MOST_BATCHES) if draw.random() < 0.5 else 0
    moment = f"batch {batch}" if batch else f"call {at}"
    sent = Disturbance(at, Action.SIGNAL, int(number))
    with bench.folder() as folder:
        ended = bench.run(
            JOBS[name],
            folder,
            disturbance=None if batch else sent,
            before=lambda: os.environ.update(TOY_SIGNAL=f"{number.name}@{batch}" if batch else ""),
        )
        try:
            require(ended.status in (0, 130), f"it ended with {ended.status}")
            if ended.status:
                line = error_line(ended)
                told = "go on with: " in line or "the same command goes on" in line
                require(told, f"it does not say what it left: {line}")
            bench.require_same_end(name, folder)
        except Wrong as error:
            raise Wrong(f"{name}, {number.name} at {moment}: {error}") from None


SMALL = 4
