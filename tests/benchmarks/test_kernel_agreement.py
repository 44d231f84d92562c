"""The comparison of whole searches over kernels, on made images and few steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import Ended

from benchmarks import kernel_agreement
from benchmarks.kernel_agreement import Outcome, Trace, edges_of

CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|{}~2|"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The type of new tensors as it was."""
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def agreement(images: Path, script: Callable[..., Ended]) -> Callable[..., Ended]:
    """Runs the script with options beside the images."""
    return partial(script, kernel_agreement, "--images", str(images), "--seeds", "0")


def test_kernels_find_the_same_cell_in_float64(agreement: Callable[..., Ended]) -> None:
    result = agreement("--strategies", "cri2", "--json").json
    assert set(result["summary"]) == {"cri2"}
    for summary in result["summary"].values():
        for variant in ("torch", "nudged"):
            assert summary[variant]["same_cells"] == summary["n"] == 1
            assert summary[variant]["same_edges"] == summary["edges"] == 6
            assert summary[variant]["operations"] == summary["cpu"]["operations"]
            # Above 0: the variants did run other arithmetic.
            assert 0 < summary[variant]["largest_difference"] < 1e-12


def test_float32_is_compared_in_float32(agreement: Callable[..., Ended]) -> None:
    chosen = ("--variants", "torch_nudged", "--nudge", "2")
    printed = agreement("--strategies", "darts", "--precision", "float32", *chosen)
    assert printed.status == 0
    _, _, ours, theirs = printed.out.splitlines()
    assert printed.out.startswith("float32")
    for row, name in ((ours, "darts cpu "), (theirs, "darts torch_nudged ")):
        assert row.startswith(name)
        assert sum(int(number) for number in row.split()[-4:]) == 6
    assert "darts seed 0: |" in printed.err


def test_a_cell_of_another_kernel_in_float64_is_a_failure(
    agreement: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search_with(variant: str, *rest: object) -> Outcome:
        cell = CELL.format("skip_connect" if variant == "torch" else "avg_pool_3x3")
        apart = 0.25 if variant == "torch" else 0.0
        trace = Trace(None, [torch.zeros(6, 5), torch.full((6, 5), apart)], [2.0, 1.0 + apart])  # type: ignore[arg-type]
        return Outcome(cell, trace, 1.0)

    monkeypatch.setattr(kernel_agreement, "search_with", search_with)
    ended = agreement("--strategies", "darts", "--json")
    assert ended.status == 1
    (row,) = json.loads(ended.out)["searches"]
    assert row["torch"]["same_edges"] == 5 and not row["torch"]["same_cell"]
    assert row["torch"]["largest_difference"] == 0.25
    assert row["torch"]["parted_in_epoch"] == 2
    assert row["torch"]["last_loss_difference"] == 0.25
    assert row["nudged"]["same_cell"] and row["nudged"]["parted_in_epoch"] is None


@pytest.mark.parametrize("wrong", [("--strategies", "dart"), ("--variants", "cpu")])
def test_a_wrong_name_is_told(agreement: Callable[..., Ended], wrong: tuple[str, str]) -> None:
    ended = agreement(*wrong)
    assert ended.status == 2 and repr(wrong[1]) in ended.err


def test_edges_of_a_cell() -> None:
    expected = ["none~0", "none~0", "none~1", "none~0", "none~1", "avg_pool_3x3~2"]
    assert edges_of(CELL.format("avg_pool_3x3")) == expected
