"""Conducts the jobs of a study: starts them, watches them, puts right what they left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from sgas.errors import Interrupted
from sgas.family import Family
from sgas.running.signals import StopSignal
from sgas.studies.jobs import Job, Jobs
from sgas.studies.overview import Overview
from sgas.studies.study import PHASES, Part, State, change_parts, read_info, read_manifest
from sgas.terminal import tell

LOOK = 0.5  # seconds between two looks at the manifest
REMIND = 5.0  # seconds until a job that goes on is told again to stop


def conduct(family: Family, folder: Path, names: Sequence[str], jobs: Jobs, again: str) -> int:
    """Runs all entries that are not done: 0 where all are done, 1 where a part failed.

    Interrupted after a stop signal; `again` is the command that goes on.
    """
    parts = read_manifest(folder).parts
    running = _still_queued(folder, names, parts)
    _put_right(folder, [name for name in names if name not in {job.entry for job in running}])
    overview = Overview(family, folder, read_info(folder), names)
    with StopSignal() as stop, overview:
        overview.show(read_manifest(folder).parts, len(running), jobs.capacity)
        waiting = _not_done(names, read_manifest(folder).parts, running)
        while (waiting or running) and not stop.requested:
            free = len(waiting) if jobs.capacity is None else jobs.capacity - len(running)
            if waiting and free > 0:
                _forget_failures(folder, waiting[:free])
                started = jobs.start(waiting[:free])
                waiting = waiting[free:]
                _note_numbers(folder, started)
                running += started
            jobs.wait(running, LOOK)
            running = list(_settle(folder, running))
            overview.show(read_manifest(folder).parts, len(running), jobs.capacity)
        if running and not jobs.outlive:
            _stop(jobs, running)
            _put_right(folder, names)
    if stop.requested:
        raise Interrupted(_stopped_message(folder, names, running if jobs.outlive else [], again))
    return _report(family, folder, names)


def _not_done(names: Sequence[str], parts: Mapping[str, Part], running: Sequence[Job]) -> list[str]:
    taken = {job.entry for job in running}
    return [
        name
        for name in names
        if name not in taken
        and any(parts[f"{name}/{phase}"].state is not State.DONE for phase in PHASES)
    ]


def _still_queued(folder: Path, names: Sequence[str], parts: Mapping[str, Part]) -> list[Job]:
    """Jobs of an earlier command that Slurm still has."""
    numbers = {
        name: part.job
        for name in names
        for phase in PHASES
        if (part := parts[f"{name}/{phase}"]).job and part.job.startswith("slurm:")
        if part.state in (State.WAITING, State.RUNNING)
    }
    if not numbers:
        return []
    from sgas.studies.cluster import SlurmJob, update_states

    jobs_there = [SlurmJob(name, number) for name, number in numbers.items() if number]
    update_states(jobs_there)
    return [job for job in jobs_there if job.ended() is None]


def _put_right(folder: Path, names: Sequence[str]) -> None:
    """Parts that no process works on wait; parts whose files are gone are made again."""

    def righted(parts: Mapping[str, Part]) -> dict[str, Part]:
        changes = {}
        for name in names:
            for phase in PHASES:
                part = parts[f"{name}/{phase}"]
                gone = part.state is State.DONE and not _evidence(folder / name, phase).is_file()
                if gone or part.state is State.RUNNING:
                    changes[f"{name}/{phase}"] = Part(State.WAITING, part.log)
        return changes

    change_parts(folder, righted)


def _evidence(entry: Path, phase: str) -> Path:
    """The file that a phase writes last."""
    return {
        "search": entry / "search" / "genotype.json",
        "train": entry / "train" / "result.json",
        "evaluate": entry / "train" / "evaluation.json",
    }[phase]


def _forget_failures(folder: Path, names: Sequence[str]) -> None:
    """Parts that failed wait again: their jobs are about to be started."""

    def forgotten(parts: Mapping[str, Part]) -> dict[str, Part]:
        return {
            name: Part(State.WAITING, parts[name].log)
            for name in (f"{entry}/{phase}" for entry in names for phase in PHASES)
            if parts[name].state is State.FAILED
        }

    change_parts(folder, forgotten)


def _note_numbers(folder: Path, started: Sequence[Job]) -> None:
    """Puts a cluster's number of each job into the manifest, for the next command to find it."""

    def noted(parts: Mapping[str, Part]) -> dict[str, Part]:
        return {
            name: msgspec.structs.replace(parts[name], job=job.number)
            for job in started
            for name in (f"{job.entry}/{phase}" for phase in PHASES)
            if job.number and parts[name].state is not State.DONE
        }

    change_parts(folder, noted)


def _settle(folder: Path, running: Sequence[Job]) -> Iterator[Job]:
    """The jobs that go on. Where one died, its part is marked as failed."""
    for job in running:
        how = job.ended()
        if how is None:
            yield job
        elif how:
            _mark_dead(folder, job, how)


def _mark_dead(folder: Path, job: Job, how: str) -> None:
    """Marks the first part that a dead job has left as failed."""

    def marked(parts: Mapping[str, Part]) -> dict[str, Part]:
        left = [f"{job.entry}/{phase}" for phase in PHASES]
        left = [name for name in left if parts[name].state is not State.DONE]
        if not left or parts[left[0]].state is State.FAILED:
            return {}
        dead = msgspec.structs.replace(parts[left[0]], state=State.FAILED, error=how)
        return {left[0]: dead}

    change_parts(folder, marked)


def _stop(jobs: Jobs, running: list[Job]) -> None:
    """Tells all jobs to stop and returns when they have; a second Ctrl-C does not wait."""
    last_time = -REMIND
    while running:
        if time.monotonic() - last_time > REMIND:
            for job in running:
                job.stop()
            last_time = time.monotonic()
        jobs.wait(running, LOOK)
        running = [job for job in running if job.ended() is None]


def _stopped_message(folder: Path, names: Sequence[str], left: Sequence[Job], again: str) -> str:
    parts = read_manifest(folder).parts
    mine = [parts[f"{name}/{phase}"] for name in names for phase in PHASES]
    done = sum(part.state is State.DONE for part in mine)
    message = f"stopped; {done} of {len(mine)} parts are done"
    if left:
        arrays = sorted({str(job.number).removeprefix("slurm:").partition("_")[0] for job in left})
        message += f"; {len(left)} jobs go on in Slurm (scancel {' '.join(arrays)} ends them)"
    return f"{message}; go on with: {again}"


def _report(family: Family, folder: Path, names: Sequence[str]) -> int:
    """Prints how the study ended and returns the exit status."""
    parts = read_manifest(folder).parts
    mine = {f"{n}/{phase}": parts[f"{n}/{phase}"] for n in names for phase in PHASES}
    done = sum(part.state is State.DONE for part in mine.values())
    print(f"study    {folder} · {done} of {len(mine)} parts done")
    for name, part in mine.items():
        if part.state is State.FAILED:
            where = folder / part.log if part.log else folder / "cluster"
            tell(f"failed   {name}: {part.error} (log: {where})")
    waiting = sum(part.state is State.WAITING for part in mine.values())
    if waiting:
        print(f"waiting  {waiting} parts, which were interrupted or follow one that was not done")
    if done < len(mine):
        print("next     the same command, which tries again what failed")
        return 1
    print(f"next     {family.command} table {folder}")
    return 0
