"""Runs one strategy and seed of a study: search, training, evaluation, each where it stopped.

This is what a job is, on this machine or on a cluster: it needs the study folder and a name, and
leaves its state in the manifest. Being started again is how it goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from sgas.config import rebuild
from sgas.errors import Interrupted, SgasError
from sgas.family import Family
from sgas.registry import plugged
from sgas.running.evaluation import evaluate_run
from sgas.running.runs import is_run, read_genotype
from sgas.running.session import resume, start
from sgas.running.settings import Settings, sections_of
from sgas.running.signals import StopSignal
from sgas.studies.study import (
    PHASES,
    STUDY,
    Part,
    State,
    StudyInfo,
    change_parts,
    hold,
    read_info,
    read_manifest,
)
from sgas.terminal import tell

DONE, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class EntryTask:
    """One strategy and seed of a study, as a job sees it; `threads` for torch in all its phases."""

    family: Family
    info: StudyInfo
    study: Path
    name: str
    threads: int

    @property
    def folder(self) -> Path:
        """The folder of the entry."""
        return self.study / self.name


def run_entry(study: Path, home: str, name: str, threads: int) -> int:
    """Runs all phases that are not done; DONE, FAILED or INTERRUPTED (with checkpoints).

    `home` is the module whose FAMILY the command is of: no module is imported because a file says
    so.

    Waits where another process still writes this entry. SIGINT and SIGTERM stop it.
    """
    info = read_info(study)
    task = EntryTask(import_module(home).FAMILY, info, study, name, threads)
    task.folder.mkdir(exist_ok=True)
    # One that was told to stop may still be writing this entry: wait until it has ended.
    named = [entry["source"] for entry in info.plugins]
    plugins = plugged(task.family, named, [study])
    with plugins, StopSignal() as stop, hold(task.folder / ".lock"):
        for phase in PHASES:
            if read_manifest(study).parts[f"{name}/{phase}"].state is State.DONE:
                continue
            if stop.requested:
                return INTERRUPTED
            state = _run_phase(task, phase)
            if state is not State.DONE:
                return FAILED if state is State.FAILED else INTERRUPTED
    return DONE


def settings_for(task: EntryTask, verb: str) -> Settings:
    """The settings of the run of a phase; a training is of the genotype that the search found."""
    strategy, _, seed = task.name.rpartition("-")
    asked = {"search": task.info.search, "train": task.info.train}[verb]
    own: dict[str, dict[str, Any]] = {
        "run": {"seed": int(seed), "threads": task.threads, "out": str(task.folder / verb)},
        "loop": {"strategy": strategy} if verb == "search" else {},
    }
    where = str(task.study / STUDY)
    sections = sections_of(task.family, verb, task.info.space).items()
    made = {n: rebuild(kind, {**asked[n], **own.get(n, {})}, where) for n, kind in sections}
    genotype = read_genotype(task.folder / "search") if verb == "train" else None
    named = task.info.asked.get(verb)
    return Settings(verb, **made, genotype=genotype, asked=None if named is None else tuple(named))


def _run(task: EntryTask, verb: str) -> None:
    """Searches or trains: in a new run, or where the one that is there stopped."""
    if is_run(task.folder / verb):
        resume(task.family, task.folder / verb, verb)
    else:
        start(task.family, settings_for(task, verb), task.name, task.info.command)


def _evaluate(task: EntryTask, verb: str) -> None:
    import torch

    torch.set_num_threads(task.threads)
    for name, value in evaluate_run(task.family, task.folder / "train", _device(task)).items():
        tell(f"{name:<18} {value}")


def _device(task: EntryTask) -> str:
    return str(task.info.train["run"]["device"])


RUNNERS: dict[str, Callable[[EntryTask, str], None]] = {
    "search": _run,
    "train": _run,
    "evaluate": _evaluate,
}


def _run_phase(task: EntryTask, phase: str) -> State:
    """Runs a phase with its output in its log, and puts how it ended into the manifest."""
    name, log = f"{task.name}/{phase}", f"{task.name}/{phase}.log"

    def tell(state: State, error: str | None = None) -> State:
        def change(parts: Mapping[str, Part]) -> dict[str, Part]:
            now = {"state": state, "error": error, "log": log}
            return {name: msgspec.structs.replace(parts[name], **now)}

        change_parts(task.study, change)
        return state

    tell(State.RUNNING)
    with _output_into(task.study / log):
        try:
            RUNNERS[phase](task, phase)
        except (Interrupted, KeyboardInterrupt) as stop:
            print(f"interrupted: {stop}", file=sys.stderr)
            return tell(State.WAITING)
        except SgasError as error:
            print(f"error: {error.for_command()}", file=sys.stderr)
            return tell(State.FAILED, error.for_command())
        except Exception as error:  # one part's fault keeps no other part from running
            traceback.print_exc()
            return tell(State.FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return tell(State.DONE)


@contextlib.contextmanager
def _output_into(path: Path) -> Iterator[None]:
    """Adds to `path` what this process and libraries in it print."""
    streams: list[tuple[int, Any]] = [(1, sys.stdout), (2, sys.stderr)]
    saved = [(os.dup(number), number) for number, _ in streams]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        for number, stream in streams:
            stream.flush()
            os.dup2(file, number)
        yield
    finally:
        for (before, number), (_, stream) in zip(saved, streams, strict=True):
            stream.flush()
            os.dup2(before, number)
            os.close(before)
        os.close(file)
