"""The speed benchmark: what it reports, how it counts bytes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bench_search_step
import pytest
import rates
import torch
from measure import Cost, Pair, interleaved, saved_bytes, summary
from processes import Ended
from sampling import some
from settings import FAMILIES
from torch import nn

TINY: dict[str, dict[str, Any]] = {
    "point": {"batch": 2, "points": 20, "k": 3, "channels": 4, "emb_dims": 8},
    "graph": {"batch": 1, "nodes": 20, "degree": 4, "channels": 4},
    "image": {"batch": 2, "side": 8, "channels": 2, "cells": 1},
}
TWICE = ("--repeats", "2")
PARTS = {"step", "alpha_step", "weight_step", "forward"}


@pytest.fixture(params=some(FAMILIES, "graph"))
def tiny_family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a family whose sizes are made tiny, as those of what rates are measured on."""
    monkeypatch.setattr(rates, "PRODUCTS", ((64, 32, 32),))
    monkeypatch.setattr(rates, "READ_BYTES", 1 << 16)
    family, size = FAMILIES[request.param], TINY[request.param]
    scaling = {"batch": (2, 3)}
    derived = {**family.derived, **size}
    tiny = replace(family, measured=size, small=size, scaling=scaling, derived=derived)
    tiny = replace(tiny, paper={**family.paper, **size, "batch": 3})
    monkeypatch.setitem(FAMILIES, request.param, tiny)
    return request.param


def test_reports_every_part_of_a_step(tiny_family: str, script: Callable[..., Ended]) -> None:
    result = script(bench_search_step, "--family", tiny_family, *TWICE, "--quick", "--json").json
    assert set(result) >= PARTS | {"stages", "scaling", "settings"}
    decided = 7 if tiny_family == "image" else 5
    assert [int(made) for made in result["stages"]] == [0, (decided + 1) // 2, decided]
    for figures in (*(result[part] for part in PARTS), *result["scaling"]["batch"].values()):
        low, high = figures["spread"]
        assert 0 < low <= figures["cpu_ratio"] <= high
        assert figures["wall_ratio"] > 0
        assert figures["bytes_ratio"] > 0
    assert {"torch", "threads", "cpu", "kernels"} <= set(result["settings"])
    assert result["settings"]["gflop_s"] > 0 and result["settings"]["gb_s"] > 0


def test_prints_a_table_of_derived_networks(tiny_family: str, script: Callable[..., Ended]) -> None:
    text = script(bench_search_step, "--family", tiny_family, *TWICE, "--derived").out
    assert "training step" in text
    assert "evaluation" in text
    assert FAMILIES[tiny_family].genotype in text


def test_the_paper_s_batch_is_for_the_search_step_alone(
    tiny_family: str, script: Callable[..., Ended]
) -> None:
    words = ["--family", tiny_family, *TWICE, "--paper", "--json"]
    result = script(bench_search_step, *words).json
    assert set(result) == {"step", "alpha_step", "weight_step", "settings"}
    assert result["settings"]["size"]["batch"] == 3
    ended = script(bench_search_step, *words, "--batch", "2")
    assert ended.status == 2 and "--paper goes without" in ended.err


def test_refuses_to_time_networks_that_disagree(
    script: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(FAMILIES["graph"], measured=TINY["graph"], loss=lambda x, y: x.square().mean())
    monkeypatch.setitem(FAMILIES, "graph", tiny)
    ended = script(bench_search_step, "--family", "graph")
    assert ended.status == 1 and "the loss of plain is" in ended.err


def test_refuses_a_batch_that_cannot_be_trained_on(script: Callable[..., Ended]) -> None:
    ended = script(bench_search_step, "--family", "point", "--batch", "1")
    assert ended.status == 2 and "needs 2" in ended.err


def test_the_sizes_of_the_curves_can_be_trained_on() -> None:
    for family in FAMILIES.values():
        smallest = family.models({**family.paper, **family.small}).smallest_batch
        assert min(family.scaling["batch"]) >= smallest


def test_each_saved_storage_counts_once_and_what_was_given_not_at_all() -> None:
    layer, x = nn.Linear(8, 4, bias=False), torch.randn(16, 8)

    def action() -> None:
        h = layer(x).exp()  # saves x, the weight, and its own output
        (h * h[:2].sum()).sum().backward()  # saves h again, and a scalar

    assert saved_bytes(action, [layer, x]) == 4 * (16 * 4) + 4
    assert saved_bytes(action, [layer]) == 4 * (16 * 4) + 4 + 4 * (16 * 8)


def test_ratios_are_of_neighbouring_runs() -> None:
    pairs = [Pair(Cost(2.0, 4.0), Cost(1.0, 1.0)), Pair(Cost(9.0, 6.0), Cost(3.0, 3.0))]
    figures = summary(pairs)
    assert figures["cpu_ratio"] == 3
    assert figures["spread"] == [2, 4]
    assert figures["wall_ratio"] == 2.5


def test_runs_alternate() -> None:
    order: list[str] = []
    interleaved({"a": Pair(lambda: order.append("p"), lambda: order.append("o"))}, 2)
    assert "".join(order) in ("poop", "oppo")
