"""The comparison of graph networks: one split, one loop, the budget that was asked for."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import graph_baselines
from sgas.errors import InputError


def options(**given: Any) -> argparse.Namespace:
    defaults = {
        "dataset": "tissues",
        "genotype": "cri2-ppi-best",
        "preset": "demo",
        "epochs": 1,
        "seeds": "0,1",
        "networks": None,
        "seconds": None,
        "keep": None,
    }
    return argparse.Namespace(**{**defaults, **given})


def test_all_networks_train_for_our_epochs_and_are_tested_once_a_seed() -> None:
    networks = graph_baselines.compare(options())["networks"]
    assert list(networks) == ["ours", "logistic", "sage", "gat"]
    for row in networks.values():
        assert (row["n"], row["epochs"]) == (2, 1)
        tests = [seed["test"] for seed in row["seeds"]]
        assert row["mean"] == pytest.approx(sum(tests) / 2)
        assert all(0 <= test <= 1 for test in tests)


def test_a_baseline_trains_as_long_as_it_may() -> None:
    quick = graph_baselines.compare(options(networks="logistic", seeds="0"))
    long = graph_baselines.compare(options(networks="logistic", seeds="0", seconds=1.0))
    assert quick["networks"]["logistic"]["epochs"] == 1
    assert long["networks"]["logistic"]["epochs"] > 10


def test_networks_of_one_graph_take_their_own_settings_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = graph_baselines.ONE_GRAPH
    assert {one.epochs for one in published.values()} == {200}
    quick = {name: dataclasses.replace(one, epochs=3) for name, one in published.items()}
    monkeypatch.setattr(graph_baselines, "ONE_GRAPH", quick)
    draw = np.random.default_rng(0)
    edge, label = draw.integers(0, 60, (150, 2)), draw.integers(0, 3, 60)
    parts = dict(zip(("train", "val", "test"), np.split(np.arange(60), [20, 40]), strict=True))
    counts = (draw.random((60, 12)) < 0.05).astype(np.float32)  # sparse, of which PyG takes none
    np.savez(tmp_path / "one.npz", x=counts, edge=edge, label=label, **parts)
    given = {"dataset": str(tmp_path / "one.npz"), "preset": "citation", "seeds": "0"}
    asked = options(**given, keep=str(tmp_path / "kept.jsonl"))
    networks = graph_baselines.compare(asked)["networks"]
    epochs = {name: row["epochs"] for name, row in networks.items()}
    assert epochs == {"ours": 1, "gcn": 3, "sage": 3, "gat": 3, "appnp": 3}
    assert networks["gcn"]["params"] == 12 * 16 + 16 + 16 * 3 + 3
    assert networks["appnp"]["params"] == 12 * 64 + 64 + 64 * 3 + 3
    assert graph_baselines.compare(asked)["networks"] == networks
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == len(networks)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown network 'gcn': .*choose from"):
        graph_baselines.compare(options(networks="gcn"))
