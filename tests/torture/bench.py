"""A place for cases: commands run in forks of this process, disturbed, and what they end with.

The commands are those of the toy family, which take tens of milliseconds of CPU time since torch is
loaded once, and a small search and training of each real family.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from processes import Ended, child
from toy_family import FAMILY

from sgas.cli import main
from sgas.running import events
from sgas.running.runs import read_checkpoint
from tests.torture.calls import Disturbance, arm, count

GENOTYPE = {
    "format": 1,
    "space": "toy",
    "cells": {
        kind: {
            "edges": [{"op": "linear", "source": 0}, {"op": "gate", "source": 1}],
            "concat": [1, 2],
        }
        for kind in ("normal", "reduce")
    },
}
QUICK = ["--seed=3", "--threads=1", "--num_steps=1", "--batch_size=50", "--batch_increase=1"]
QUICK += ["--warmup_epochs=1", "--decision_interval=1", "--final_epochs=0"]
POINTS = ["--dataset=shapes", "--num_points=64", "--k=4", "--kernels=torch", "--threads=1"]
GRAPHS = ["--dataset=tissues", "--kernels=torch", "--threads=1"]
IMAGES = ["--dataset=digits", "--kernels=torch", "--threads=1"]
SMALL_SEARCH = ["--warmup_epochs=1", "--decision_interval=1", "--final_epochs=0"]


class Wrong(Exception):
    """What a case showed to be wrong, in a line."""


def require(holds: bool, what: str) -> None:
    """Wrong where something does not hold."""
    if not holds:
        raise Wrong(what)


@contextlib.contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """Inside, this process gets MemoryError for more memory than that beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@dataclass(frozen=True)
class Job:
    """A command that writes a run in the folder `runs/x` below the current one."""

    family: str
    argv: list[str]

    @property
    def verb(self) -> str:
        """search or train."""
        return self.argv[0]


OUT = ["--out", "runs/x"]
HEAD, PLAIN = ["--emb_dims=8", "--epochs=2"], ["--epochs=2", "--auxiliary=false"]
ONE_STEP = ["--num_steps=1", "--num_cells=1"]
TRAIN = ["train", "genotype.json", "--dataset=blobs", "--seed=3", "--threads=1", "--epochs=3"]
JOBS = {
    "search": Job("toy_family", ["search", *OUT, *QUICK]),
    "effects": Job("toy_family", ["search", *OUT, *QUICK, "--strategy=effects"]),
    "train": Job("toy_family", [*TRAIN, *OUT, "--batch_size=50", "--kept_epoch=best"]),
    "point": Job(
        "sgas_gcn.family",
        ["search", *OUT, *POINTS, *SMALL_SEARCH, *ONE_STEP, "--channels=4", "--emb_dims=8"],
    ),
    "graph": Job(
        "sgas_gcn.family", ["search", *OUT, *GRAPHS, *SMALL_SEARCH, *ONE_STEP, "--channels=4"]
    ),
    "image": Job(
        "sgas_cnn.family",
        [
            "search",
            *OUT,
            *IMAGES,
            *SMALL_SEARCH,
            "--space=nasbench201",
            "--channels=2",
            "--num_cells=1",
        ],
    ),
    "point-train": Job(
        "sgas_gcn.family",
        ["train", "cri2-modelnet-best", *OUT, *POINTS, "--channels=4", "--num_cells=1", *HEAD],
    ),
    "graph-train": Job(
        "sgas_gcn.family",
        ["train", "cri2-ppi-best", *OUT, *GRAPHS, "--channels=4", "--num_cells=1", "--epochs=2"],
    ),
    "image-train": Job(
        "sgas_cnn.family",
        ["train", "cri2-cifar-best", *OUT, *IMAGES, "--channels=2", "--num_cells=2", *PLAIN],
    ),
}
TOY = ("search", "effects", "train")


@dataclass(frozen=True)
class Undisturbed:
    """How a job ends that nothing disturbs: calls that change files, and what it leaves."""

    calls: int
    outcome: str
    folder: Path


@dataclass(eq=False)
class Bench:
    """A folder in memory, where there is one, and the processes of its cases."""

    _ended: dict[str, Undisturbed] = field(default_factory=dict)
    _warm: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        # TensorBoard writes by a thread, at moments of its own.
        events.find_spec = lambda name: None  # type: ignore[assignment]

    @cached_property
    def root(self) -> Path:
        """Where all cases are."""
        shared = Path("/dev/shm")
        base = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
        return Path(tempfile.mkdtemp(prefix="sgas-torture-", dir=base))

    def close(self) -> None:
        """Takes all that the cases left away."""
        shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def folder(self, name: str = "case") -> Iterator[Path]:
        """A fresh folder for a case, with what its command reads."""
        folder = self.root / name
        folder.mkdir()
        (folder / "genotype.json").write_text(json.dumps(GENOTYPE))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def start(
        self,
        job: Job,
        folder: Path,
        argv: Sequence[str] = (),
        disturbance: Disturbance | None = None,
        trace: Path | None = None,
        before: Callable[[], Any] = lambda: None,
    ) -> int:
        """The number of a process that runs `argv`, by default the job's, in `folder`."""
        self._warm_up(job)
        process = os.fork()
        if process == 0:
            try:
                before()
                arm(folder, disturbance, trace)
                child(job.family, list(argv) or job.argv, str(folder), {})
            finally:
                os._exit(70)
        return process

    def wait(self, process: int, folder: Path) -> Ended:
        """How a process ended, and what it printed."""
        _, status = os.waitpid(process, 0)
        out, err = ((folder / f".{name}").read_text() for name in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err)

    def run(self, job: Job, folder: Path, *rest: Any, **options: Any) -> Ended:
        """Runs a command to its end."""
        return self.wait(self.start(job, folder, *rest, **options), folder)

    def undisturbed(self, name: str) -> Undisturbed:
        """How the job of this name ends, run once."""
        if name not in self._ended:
            kept = self.root / f"undisturbed-{name}"
            with self.folder(f"alone-{name}") as folder:
                ended = self.run(JOBS[name], folder)
                require(ended.status == 0, f"{name} alone: {ended.err}")
                calls = count()
                shutil.copytree(folder, kept)
            self._ended[name] = Undisturbed(calls, outcome(kept / "runs" / "x"), kept)
        return self._ended[name]

    def require_same_end(self, name: str, folder: Path) -> None:
        """Runs the job's command once more, and compares what it ends with."""
        ended = self.run(JOBS[name], folder)
        require(ended.status == 0, f"the next start failed: {ended.status} {last_line(ended.err)}")
        left = [path.name for path in (folder / "runs").rglob(".*") if path.name != ".lock"]
        require(not left, f"the next start left {left}")
        end = outcome(folder / "runs" / "x")
        require(end == self.undisturbed(name).outcome, "it ended with other bits")

    def _warm_up(self, job: Job) -> None:
        """Runs a command of this kind here once: what it loads and keeps, its processes then have.

        Else each of them imports, compiles templates and asks for plug-ins anew: half of its time.
        """
        if (job.family, job.verb) in self._warm:
            return
        self._warm.add((job.family, job.verb))
        job = next(one for one in JOBS.values() if (one.family, one.verb) == (job.family, job.verb))
        family = importlib.import_module(job.family).FAMILY
        told, before = io.StringIO(), Path.cwd()
        with self.folder("warm") as folder:
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                    status = main(family, job.argv)
            finally:
                os.chdir(before)
        require(status == 0, f"{job.argv}: {told.getvalue()}")
        gc.collect()
        gc.freeze()  # else each fork copies what its collector touches


def last_line(text: str) -> str:
    """The last line that a process printed."""
    return (text.splitlines() or [""])[-1]


def error_line(ended: Ended) -> str:
    """The one line of error of a command that failed; Wrong where it is not one."""
    lines = ended.err.splitlines()
    require("Traceback" not in ended.err, f"a traceback: {last_line(ended.err)}")
    errors = [line for line in lines if line.startswith("error: ")]
    require(len(errors) == 1 and lines[-1] == errors[0], f"no line of error: {ended.err[-300:]!r}")
    require("fault of ours" not in errors[0], errors[0])
    return errors[0]


def outcome(folder: Path) -> str:
    """A hash of all that a run ends with: weights, alphas, generators, decisions, genotype."""
    digest = hashlib.sha256()
    state = read_checkpoint(folder / "checkpoint.pt")
    require(state is not None, f"{folder} has no whole checkpoint")
    for name, value in sorted(_flat(state)):
        if torch.is_tensor(value):
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif not name.endswith("/seconds"):
            digest.update(f"{name}={value!r}".encode())
    for name in ("decisions.jsonl", "genotype.json", "weights.safetensors"):
        digest.update((folder / name).read_bytes() if (folder / name).exists() else b"none")
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        figures = json.loads(line)
        del figures["seconds"]
        digest.update(json.dumps(figures).encode())
    return digest.hexdigest()


def _flat(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict | list | tuple):
        for key, part in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _flat(part, f"{path}/{key}")
    else:
        yield path, state


__all__ = ["FAMILY", "JOBS", "TOY", "Bench", "Job", "Wrong"]
