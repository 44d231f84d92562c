"""Strategy `effects`: paths are dealt evenly, least squares is that of the textbook."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from sgas.cells.decisions import CellDecisions, Choice
from sgas.cells.topology import CellTopology
from sgas.deciding.strategies.effects import deal_paths, fit_effects, used_by

OPERATIONS = ("none", "a", "b", "c", "d")
ALL_EDGES = CellTopology(3, num_inputs=1, in_degree=None, num_outputs=1)


def dealt(cell: CellDecisions, count: int, seed: str = "0") -> list[CellDecisions]:
    return list(islice(deal_paths(cell, OPERATIONS, seed), count))


@pytest.mark.parametrize(("topology", "period"), [(ALL_EDGES, 4), (CellTopology(3), 24)])
def test_paths_use_each_operation_of_each_edge_evenly(topology: CellTopology, period: int) -> None:
    cells = dealt(CellDecisions.none_yet(topology), 10 * period)
    assert all(cell.complete and cell.num_decided == topology.num_decisions for cell in cells)
    for edge in topology.edges:
        share = topology.kept_into(edge.step) / len(topology.edges_into(edge.step))
        # Where each edge is in each path, every group of as many paths as operations is even.
        length = 4 if share == 1 else len(cells)
        for first in range(0, len(cells), length):
            group = Counter(cell.states[edge.index].op for cell in cells[first : first + length])
            counts = [group[op] for op in OPERATIONS[1:]]
            assert group["none"] == 0 and max(counts) - min(counts) <= (share < 1)
            assert sum(counts) == pytest.approx(share * length, abs=1)


def test_paths_follow_from_the_seed_and_keep_what_is_decided() -> None:
    cell = CellDecisions.none_yet(CellTopology(3)).decide(Choice(3, "d")).decide(Choice(0, "b"))
    assert dealt(cell, 20) == dealt(cell, 20) != dealt(cell, 20, "1")
    for path in dealt(cell, 20):
        assert path.states[3].op == "d" and path.states[0].op == "b"


def test_least_squares_has_the_closed_form_of_a_balanced_design() -> None:
    """An effect is the mean over the paths that use it, less that of all; blocks drop out."""
    generator = torch.Generator().manual_seed(0)
    cells = dealt(CellDecisions.none_yet(ALL_EDGES), 96)
    used, blocks = torch.stack([used_by(c, OPERATIONS) for c in cells]), torch.arange(96) // 16
    losses = torch.randn(96, generator=generator, dtype=torch.float64)
    (one,) = (fit_effects(losses, torch.zeros(96).long(), used[:, :1]),)
    groups = [losses[used[:, 0, op] > 0] for op in range(1, 5)]
    means = torch.stack([group.mean() for group in groups])
    torch.testing.assert_close(one.gains[0, 1:], losses.mean() - means)
    assert not one.gains[0, 0] and not one.errors[0, 0]
    variance = sum(((g - g.mean()) ** 2).sum() for g in groups) / (96 - 4)
    wanted = (2 * variance / 24).sqrt()
    best = int(means.argmin())
    for op in range(4):
        assert float(one.errors[0, 1 + op]) == pytest.approx(0 if op == best else float(wanted))
    shift = torch.tensor([0.0, 5.0, -3.0, 1.0, 9.0, 2.0], dtype=torch.float64)[blocks]
    first, second = (fit_effects(values, blocks, used) for values in (losses, losses + shift))
    torch.testing.assert_close(first.gains, second.gains)
    torch.testing.assert_close(first.errors, second.errors)


@pytest.mark.parametrize("topology", [ALL_EDGES, CellTopology(3)])
def test_effects_without_noise_are_found(topology: CellTopology) -> None:
    cells = dealt(CellDecisions.none_yet(topology), 192)
    used, blocks = torch.stack([used_by(c, OPERATIONS) for c in cells]), torch.arange(192) // 16
    true = torch.randn(topology.num_edges, 5, generator=torch.Generator().manual_seed(1)).double()
    found = fit_effects((used * true).sum((1, 2)) + blocks, blocks, used)
    centred = true[:, 1:] - true[:, 1:].mean(1, keepdim=True)
    gains = found.gains[:, 1:] - found.gains[:, 1:].mean(1, keepdim=True)
    torch.testing.assert_close(gains, -centred)
    torch.testing.assert_close(found.errors, torch.zeros_like(true), atol=1e-6, rtol=0)
