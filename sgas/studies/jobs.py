"""Jobs of a study: one job is one strategy and seed. Here as processes of this machine.

`cluster.py` has the same for clusters. A job is told to stop and ends with its state in checkpoints
and in the manifest; it is never waited for in a busy loop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, Protocol

# What takes seconds to import, and every search and training comes to need.
PRELOAD = (
    "sgas.running.search",
    "sgas.running.train",
    "sgas.studies.entry",
    "torch._dynamo",
    "sklearn.metrics",
)

UNKNOWN = 255  # how a child ended whose fork server was stopped with it, as by a signal to all


class Job(Protocol):
    """A job that was started; `number` is how its cluster calls it, None for a child."""

    entry: str
    number: str | None

    def ended(self) -> str | None:
        """None while it goes on; else what ended it, empty where it ended by itself."""
        ...

    def stop(self) -> None:
        """Asks it to write its checkpoint and end."""
        ...


class Jobs(Protocol):
    """Starts jobs. `capacity` is how many may be started at a time (None: no limit).

    `outlive` tells that they go on when the command ends.
    """

    capacity: int | None
    outlive: bool

    def start(self, entries: Sequence[str]) -> list[Job]:
        """Starts a job for each entry."""
        ...

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Returns once one of them may have ended, after `seconds` at the latest."""
        ...


class LocalJob:
    """A child process that runs one entry."""

    number: str | None = None

    def __init__(self, entry: str, process: Any, slot: int) -> None:
        self.entry, self.process, self.slot = entry, process, slot
        self.is_stopped = False

    def ended(self) -> str | None:
        """None while it goes on; else what ended it, empty where it ended by itself."""
        code = self.process.exitcode
        if code is None:
            return None
        if self.is_stopped and code in (-signal.SIGTERM, UNKNOWN):
            return ""
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return "" if code in (0, 1, 130) else f"ended with status {code}"

    def stop(self) -> None:
        """Asks it to write its checkpoint and end."""
        self.is_stopped = True
        self.process.terminate()


class LocalJobs:
    """Up to `capacity` children, each with `threads` for torch and, where there are GPUs, one."""

    outlive = False

    def __init__(
        self, study: Path, home: str, threads: int, capacity: int, gpus: Sequence[str] = ()
    ) -> None:
        self.study, self.home, self.threads, self.gpus = study, home, threads, gpus
        self.capacity: int | None = capacity
        # A server that has torch loaded forks each child in milliseconds, and has no GPU open.
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([*PRELOAD, home])
        self.slots = set(range(capacity))

    def start(self, entries: Sequence[str]) -> list[Job]:
        """Starts a job for each entry."""
        return [self._start(entry) for entry in entries]

    def _start(self, entry: str) -> Job:
        slot = min(self.slots)
        self.slots.remove(slot)
        environ = {**os.environ, **gpu_of_slot(slot, self.gpus)}
        arguments = (str(self.study), self.home, entry, self.threads, environ)
        process = self.context.Process(target=_child, args=arguments, name=entry)
        process.start()
        return LocalJob(entry, process, slot)

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Returns once one of them has ended, after `seconds` at the latest."""
        own = [job for job in jobs if isinstance(job, LocalJob)]
        connection.wait([job.process.sentinel for job in own], seconds)
        for job in own:
            if job.process.exitcode is not None:
                self.slots.add(job.slot)


def gpu_of_slot(slot: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment that shows one of several GPUs to a job; jobs take them in turn."""
    return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {}


def _child(study: str, home: str, entry: str, threads: int, environ: Mapping[str, str]) -> None:
    """What a child does. It stops by itself, with a checkpoint, where the command is gone."""
    os.environ.update(environ)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    import torch

    from sgas.studies.entry import run_entry

    torch.set_num_threads(threads)
    raise SystemExit(run_entry(Path(study), home, entry, threads))


def _stop_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
