"""Puts benchmarks/ and its scripts' folder on the path, and runs the scripts in this process."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Ended

from sgas_gcn.config import NasBenchGraphConfig

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


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """One graph without a split, of two classes of 60 nodes and a node apart."""
    draw, label = np.random.default_rng(0), np.arange(121) % 2
    x = draw.normal(size=(121, 5)) + label[:, None]
    ring = np.stack([np.arange(120), (np.arange(120) + 1) % 120], 1)
    np.savez(tmp_path / "graph.npz", x=x.astype(np.float32), label=label, edge=ring)
    return tmp_path / "graph.npz"


@pytest.fixture
def graph_table(tmp_path: Path) -> Path:
    """A table of all links and operations, in which fewer skips are better."""
    keys = [int("".join(digits)) for digits in itertools.product("012345678", repeat=5)]
    tests = [0.9 - 0.1 * f"{key:05d}"[1:].count("8") for key in keys[:-1]]
    columns = {"hash": keys[:-1], "valid": np.float32(tests), "test": np.float32(tests)}
    np.savez(tmp_path / "table.npz", **columns)
    return tmp_path / "table.npz"


@pytest.fixture
def quick_nasbenchgraph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of NAS-Bench-Graph in a few steps of small networks."""
    import nasbenchgraph

    quick = {"warmup_epochs": 0, "decision_interval": 1}
    monkeypatch.setattr(nasbenchgraph, "SEARCH", {**nasbenchgraph.SEARCH, **quick})
    monkeypatch.setattr(nasbenchgraph, "MODEL", NasBenchGraphConfig(channels=4))
