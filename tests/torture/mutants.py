"""mutants: bugs seeded into the saving and loading code. The other programs have to catch each."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.torture.bench import Bench, Wrong
from tests.torture.seeded import ENVIRON, MUTANTS, ROOT, changed


def check(bench: Bench, case: int, seed: int) -> None:
    """One bug, and the program that has to catch it."""
    number = case % len(MUTANTS)
    mutant = MUTANTS[number]
    changed(mutant, (ROOT / mutant.file).read_bytes())
    command = [sys.executable, "-m", "tests.torture", mutant.program, "--first"]
    command += ["--n", str(mutant.n), "--seed", str(seed)]
    environ = {**os.environ, ENVIRON: str(number)}
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    if ended.returncode == 0:
        raise Wrong(f"{mutant.file}: {mutant.new.strip()!r} in place of {mutant.old.strip()!r}")


SMALL = 1
