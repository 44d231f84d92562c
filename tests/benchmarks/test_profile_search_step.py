"""The profile of a step: what an operator is said to do, and that nothing is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import profile_search_step
import pytest
import torch
from contest import OurSearch
from processes import Ended
from sampling import some
from settings import FAMILIES
from torch.utils.flop_counter import FlopCounterMode

TINY = {
    "point": {"batch": 2, "points": 20, "k": 3, "channels": 4, "emb_dims": 8},
    "graph": {"batch": 1, "nodes": 20, "degree": 4, "channels": 4},
    "image": {"batch": 2, "side": 8, "channels": 2, "cells": 3},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are not measured, and allocator and families are left as they are."""
    monkeypatch.setattr(profile_search_step, "rates", lambda: (1e9, 2e9))
    monkeypatch.setattr(profile_search_step, "keep_freed_memory", lambda: None)
    for name, family in list(FAMILIES.items()):
        monkeypatch.setitem(FAMILIES, name, replace(family, small=TINY[name]))


@pytest.mark.parametrize("family", some(FAMILIES, "image"))
def test_all_flops_of_a_step_are_in_it(family: str, script: Callable[..., Ended]) -> None:
    words = ["--family", family, "--quick", "--repeats", "1"]
    found = script(profile_search_step, *words, "--json").json
    table = script(profile_search_step, *words).out
    contest = FAMILIES[family].search_contest({**FAMILIES[family].paper, **TINY[family]})
    ours = contest.ours
    assert isinstance(ours, OurSearch)
    for part, batch in zip(profile_search_step.PARTS, contest.batches, strict=True):
        getattr(ours, part)(batch)
        with FlopCounterMode(display=False) as counter:
            getattr(ours, part)(batch)
        operators = found[part]["operators"]
        flops = [cost["flops"] for name, cost in operators.items() if name != "aten.addmm_"]
        assert sum(flops) == counter.get_total_flops() > 0
        assert all(cost["ms"] >= 0 and cost["calls"] > 0 for cost in operators.values())
        assert found[part]["ms"] > 0
    dearest = next(iter(found["weight_step"]["operators"]))
    assert dearest in table and "Python, autograd, dispatch" in table


def test_bytes_are_counted_once_and_twice_where_they_change() -> None:
    x, y = torch.ones(10, 3), torch.ones(10, 3)
    with profile_search_step.Profile() as found:
        x.add_(y)
        torch.mul(x, x)
        torch.cat([x, y])
        x.t()
        torch.empty_like(x)
        x.addmm_(x, torch.ones(3, 3))
    assert found.costs["aten.addmm_"].flops == 2 * 10 * 3 * 3
    costs = {name: cost.bytes / (4 * 30) for name, cost in found.costs.items()}
    wanted = {"aten.add_": 3, "aten.mul": 2, "aten.cat": 4, "aten.t": 0, "aten.empty_like": 0}
    assert wanted.items() <= costs.items()
