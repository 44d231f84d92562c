"""The study folder: many searches and trainings of one question, and how they are read.

    study.json                 what was asked: data set, protocol, strategies, seeds, all options
    manifest.json              the state of each part
    STRATEGY-SEED/search       the run folder of a search
    STRATEGY-SEED/train        the run folder of its training; holds evaluation.json
    STRATEGY-SEED/PHASE.log    what a part printed

A part is one phase (search, train, evaluate) of one strategy and seed. Several processes, on
several machines of one file system, may change the manifest: each change is read, made and written
under a lock.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from sgas.cells.genotype import Genotype
from sgas.errors import RunError, option
from sgas.files import no_link, read_json, take_lock, write_sealed
from sgas.running.runs import is_run, read_genotype, read_metrics

STUDY, MANIFEST, LOCK = "study.json", "manifest.json", ".manifest.lock"
PHASES = ("search", "train", "evaluate")


class State(Enum):
    """How far a part is. An interrupted part waits: the next start goes on where it stopped."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state of one part; `log` is relative to the study, `job` the number a cluster gave it."""

    state: State = State.WAITING
    log: str | None = None
    error: str | None = None
    job: str | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All parts by name, such as `cri2-0/train`, in the order in which they were asked for."""

    format: int
    parts: dict[str, Part]


Change = Callable[[Mapping[str, Part]], Mapping[str, Part]]


class StudyInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What study.json holds.

    `search` and `train` are the resolved sections `run`, `loop`, `model` and `data` of a run's
    config.json, but for strategy and seed. `home` names the module whose FAMILY the study is of; it
    is not imported because it stands here. `plugins` are names, sources and hashes of the plug-ins,
    whose texts are in `plugins/`. `asked` names by verb the options of the data that were given;
    studies of before do not say.
    """

    format: int
    family: str
    home: str
    dataset: str
    space: str
    preset: str
    protocol: str
    strategies: list[str]
    seeds: list[int]
    search: dict[str, Any]
    train: dict[str, Any]
    command: str
    environment: dict[str, Any]
    plugins: list[dict[str, str]] = []
    asked: dict[str, list[str]] = {}


@dataclass(frozen=True)
class Entry:
    """One strategy and seed of a study; a figure is None where it is not there yet.

    `search_folder` and `train_folder` are run folders; `genotype` is what a search that has ended
    found; `validation` the search's figures of its last epoch (of the supernet), `test` those of
    `evaluate`, both by the metric's name without a prefix; `result` what the training reported of
    its last epoch (in protocol `paper` also the best test epoch); `parameters` and `flops` of the
    trained network; `search_seconds` and `train_seconds` the time in the loops; `failure` what
    failed and where its log is.
    """

    strategy: str
    seed: int
    parts: Mapping[str, Part]
    search_folder: Path | None = None
    train_folder: Path | None = None
    genotype: Genotype | None = None
    validation: Mapping[str, float] | None = None
    result: Mapping[str, Any] | None = None
    test: Mapping[str, float] | None = None
    parameters: int | None = None
    flops: int | None = None
    search_seconds: float | None = None
    train_seconds: float | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        """The entry's folder in the study."""
        return entry_name(self.strategy, self.seed)


@dataclass(frozen=True)
class Study:
    """A study as it is on disk now."""

    folder: Path
    info: StudyInfo
    entries: list[Entry]


def entry_name(strategy: str, seed: int) -> str:
    """The name of the folder of a strategy and seed."""
    return f"{strategy}-{seed}"


def is_study(folder: Path) -> bool:
    """Whether a path is a study folder."""
    try:
        return (folder / STUDY).is_file()
    except OSError:  # a genotype's text, longer than a path may be
        return False


def read_study(path: str | Path) -> Study:
    """The study of a folder; RunError where it is none or one of its files is damaged."""
    folder = Path(path)
    info, manifest = read_info(folder), read_manifest(folder)
    names: dict[str, dict[str, Part]] = {}
    for name, part in manifest.parts.items():
        entry, _, phase = name.partition("/")
        names.setdefault(entry, {})[phase] = part
    return Study(folder, info, [_entry(folder, name, parts) for name, parts in names.items()])


def read_info(folder: Path) -> StudyInfo:
    """What study.json holds; RunError where there is none or it is damaged."""
    if not is_study(folder):
        raise RunError(
            f"{folder} is not a study: it has no {STUDY}; give a folder that sweep wrote"
        )
    info: StudyInfo = read_json(folder / STUDY, StudyInfo)
    return info


def read_manifest(folder: Path) -> Manifest:
    """The state of all parts; RunError where the file is missing or damaged."""
    manifest: Manifest = read_json(folder / MANIFEST, Manifest)
    return manifest


def write_info(folder: Path, info: StudyInfo) -> None:
    """Puts study.json into a folder, whole or not at all."""
    with hold(folder / LOCK):  # the seals are those of the manifest too
        write_sealed(folder, {STUDY: _pretty(info)})


def change_parts(folder: Path, changes: Mapping[str, Part] | Change) -> Manifest:
    """Puts parts into the manifest, new ones at its end, and returns it as it is now.

    `changes` may follow from the parts as they are: a function that is called under the lock.
    """
    with hold(folder / LOCK):
        known = read_manifest(folder).parts if (folder / MANIFEST).exists() else {}
        new = changes(known) if callable(changes) else changes
        manifest = Manifest(1, {**known, **new})
        if new:
            write_sealed(folder, {MANIFEST: _pretty(manifest)})
    return manifest


@contextlib.contextmanager
def hold(lock: Path, taken: str | None = None) -> Iterator[None]:
    """Holds a lock file for this process; the system lets go of it however the process ends.

    Where another process holds it: waits, or with `taken` raises RunError with that text.
    """
    try:
        file = open(lock, "a+", encoding="utf-8", opener=no_link)  # noqa: SIM115 - closed below
    except OSError as error:
        raise RunError(f"cannot write in {lock.parent}: {error.strerror}") from None
    with file:
        try:
            held = take_lock(file, wait=not taken)
        except BlockingIOError:
            raise RunError(f"{taken}; wait for it to end") from None
        if not held:
            raise RunError(
                f"{lock.parent} is on a file system without locks, which a study needs: give "
                f"another {option('out')}"
            )
        yield


def _pretty(value: Any) -> bytes:
    return (json.dumps(msgspec.to_builtins(value), indent=2) + "\n").encode()


def _entry(folder: Path, name: str, parts: Mapping[str, Part]) -> Entry:
    strategy, _, seed = name.rpartition("-")
    done = {phase for phase, part in parts.items() if part.state is State.DONE}
    search, train = folder / name / "search", folder / name / "train"
    figures: dict[str, Any] = {
        "search_folder": search if is_run(search) else None,
        "train_folder": train if is_run(train) else None,
        "failure": _failure(folder, name, parts),
    }
    if "search" in done:
        last = _last_epoch(search)
        figures["genotype"] = read_genotype(search)
        figures["validation"] = _without_prefix(last, "validation_")
        figures["search_seconds"] = last["seconds"]
    if "train" in done:
        result = read_json(train / "result.json")
        figures["result"] = result
        figures["parameters"], figures["flops"] = result["parameters"], result["flops"]
        figures["train_seconds"] = _last_epoch(train)["seconds"]
    if "evaluate" in done:
        evaluation = read_json(train / "evaluation.json")
        figures["test"] = {k: v for k, v in evaluation.items() if isinstance(v, float)}
    return Entry(strategy, int(seed), dict(parts), **figures)


def _failure(folder: Path, name: str, parts: Mapping[str, Part]) -> str | None:
    for phase, part in parts.items():
        if part.state is State.FAILED:
            where = f" (log: {folder / part.log})" if part.log else ""
            return f"{name}/{phase} failed: {part.error}{where}"
    return None


def _last_epoch(run: Path) -> dict[str, Any]:
    lines: Sequence[dict[str, Any]] = read_metrics(run)
    if not lines:
        raise RunError(f"{run} has no metrics.jsonl, though the manifest says that it is done")
    return lines[-1]


def _without_prefix(figures: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}
