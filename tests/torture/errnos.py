"""errno: each call that changes a file fails in turn, once or from then on, or writes half."""

from __future__ import annotations

import errno
import os
import random
from functools import cache

from tests.torture.bench import JOBS, TOY, Bench, Wrong, error_line, require
from tests.torture.calls import Action, Disturbance

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EINTR)
WAYS = [
    *((Action.FAIL, value) for value in ERRORS),
    *((Action.FAIL_FROM, value) for value in (errno.ENOSPC, errno.EIO, errno.EROFS)),
    (Action.SHORT, 0),
]
REMEDIES = ("same command", "give ")


@cache
def failures(bench: Bench, seed: int) -> list[tuple[str, Disturbance]]:
    """Every job, call and way to fail, in an order of the seed's."""
    each = [
        (name, Disturbance(at, *way))
        for name in TOY
        for at in range(bench.undisturbed(name).calls)
        for way in WAYS
    ]
    random.Random(seed).shuffle(each)
    return each


def check(bench: Bench, case: int, seed: int) -> None:
    """One run in which calls fail: it does without, or a line says what failed and what to do."""
    every = failures(bench, seed)
    name, failure = every[case % len(every)]
    with bench.folder() as folder:
        ended = bench.run(JOBS[name], folder, disturbance=failure)
        what = f"{name}, {failure} ({os.strerror(failure.value)})"
        try:
            if ended.status:
                line = error_line(ended)
                require("runs" in line, f"it names no file: {line}")
                require(any(words in line for words in REMEDIES), f"it names no remedy: {line}")
            bench.require_same_end(name, folder)
        except Wrong as error:
            raise Wrong(f"{what}: {error}") from None


SMALL = 6
