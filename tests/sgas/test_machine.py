"""What a run keeps of the machine and the code that made it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sgas.running.machine import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_names_its_commit() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("these files are no checkout")
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = environment(torch.device("cpu"))["git_commit"]
    assert re.fullmatch(r"[0-9a-f]{12,}[+]?", told) and done.stdout.startswith(told.rstrip("+"))
