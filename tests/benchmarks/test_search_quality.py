"""The benchmark of search quality on a made table: what it prints follows from the table alone."""

from __future__ import annotations

import argparse
import itertools
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search_quality
from sgas.errors import DataError
from sgas_cnn.config import NASBENCH201_OPERATIONS


def cells() -> list[str]:
    return [
        f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        for a, b, c, d, e, f in itertools.product(NASBENCH201_OPERATIONS, repeat=6)
    ]


def accuracy(cell: str) -> float:
    """More convolutions are better here."""
    return 50 + 5 * cell.count("3x3~") + cell.count("1x1~")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    rows = [f"{cell},{accuracy(cell)}" for cell in cells()]
    path.write_text("arch,test accuracy\n" + "\n".join(rows) + "\n")
    return path


def test_the_searches_are_judged_by_the_table(table: Path, images: Path) -> None:
    options = argparse.Namespace(
        table=str(table),
        images=str(images),
        seeds="0,3",
        strategies="cri2,darts",
        control="permuted_labels",
    )
    result = search_quality.run(options)
    assert set(result["strategies"]) == {"cri2", "darts"}
    tests = np.array([accuracy(cell) for cell in cells()])
    for figures in result["strategies"].values():
        assert [row["seed"] for row in figures["seeds"]] == [0, 3]
        for row in figures["seeds"]:
            assert row["test"] == accuracy(row["cell"])
            assert row["regret"] == tests.max() - row["test"]
            assert row["percentile"] == pytest.approx(100 * (tests > row["test"]).mean())
        ranks = [row["percentile"] for row in figures["seeds"]]
        assert figures["mean_percentile"] == pytest.approx(np.mean(ranks))
        assert figures["worst_percentile"] == max(ranks)
    controls = result["controls"]
    assert controls["random_convolutions"]["cells"] == 2**6
    assert controls["random_without_none"]["cells"] == 4**6
    assert set(controls["permuted_labels"]) == set(result["strategies"])
    assert set(result["paired_with_darts"]) == {"cri2"}


def test_an_incomplete_table_is_refused(table: Path) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if "|none~0|+|none~0|" not in line))
    known = search_quality.read_table(table)
    with pytest.raises(DataError, match="is it whole"):
        search_quality.random_cells(known, NASBENCH201_OPERATIONS)


def test_the_search_cannot_reach_the_table() -> None:
    functions = (search_quality.search_once, search_quality.searching)
    names = {name for function in functions for name in unwrap(function).__code__.co_names}
    assert "read_table" not in names and "judge" not in names
