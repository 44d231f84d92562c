"""The comparison of graph networks: one split, one loop, the budget that was asked for."""

from __future__ import annotations

import argparse
from typing import Any

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


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown network 'gcn': .*choose from"):
        graph_baselines.compare(options(networks="gcn"))
