"""The comparison on labelled graphs: every graph is tested once, by every network alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import graph_classification


def test_each_network_is_measured_on_every_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, sizes = np.random.default_rng(0), np.full(24, 5)
    label = np.arange(24) % 2
    x = draw.standard_normal((120, 3)) + 2 * np.repeat(label, 5)[:, None]
    edge = np.tile([(0, 1), (1, 2), (2, 3), (3, 4)], (24, 1))
    pointers = {"node_ptr": np.append(0, sizes.cumsum()), "edge_ptr": np.arange(25) * 4}
    np.savez(tmp_path / "own.npz", x=x, edge=edge, label=label, **pointers)
    words = ["--epochs", "2", "--folds", "3", "--batch_size", "8", "--preset", "demo", "--json"]
    words += ["--keep", str(tmp_path / "kept")]
    argv = ["x", "--dataset", str(tmp_path / "own.npz"), "--genotype", "cri2-ppi-best", *words]
    monkeypatch.setattr(sys, "argv", argv)
    assert graph_classification.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["networks"]) == ["ours", "gin", "gcn"]
    assert all(len(row["folds"]) == 3 for row in result["networks"].values())
    ours, gin = (np.array(result["networks"][name]["folds"]) for name in ("ours", "gin"))
    assert result["ours_less"]["gin"]["difference"] == pytest.approx((ours - gin).mean())
    assert "protocol paper" in result["cell"] or "unknown" in result["cell"]
    assert len((tmp_path / "kept").read_text().splitlines()) == 9
    monkeypatch.setattr(graph_classification, "train_once", abs)  # nothing is trained again
    assert graph_classification.main() == 0
    assert json.loads(capsys.readouterr().out) == result
