"""power: at any call the power fails, and of what was not synced any part is gone."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sgas.errors import SgasError
from sgas.running.progress import ShowProgress
from sgas.running.runs import Run, is_run, read_config, read_genotype
from tests.torture.bench import JOBS, TOY, Bench, Wrong, require
from tests.torture.calls import Call, Kind, mark, read_trace
from tests.torture.disk import Disk

WHOLE_ONE_IN = 25  # new states that are run to their end; of the others it is read what is there


@dataclass(eq=False)
class Recording:
    """A run's calls, and after how many of them an epoch was told to the user."""

    calls: list[Call]
    root: Path
    told: list[int]
    seen: set[str] = field(default_factory=set)


@cache
def recording(bench: Bench, name: str) -> Recording:
    """The calls of a job that nothing disturbs."""
    trace = bench.root / f"{name}.trace"
    with bench.folder() as folder:
        ended = bench.run(JOBS[name], folder, trace=trace, before=_mark_epochs)
        require(ended.status == 0, ended.err)
    calls = list(read_trace(trace))
    told = [at for at, call in enumerate(calls) if call.kind is Kind.MARK]
    return Recording(calls, folder, told)


def _mark_epochs() -> None:
    """The trace says when an epoch is shown."""
    show = ShowProgress.epoch_ended

    def told(self: ShowProgress, epoch: int, *rest: object) -> None:
        show(self, epoch, *rest)  # type: ignore[arg-type]
        mark("epoch")

    ShowProgress.epoch_ended = told  # type: ignore[method-assign]


def check(bench: Bench, case: int, seed: int) -> None:
    """One state after a crash: no epoch that was told is lost, and the run goes on as ever."""
    draw = random.Random(f"{seed}/{case}")
    name = draw.choice(TOY)
    record = recording(bench, name)
    moment = draw.randrange(len(record.calls) + 1)
    disk = Disk(record.root)
    for call in record.calls[:moment]:
        disk.add(call)
    told = bisect_right(record.told, moment - 1)
    with bench.folder() as folder:
        disk.write_after_crash(folder, draw)
        state = _hash(folder)
        try:
            if state in record.seen:
                return
            record.seen.add(state)
            _read(folder / "runs" / "x", told, moment == len(record.calls))
            if draw.randrange(WHOLE_ONE_IN) == 0:
                bench.require_same_end(name, folder)
        except (Wrong, SgasError) as error:
            raise Wrong(f"{name}, power gone after call {moment}, {told} epochs: {error}") from None


def _read(run: Path, told: int, ended: bool) -> None:
    """What was told is there, and all can be read."""
    if not is_run(run):
        require(told == 0 and not ended, "the run is gone")
        require(not run.exists(), "a folder that is no run stands where it would be")
        return
    read_config(run)
    with Run.open(run) as opened:
        if not told and not list(run.glob("checkpoint*")):
            return
        state = opened.load_checkpoint()
        require(state is not None, "the checkpoint is gone")
        epoch = state["epoch"]  # type: ignore[index]
        require(epoch >= told, f"the checkpoint is of {epoch} epochs")
        require(len(opened.metrics) >= epoch, f"metrics.jsonl has {len(opened.metrics)} of {epoch}")
        if told:
            read_genotype(run)


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"/")
    return digest.hexdigest()


SMALL = 100
