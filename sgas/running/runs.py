"""The run folder: config, metrics, decisions, checkpoints; atomic writes; one writer; resume.

    config.json           resolved configuration, versions, git commit, seed, device
    metrics.jsonl         one line an epoch
    decisions.jsonl       one line a scored epoch and cell kind (searches)
    genotype.json         valid at every epoch: what would be cut now
    plugins/              the texts of the plug-ins that config.json names, if any
    checkpoint.pt         everything that resuming needs; checkpoint.previous.pt the one before
    weights.safetensors, result.json, evaluation.json, predictions.csv (trainings)
    report.html, cell-KIND.svg and other pictures, log.txt
    seals.json            hashes of all that is read again; checkpoints hold their own

Where a file has the number of an epoch it counts from 0 (`epochs_from` in config.json); words and
pictures count from 1.

Records of an epoch are written before its checkpoint, so that a checkpoint never knows more than
the records; on resume, records that the checkpoint does not know yet are dropped and made again.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from sgas.cells.genotype import Genotype
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.errors import DamagedRunError, GenotypeError, RunError, option
from sgas.family import Family
from sgas.files import (
    decode,
    make_folder,
    naming,
    no_link,
    read_json,
    read_sealed,
    sync_folder,
    take_lock,
    temporary_beside,
    write_bytes,
    write_sealed,
    write_text,
)

CONFIG = "config.json"
VERBS = ("search", "train")  # whose folders are runs
WEIGHTS, RESULT = "weights.safetensors", "result.json"  # of a training that has ended
CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
LOCK = ".lock"
SEAL_LENGTH = 4 + 32
TRIES = 3  # to make a folder that another start does not clear away
T = TypeVar("T")


class RunFacts(msgspec.Struct):
    """What every config.json holds; trainings have a genotype too."""

    family: str
    verb: str
    run: dict[str, Any]
    loop: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    dimensions: dict[str, int]
    environment: dict[str, Any]
    genotype: Genotype | msgspec.UnsetType = msgspec.UNSET
    asked: list[str] | msgspec.UnsetType = msgspec.UNSET


def numbered_folders(parent: Path, name: str) -> Iterator[Path]:
    """Those of `parent/name`, name-2, name-3, … that exist, up to the first that does not."""
    candidate, number = parent / name, 1
    while candidate.exists():
        yield candidate
        number += 1
        candidate = parent / f"{name}-{number}"


def free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of name-2, name-3, … that does not exist."""
    taken = len(list(numbered_folders(parent, name)))
    return parent / (f"{name}-{taken + 1}" if taken else name)


def is_run(folder: Path) -> bool:
    """Whether a path is a run folder."""
    try:
        return (folder / CONFIG).is_file()
    except OSError:  # a genotype's text, longer than a path may be
        return False


def is_held(folder: Path) -> bool:
    """Whether a process is writing a run."""
    try:
        _lock(folder, _needs_lock(read_config(folder))).close()
    except RunError:
        return True
    return False


def check_family(family: Family, folder: Path, config: Mapping[str, Any]) -> None:
    """RunError where a run is of another family."""
    if config["family"] != family.name or config["verb"] not in VERBS:
        raise RunError(
            f"{folder} is a run of sgas-{config['family']} {config['verb']}; this is "
            f"{family.command}"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run; RunError where the folder is no run or the file is damaged."""
    if not is_run(folder):
        why = f"it has no {CONFIG}" if folder.exists() else "it does not exist"
        raise RunError(f"{folder} is not a run: {why}; give a folder that search or train wrote")
    config: dict[str, Any] = read_json(folder / CONFIG)
    try:
        msgspec.convert(config, RunFacts)
    except msgspec.ValidationError as error:
        raise RunError(f"{folder / CONFIG} is damaged: {error}; start again") from None
    return config


def read_records(folder: Path) -> list[EpochRecord]:
    """The lines of decisions.jsonl; RunError where there are none or a line is damaged."""
    path = folder / "decisions.jsonl"
    if not path.is_file():
        raise RunError(f"{folder} has no decisions.jsonl; give the folder of a search")
    records = _read_lines(path, EpochRecord)
    for record in records:
        if not record.fits():
            epoch = shown_epoch(record.epoch)
            raise RunError(f"{path} is damaged: the lists of epoch {epoch} do not agree")
    return records


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, empty where nothing was measured yet."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = _read_lines(path, dict[str, Any])
    if not all(isinstance(line.get("epoch"), int) for line in lines):
        raise RunError(f"{path} is damaged: a line has no epoch")
    return lines


def _read_lines(path: Path, kind: type[T]) -> list[T]:
    """What the lines of a file hold; RunError names the first that is damaged."""
    values = []
    for number, line in enumerate(read_sealed(path).splitlines(), 1):
        try:
            values.append(decode(line, kind))
        except ValueError as error:
            raise RunError(f"{path} is damaged in line {number}: {error}") from None
    return values


def read_genotype(folder: Path) -> Genotype:
    """The genotype that a run holds now."""
    path = folder / "genotype.json"
    if not path.is_file():
        raise RunError(f"{folder} has no genotype.json yet: no epoch has ended")
    try:
        return Genotype.from_json(read_sealed(path))
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from None


class Run:
    """A run folder that this process alone may write. Use as a context manager."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder, self._lock = folder, lock
        self.metrics = read_metrics(folder)
        self.records = read_records(folder) if (folder / "decisions.jsonl").exists() else []
        self.notices: list[str] = []

    @classmethod
    def create(
        cls, folder: Path, config: Mapping[str, Any], texts: Mapping[str, str] | None = None
    ) -> Run:
        """A new run with files of these texts, by their paths in it.

        RunError where the folder exists already, and then nothing is written.
        """
        try:
            _require_new(folder)
            make_folder(folder.parent)
            _clear_killed_starts(folder)
            fresh, lock = _fresh_folder(folder, _needs_lock(config))
            try:
                fresh.chmod(0o755)
                for name, text in (texts or {}).items():
                    make_folder((fresh / name).parent)
                    write_text(fresh / name, text)
                write_sealed(fresh, {CONFIG: _as_json(config).encode()})
                os.rename(fresh, folder)
                sync_folder(folder.parent)
            except BaseException:
                lock.close()
                shutil.rmtree(fresh, ignore_errors=True)
                raise
        except OSError as error:
            _require_new(folder)  # another process may have made it meanwhile
            raise RunError(
                f"cannot make the run folder {folder}: {error.strerror}; see to that and run the "
                f"same command again, or give another {option('out')}"
            ) from None
        return cls(folder, lock)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run, to go on with; RunError where another process holds it."""
        lock = _lock(folder, _needs_lock(read_config(folder)))
        try:
            with naming(folder):
                for leftover in folder.glob(".*.tmp"):  # of a process that was killed
                    leftover.unlink(missing_ok=True)
                _clear_killed_starts(folder)
            return cls(folder, lock)
        except BaseException:
            lock.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.close()

    def log(self, message: str) -> None:
        """Adds a line with the time to log.txt."""
        stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
        path = self.folder / "log.txt"
        with naming(path), open(path, "a", encoding="utf-8", opener=no_link) as file:
            file.write(f"{stamp} {message}\n")

    def notice(self, message: str) -> None:
        """Something the user should know: logged, and kept for the command to print."""
        self.notices.append(message)
        self.log(message)

    def write_text(self, name: str, text: str) -> None:
        """Puts a text file into the folder, whole or not at all."""
        write_text(self.folder / name, text)

    def write_result(self, name: str, content: bytes | Mapping[str, Any]) -> None:
        """Puts what is read again into the folder, as it is or as JSON, and keeps its hash."""
        raw = content if isinstance(content, bytes) else _as_json(content).encode()
        write_sealed(self.folder, {name: raw})

    def add_epoch(
        self,
        metrics: Mapping[str, Any],
        records: Sequence[EpochRecord] = (),
        genotype: Genotype | None = None,
    ) -> None:
        """Writes what one epoch gave: a line of metrics, its records, the genotype of now."""
        self.metrics.append(dict(metrics))
        self.records.extend(records)
        written = {} if genotype is None else {"genotype.json": genotype.to_json().encode()}
        write_sealed(self.folder, {**self._lines(), **written})

    def forget_from(self, epoch: int) -> None:
        """Drops what was recorded for `epoch` and later: it will be made again."""
        self.metrics = [line for line in self.metrics if line["epoch"] < epoch]
        before = len(self.records)
        self.records = [record for record in self.records if record.epoch < epoch]
        write_sealed(self.folder, self._lines(had_records=before > 0))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Puts tensors and plain values into checkpoint.pt and keeps the one before."""
        import torch

        current = self.folder / CHECKPOINT
        if current.exists():
            _keep_as(current, self.folder / PREVIOUS)
        content = io.BytesIO()
        torch.save(dict(state), content)
        sealed = content.getvalue()
        write_bytes(current, sealed + _seal(sealed))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; None where the run was killed before its first.

        DamagedRunError where there are checkpoints and none is whole.
        """
        paths = [self.folder / name for name in (CHECKPOINT, PREVIOUS)]
        if not any(path.exists() for path in paths):
            self.notice(f"{self.folder} has no checkpoint yet; starting with its first epoch")
            return None
        for path in paths:
            state = read_checkpoint(path) if path.exists() else None
            if state is not None:
                if path.name == PREVIOUS:  # the next checkpoint must not push a damaged one here
                    paths[0].unlink(missing_ok=True)
                return state
            fault = "damaged" if path.exists() else "missing"
            self.notice(f"{path} is {fault}; trying the one before it")
        raise DamagedRunError(
            f"{self.folder} has no readable checkpoint; start again with another {option('out')}"
        )

    def _lines(self, had_records: bool = False) -> dict[str, bytes]:
        """The files of lines as they are now; a training has no records."""
        files = {"metrics.jsonl": b"".join(json.dumps(m).encode() + b"\n" for m in self.metrics)}
        if self.records or had_records:
            lines = (msgspec.json.encode(record) + b"\n" for record in self.records)
            files["decisions.jsonl"] = b"".join(lines)
        return files


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, or None where it is damaged. Runs no code from the file.

    The seal at its end is a SHA-256 of all before it: torch itself would take flipped bits in a
    tensor as they are.
    """
    import torch

    content = path.read_bytes()
    sealed = content[:-SEAL_LENGTH]
    if content[-SEAL_LENGTH:] != _seal(sealed):
        return None
    try:
        # First: torch words its refusal of a name in time that grows as the square of its length.
        if torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(sealed)):
            return None
        state = torch.load(io.BytesIO(sealed), map_location="cpu", weights_only=True)
    except Exception:  # sealed, but no checkpoint: torch raises whatever that leads it to
        return None
    return state if isinstance(state, dict) else None


def _keep_as(path: Path, other: Path) -> None:
    """Gives what is at `path` the name `other` too, or a copy of it, in one step."""
    spare = temporary_beside(other)
    try:
        with naming(other):
            try:
                os.link(path, spare)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, spare)
            os.replace(spare, other)
    finally:
        spare.unlink(missing_ok=True)  # a rename leaves it where both are one file already


def _seal(content: bytes) -> bytes:
    return b"sgas" + hashlib.sha256(content).digest()


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


class _Held(RunError):
    """Another process writes the run."""


def _lock(folder: Path, needed: bool = True) -> IO[str]:
    """Holds the folder for this process; the system lets go of it however the process ends.

    Where that is not `needed`, also on a file system without locks.
    """
    try:
        lock = open(folder / LOCK, "a+", encoding="utf-8", opener=no_link)  # noqa: SIM115 - as long as the run
    except OSError as error:
        raise RunError(
            f"cannot write in {folder}: {error.strerror}; see to that and run the same command "
            "again"
        ) from None
    try:
        held = take_lock(lock, wait=False)
    except OSError as error:
        lock.close()
        if isinstance(error, BlockingIOError):
            raise _Held(
                f"{folder} is being written by another process; wait for it to end"
            ) from None
        raise RunError(f"{folder} cannot be locked: {error.strerror}") from None
    if needed and not held:
        lock.close()
        raise RunError(
            f"{folder.parent} is on a file system without locks, which keep two processes from "
            f"writing one run: begin it with {option('no_lock', True)} if no other writes it"
        )
    return lock


def _needs_lock(config: Mapping[str, Any]) -> bool:
    """Whether a run was not begun without a lock."""
    return not config.get("run", {}).get("no_lock", False)


def _fresh_folder(folder: Path, needs_lock: bool) -> tuple[Path, IO[str]]:
    """A new folder beside `folder`, held by this process, that will become it."""
    for _ in range(TRIES):
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            return fresh, _lock(fresh, needs_lock)
        except _Held:  # another start took it for one of a killed process
            shutil.rmtree(fresh, ignore_errors=True)
        except RunError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    raise RunError(f"cannot write in {folder.parent}; see to that and run the same command again")


def _require_new(folder: Path) -> None:
    if folder.exists():
        go_on = f"go on with --resume {folder}, or " if is_run(folder) else ""
        raise RunError(f"{folder} exists already; {go_on}give another {option('out')}")


def _clear_killed_starts(folder: Path) -> None:
    """Removes what starts of this run left that were killed before it had its name."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.????????"):
        with contextlib.suppress(RunError), _lock(left):  # held: a start that goes on
            shutil.rmtree(left, ignore_errors=True)
