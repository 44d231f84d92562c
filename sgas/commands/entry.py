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

from sgas.commands.common import Settings
from sgas.commands.evaluate import evaluate_run
from sgas.commands.search import resume_search, run_search
from sgas.commands.train import resume_training, run_training
from sgas.config import RunConfig, SearchConfig, TrainConfig
from sgas.errors import Interrupted, SgasError
from sgas.family import Family
from sgas.options import rebuild
from sgas.runs import is_run, read_genotype
from sgas.signals import StopSignal
from sgas.study import (
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

DONE, FAILED, INTERRUPTED = 0, 1, 130
SECTIONS = {"search": SearchConfig, "train": TrainConfig}


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


def run_entry(study: Path, name: str, threads: int) -> int:
    """Runs all phases that are not done; DONE, FAILED or INTERRUPTED (with checkpoints).

    Waits where another process still writes this entry. SIGINT and SIGTERM stop it.
    """
    info = read_info(study)
    task = EntryTask(import_module(info.home).FAMILY, info, study, name, threads)
    task.folder.mkdir(exist_ok=True)
    # One that was told to stop may still be writing this entry: wait until it has ended.
    with StopSignal() as stop, hold(task.folder / ".lock"):
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
    """The settings of the run of a phase."""
    family, space, where = task.family, task.info.space, str(task.study / STUDY)
    strategy, _, seed = task.name.rpartition("-")
    given = {"search": task.info.search, "train": task.info.train}[verb]
    own = {"seed": int(seed), "threads": task.threads, "out": str(task.folder / verb)}
    loop = {"strategy": strategy} if verb == "search" else {}
    return Settings(
        verb,
        rebuild(RunConfig, {**given["run"], **own}, where),
        rebuild(SECTIONS[verb], {**given["loop"], **loop}, where),
        rebuild(family.model_configs[space], given["model"], where),
        rebuild(family.data_configs[space], given["data"], where),
    )


def _search(task: EntryTask) -> None:
    folder = task.folder / "search"
    if is_run(folder):
        resume_search(task.family, folder)
    else:
        run_search(task.family, settings_for(task, "search"), command=task.info.command)


def _train(task: EntryTask) -> None:
    folder = task.folder / "train"
    if is_run(folder):
        resume_training(task.family, folder)
        return
    genotype = read_genotype(task.folder / "search")
    settings = settings_for(task, "train")
    run_training(task.family, settings, genotype, command=task.info.command)


def _evaluate(task: EntryTask) -> None:
    import torch

    torch.set_num_threads(task.threads)
    for name, value in evaluate_run(task.family, task.folder / "train", _device(task)).items():
        print(f"{name:<18} {value}")


def _device(task: EntryTask) -> str:
    return str(task.info.train["run"]["device"])


RUNNERS: dict[str, Callable[[EntryTask], None]] = {
    "search": _search,
    "train": _train,
    "evaluate": _evaluate,
}


def _run_phase(task: EntryTask, phase: str) -> State:
    """Runs a phase with its output in its log, and puts how it ended into the manifest."""
    name, log = f"{task.name}/{phase}", f"{task.name}/{phase}.log"

    def tell(state: State, error: str | None = None) -> State:
        def told(parts: Mapping[str, Part]) -> dict[str, Part]:
            now = {"state": state, "error": error, "log": log}
            return {name: msgspec.structs.replace(parts[name], **now)}

        change_parts(task.study, told)
        return state

    tell(State.RUNNING)
    with _output_into(task.study / log):
        try:
            RUNNERS[phase](task)
        except (Interrupted, KeyboardInterrupt) as stop:
            print(f"interrupted: {stop}", file=sys.stderr)
            return tell(State.WAITING)
        except SgasError as error:
            print(f"error: {error}", file=sys.stderr)
            return tell(State.FAILED, str(error))
        except Exception as error:  # one part's fault keeps no other part from running
            traceback.print_exc()
            return tell(State.FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return tell(State.DONE)


@contextlib.contextmanager
def _output_into(path: Path) -> Iterator[None]:
    """Adds to `path` what this process and libraries in it print."""
    streams: list[tuple[int, Any]] = [(1, sys.stdout), (2, sys.stderr)]
    saved = [(os.dup(number), number) for number, _ in streams]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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
