"""Runs a command line in a process of its own, quickly: a server has torch loaded and forks."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sgas.files import SEALS
from sgas.studies.jobs import PRELOAD

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*PRELOAD, "sgas.running.pictures", "sgas_gcn.task"])


@dataclass(frozen=True)
class Ended:
    """How a command ended: negative status for a signal, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What a command printed that succeeded."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    def is_refused(self, message: str, status: int = 2) -> bool:
        """Whether it ended with a status, one line of error with `message` in it, and no more."""
        assert (self.status, self.out) == (status, ""), self
        assert message in self.err and self.err.count("\n") == 1, self.err
        return True


Cli = Callable[..., Ended]


def child(family: str, argv: list[str], folder: str, environ: dict[str, str]) -> None:
    """What a new process does that runs a command: its output goes to .out and .err of `folder`."""
    from sgas.cli import main

    enter(folder, environ)
    leave(main(import_module(family).FAMILY, argv))


def script_child(path: str, folder: str, environ: dict[str, str]) -> None:
    """As `child`, for a script as Python runs it."""
    enter(folder, environ)
    sys.argv = [path]
    runpy.run_path(path, run_name="__main__")
    leave(0)


def enter(folder: str, environ: dict[str, str]) -> None:
    """Makes a new process one that was started in `folder`, with one thread."""
    os.chdir(folder)
    os.environ.update(environ)
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        file = os.open(f"{folder}/.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, {"out": 1, "err": 2}[name])
        stream.flush()
    import torch

    torch.set_num_threads(1)


def leave(status: int) -> None:
    """Ends the process with all that it printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def command(argv: Sequence[str], folder: Path, family: str = "toy_family", **environ: str) -> Ended:
    """Runs `argv` in `folder` and returns how it ended."""
    return ended(child, folder, environ, family, list(argv))


def script(path: Path, folder: Path, **environ: str) -> Ended:
    """Runs a Python file in `folder` and returns how it ended."""
    return ended(script_child, folder, environ, str(path))


def ended(
    target: Callable[..., None], folder: Path, environ: dict[str, str], *arguments: Any
) -> Ended:
    """How a process of a `target` in `folder` ended."""
    process = CONTEXT.Process(target=target, args=(*arguments, str(folder), environ))
    process.start()
    process.join(240)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{arguments} did not end")
    out, err = ((folder / f".{name}").read_text() for name in ("out", "err"))
    return Ended(process.exitcode, out, err)


def edit(path: Path, text: str) -> None:
    """Writes into a file of a run by hand, as into one of a version that kept no seals."""
    path.write_text(text)
    path.with_name(SEALS).unlink(missing_ok=True)
