"""The comparison of whole searches over kernels, on made images and few steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import kernel_agreement, search_quality
from benchmarks.kernel_agreement import Outcome, Trace, edges_of
from sgas.native.backend import use_kernels

CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|{}~2|"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The type of new tensors and the choice of kernels as they were."""
    yield
    torch.set_default_dtype(torch.float32)
    use_kernels("auto")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Few images, and settings by which a search takes two steps an epoch."""
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "train.npz",
        image=draw.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8),
        label=np.arange(200) % 10,
    )
    quick = {"warmup_epochs": 0, "decision_interval": 1, "alpha_start_epoch": 0, "batch_size": 30}
    # The script imports its neighbour by its own name.
    for module in (search_quality, sys.modules["search_quality"]):
        monkeypatch.setattr(module, "SEARCH", {**search_quality.SEARCH, **quick})
        monkeypatch.setattr(module, "IMAGES_A_PART", 60)
        monkeypatch.setattr(module, "VALIDATION_IMAGES", 20)
    return tmp_path


@pytest.fixture
def agreement(images: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the script with options beside the images; returns its exit status."""

    def run(*options: str) -> int:
        argv = ["kernel_agreement.py", "--images", str(images), "--seeds", "0", *options]
        monkeypatch.setattr(sys, "argv", argv)
        return kernel_agreement.main()

    return run


def figures(printed: str) -> Mapping[str, Any]:
    """What --json printed."""
    result: Mapping[str, Any] = json.loads(printed)
    return result


def test_kernels_find_the_same_cell_in_float64(
    agreement: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert agreement("--strategies", "cri2", "--json") == 0
    result = figures(capsys.readouterr().out)
    assert set(result["summary"]) == {"cri2"}
    for summary in result["summary"].values():
        for variant in ("torch", "nudged"):
            assert summary[variant]["same_cells"] == summary["n"] == 1
            assert summary[variant]["same_edges"] == summary["edges"] == 6
            assert summary[variant]["operations"] == summary["cpu"]["operations"]
            # Above 0: the variants did run other arithmetic.
            assert 0 < summary[variant]["largest_difference"] < 1e-12


def test_float32_is_compared_in_float32(
    agreement: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("--variants", "torch_nudged", "--nudge", "2")
    assert agreement("--strategies", "darts", "--precision", "float32", *chosen) == 0
    printed = capsys.readouterr()
    _, _, ours, theirs = printed.out.splitlines()
    assert printed.out.startswith("float32")
    for row, name in ((ours, "darts cpu "), (theirs, "darts torch_nudged ")):
        assert row.startswith(name)
        assert sum(int(number) for number in row.split()[-4:]) == 6
    assert "darts seed 0: |" in printed.err


def test_a_cell_of_another_kernel_in_float64_is_a_failure(
    agreement: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def search_with(variant: str, *rest: object) -> Outcome:
        cell = CELL.format("skip_connect" if variant == "torch" else "avg_pool_3x3")
        apart = 0.25 if variant == "torch" else 0.0
        trace = Trace(None, [torch.zeros(6, 5), torch.full((6, 5), apart)], [2.0, 1.0 + apart])  # type: ignore[arg-type]
        return Outcome(cell, trace, 1.0)

    monkeypatch.setattr(kernel_agreement, "search_with", search_with)
    assert agreement("--strategies", "darts", "--json") == 1
    (row,) = figures(capsys.readouterr().out)["searches"]
    assert row["torch"]["same_edges"] == 5 and not row["torch"]["same_cell"]
    assert row["torch"]["largest_difference"] == 0.25
    assert row["torch"]["parted_in_epoch"] == 2
    assert row["torch"]["last_loss_difference"] == 0.25
    assert row["nudged"]["same_cell"] and row["nudged"]["parted_in_epoch"] is None


@pytest.mark.parametrize("wrong", [("--strategies", "dart"), ("--variants", "cpu")])
def test_a_wrong_name_is_told(
    agreement: Callable[..., int], capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]
) -> None:
    assert agreement(*wrong) == 2
    assert repr(wrong[1]) in capsys.readouterr().err


def test_edges_of_a_cell() -> None:
    expected = ["none~0", "none~0", "none~1", "none~0", "none~1", "avg_pool_3x3~2"]
    assert edges_of(CELL.format("avg_pool_3x3")) == expected
