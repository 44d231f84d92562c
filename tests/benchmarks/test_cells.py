"""Random cells trained alike: whole, resumed, and variances that follow from the figures."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import cells
from sgas.cells.genotype import Genotype
from sgas_gcn.family import FAMILY


def test_cells_are_trained_once_and_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"num_points": 16, "k": 3, "num_cells": 1, "channels": 4, "emb_dims": 8, "epochs": 1}
    monkeypatch.setitem(cells.TRAINING, "point", {**sizes, "batch_size": 200})
    options = argparse.Namespace(
        space="point", dataset="shapes", out=str(tmp_path / "cells.jsonl"), count=3, repeated=2
    )
    result = cells.measure(options)
    assert [(line["cell"], line["seed"]) for line in result["cells"]] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1),
    ]  # fmt: skip
    texts = {line["genotype"] for line in result["cells"]}
    assert len(texts) == 3
    for text in texts:
        Genotype.from_text(text, "point").validate(FAMILY.search_space("point"))
    assert {"accuracy", "loss"} <= set(result["figures"])
    monkeypatch.setattr(cells, "train", lambda *_: pytest.fail("trained again"))
    assert cells.measure(options)["figures"] == result["figures"]


def test_variances_between_and_within_cells_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(50, 3, 1500)
    figures = truth + draw.normal(0, 2, (2, 1500))
    lines = [
        {"cell": number, "seed": seed, "validation_accuracy": figures[seed][number]}
        for seed in (0, 1)
        for number in range(1500)
    ]
    row = cells.spreads(lines, "validation_accuracy")
    assert row["sd_between_cells"] == pytest.approx(3, rel=0.1)
    assert row["sd_between_seeds"] == pytest.approx(2, rel=0.1)
    assert row["share_of_cells"] == pytest.approx(9 / 13, rel=0.1)
    known = abs(truth[figures[0].argmax()] - 50)
    assert row["most_to_win"] == pytest.approx(known, rel=0.35)
