"""`doctor --measure`: whether compiled kernels are faster here, and what `auto` makes of it."""

from __future__ import annotations

import math

import pytest

from sgas.commands.doctor import examine
from sgas.native import backend
from sgas.native.library import Library
from sgas.running import kernel_speed
from sgas_gcn.family import FAMILY
from sgas_gcn.library import LIBRARY


@pytest.mark.slow
def test_doctor_measures_a_step_of_each_space_and_keeps_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (reason := LIBRARY.load()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(kernel_speed, "REPEATS", 1)
    monkeypatch.setattr(kernel_speed, "WARM_UP", 0)
    kept: list[float] = []
    monkeypatch.setattr(Library, "keep_ratio", lambda _, ratio: kept.append(ratio))
    result = examine(FAMILY, measure=True)
    ratios = [result["speeds"][space]["ratio"] for space in ("point", "graph")]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert kept == [min(ratios)]
    assert backend.chosen() == "auto"
    lines = [line for line in result["lines"] if "times less CPU time" in line]
    assert len(lines) == 2 and "bytes" in result["kernels"]["cpu"]
