"""Latency of a network: for how long it is measured, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from sgas.running.complexity import MOST_REPEATS, latency


class Timed(nn.Module):
    """A network whose passes take as long as `seconds` says, by a clock of its own."""

    def __init__(self, seconds: Iterator[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seconds, self.now, self.passes = seconds, 0.0, 0

    def forward(self, x: Any) -> Any:
        self.now, self.passes = self.now + next(self.seconds), self.passes + 1
        return x

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(("one_pass", "passes"), [(1e-3, MOST_REPEATS + 1), (0.3, 6), (40.0, 1)])
def test_measuring_ends_in_time(one_pass: float, passes: int) -> None:
    network: Any = Timed(iter([one_pass] * 1000))
    found = latency(network, torch.ones(1), 2.0, network.clock)
    assert network.passes == passes and found.repeats == max(1, passes - 1)
    assert network.now <= max(2.0, one_pass)
    assert found.median == pytest.approx(one_pass)


def test_spread_threads_and_a_busy_machine_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    for load, busy in ((0.1, False), (1.5, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load * cores, 0.0, 0.0))
        network: Any = Timed(iter([0.5, 0.1, 0.3, 0.2, 10.0]))
        found = latency(network, torch.ones(1), 1.25, network.clock)
        assert (found.lowest, found.median, found.highest) == pytest.approx((0.1, 0.2, 0.3))
        assert found.threads == torch.get_num_threads() and found.busy is busy
        told = f"{found.shown} a sample, {found.note}"
        assert "200 ms a sample, median of 3 (100 to 300)" in told
        assert f"threads {found.threads}" in told and ("busy (load 1.5" in told) is busy
