"""Puts benchmarks/ and its scripts' folder on the path, and runs the scripts in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Ended

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "reproduce"), str(BENCHMARKS / "quality")]


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs a script's main function with the words given; returns how it ended."""

    def run(module: Any, *words: str) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *words])
        try:
            status = module.main()
        except SystemExit as leave:
            status = leave.code
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Few images, and settings by which a search of `search_quality` takes two steps an epoch."""
    from benchmarks import kernel_agreement, search_quality  # noqa: F401

    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", image=image, label=np.arange(200) % 10)
    quick = {"warmup_epochs": 0, "decision_interval": 1, "alpha_start_epoch": 0, "batch_size": 30}
    # kernel_agreement imports its neighbour by the script's own name.
    for module in (search_quality, sys.modules["search_quality"]):
        monkeypatch.setattr(module, "SEARCH", {**search_quality.SEARCH, **quick})
        monkeypatch.setattr(module, "IMAGES_A_PART", 60)
        monkeypatch.setattr(module, "VALIDATION_IMAGES", 20)
    return tmp_path
