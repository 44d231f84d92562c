"""Sweeps of the toy family, and all that a study found, for comparison."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from processes import Ended
from toy_family import FAMILY

from sgas.cli import main
from sgas.studies.study import State, read_manifest, read_study

SMALL = ["sweep", "--strategies", "cri1,random", "--seeds", "0-1", "--out", "study"]
QUICK = [
    *("--search.warmup_epochs", "1", "--search.decision_interval", "1"),
    *("--search.final_epochs", "0", "--train.epochs", "3"),
]
COMMAND = [*SMALL, *QUICK]
NAMES = ("cri1-0", "cri1-1", "random-0", "random-1")


def sweep(folder: Path, *more: str, **environ: str) -> Ended:
    """Runs the command in this process: its jobs then share one server that has torch loaded."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    os.environ.update(environ)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(FAMILY, [*COMMAND, *more])
    finally:
        os.chdir(before)
        for name in environ:
            del os.environ[name]
    return Ended(status, out.getvalue(), err.getvalue())


def states(folder: Path) -> dict[str, State]:
    return {name: part.state for name, part in read_manifest(folder).parts.items()}


def figures(folder: Path) -> dict[str, Any]:
    """All that a study found, without times."""
    return {
        entry.name: (
            entry.genotype and entry.genotype.content_hash,
            entry.validation,
            entry.result,
            entry.test,
            entry.parameters,
            entry.flops,
        )
        for entry in read_study(folder).entries
    }
