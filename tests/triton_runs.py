"""How tests run Triton kernels: interpreted in this process, compiled on a GPU in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sgas.native.backend import use_kernels

ROOT = Path(__file__).parents[1]
ON_GPU = "SGAS_TEST_COMPILED"  # set in the process that compiles

# A process has the kernels in one form alone. The interpreter takes a thousand times as long as
# what it stands for: tests give it less.
DEVICE = "cuda" if ON_GPU in os.environ else "cpu"
INTERPRETED = DEVICE == "cpu"


def interpret() -> None:
    """From now on Triton interprets in this process, unless it was started to compile."""
    if INTERPRETED:
        os.environ["TRITON_INTERPRET"] = "1"


@contextmanager
def triton_kernels() -> Iterator[None]:
    """Inside, the primitives run by Triton; skips the test where Triton is not installed."""
    pytest.importorskip("triton", reason="Triton is not installed")
    use_kernels("cuda")
    try:
        yield
    finally:
        use_kernels("auto")


def pass_compiled(*test_files: str, only: str = "") -> None:
    """Runs tests again with Triton's kernels compiled, on a GPU; they all have to pass.

    `only`: those of the files whose names have that in them.
    """
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    command = [sys.executable, "-m", "pytest", "-m", "not gpu", "-k", only, *test_files]
    run_alone(command, {ON_GPU: "1"})


def run_alone(command: list[str], more: dict[str, str]) -> str:
    """What a command prints, run at the root without the interpreter; fails where it fails."""
    environment = {**os.environ, **more}
    environment.pop("TRITON_INTERPRET", None)
    return _run(command, environment)


def run_interpreted(command: list[str]) -> str:
    """What a command prints, run at the root with the interpreter; fails where it fails."""
    return _run(command, {**os.environ, "TRITON_INTERPRET": "1"})


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
