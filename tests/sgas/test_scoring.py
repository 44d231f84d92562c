"""Scores against the plain formulas, and every golden trajectory through the strategies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sgas.cells.decisions import CellDecisions, Status
from sgas.cells.topology import CellTopology
from sgas.deciding.replay import empty_history, extend_history, score_epoch
from sgas.deciding.schedule import Schedule
from sgas.deciding.scoring import (
    criterion_1,
    criterion_2,
    edge_importance,
    min_max,
    operation_probs,
    selection_certainty,
    selection_stability,
)
from sgas.deciding.strategies import EpochView, strategy_named


def plain_scores(alphas: np.ndarray, past: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The formulas of the paper, edge by edge, in Python floats."""
    importance, certainty, stability, all_probs = [], [], [], []
    for row in alphas.tolist():
        powers = [math.exp(a - max(row)) for a in row]
        softmax = [p / sum(powers) for p in powers]
        mass = math.fsum(softmax[1:])
        probs = [p / mass for p in softmax[1:]]
        importance.append(mass)
        entropy = -math.fsum(p * math.log(p) for p in probs if p > 0)
        certainty.append(1 - entropy / math.log(len(probs)))
        all_probs.append(probs)
    for edge, probs in enumerate(all_probs):
        shared = [sum(min(a, b) for a, b in zip(probs, old[edge], strict=True)) for old in past]
        stability.append(sum(shared) / len(shared) if shared else 0.0)

    def scaled(values: list[float]) -> np.ndarray:
        low, high = min(values), max(values)
        return np.array([(v - low) / (high - low) if high > low else 0.0 for v in values])

    first = scaled(importance) * scaled(certainty)
    return {
        "importance": np.array(importance),
        "certainty": np.array(certainty),
        "stability": np.array(stability),
        "probs": np.array(all_probs),
        "cri1": first,
        "cri2": first * scaled(stability),
    }


@pytest.mark.parametrize(("num_edges", "num_ops", "past"), [(9, 10, 4), (14, 8, 1), (2, 3, 0)])
def test_scores_equal_the_plain_formulas(num_edges: int, num_ops: int, past: int) -> None:
    generator = np.random.default_rng(num_edges)
    tables = generator.normal(size=(past + 1, num_edges, num_ops))
    old = [plain_scores(table, [])["probs"] for table in tables[:-1]]
    wanted = plain_scores(tables[-1], old)
    alphas = torch.from_numpy(tables[-1])
    history = torch.from_numpy(np.array(old).reshape(past, num_edges, num_ops - 1))
    probs = operation_probs(alphas)
    np.testing.assert_allclose(edge_importance(alphas), wanted["importance"], atol=1e-13)
    np.testing.assert_allclose(probs, wanted["probs"], atol=1e-13)
    np.testing.assert_allclose(selection_certainty(probs), wanted["certainty"], atol=1e-13)
    np.testing.assert_allclose(selection_stability(probs, history), wanted["stability"], atol=1e-13)
    for name, criterion in (("cri1", criterion_1), ("cri2", criterion_2)):
        np.testing.assert_allclose(criterion(alphas, history), wanted[name], atol=1e-12)


def test_leading_dimensions_batch_over_cells() -> None:
    alphas = torch.randn(3, 2, 9, 10, dtype=torch.float64)
    history = operation_probs(torch.randn(4, 3, 2, 9, 10, dtype=torch.float64))
    together = criterion_2(alphas, history)
    assert together.shape == (3, 2, 9)
    for i in range(3):
        for j in range(2):
            alone = criterion_2(alphas[i, j], history[:, i, j])
            torch.testing.assert_close(together[i, j], alone, rtol=0, atol=0)


def test_float32_alphas_are_scored_in_float64() -> None:
    alphas = 1e-3 * torch.randn(9, 10)
    score = criterion_1(alphas, empty_history(9, 10))
    assert score.dtype == torch.float64
    torch.testing.assert_close(score, criterion_1(alphas.double(), empty_history(9, 10)))


def test_scores_stay_finite_where_none_takes_all_or_all_are_equal() -> None:
    alphas = torch.zeros(4, 5)
    alphas[0, 0], alphas[1, 2] = 1e4, 1e4
    probs = operation_probs(alphas)
    assert torch.isfinite(probs).all()
    assert torch.isfinite(criterion_2(alphas, probs[None])).all()
    torch.testing.assert_close(selection_certainty(probs)[1], torch.tensor(1.0).double())
    assert min_max(torch.full((5,), 0.3, dtype=torch.float64)).tolist() == [0.0] * 5


def as_words(states: list[int], operations: list[str]) -> list[str]:
    return [
        "undecided" if state < 0 else "pruned" if state == 0 else operations[state]
        for state in states
    ]


@pytest.mark.parametrize("family", ["gcn", "cnn"])
@pytest.mark.parametrize("number", [1, 2])
def test_golden_trajectories(golden: Path, family: str, number: int) -> None:
    told = json.loads((golden / "scores.json").read_text())
    settings = told["families"][family]
    arrays = np.load(golden / "scores.npz")
    topology = CellTopology(settings["steps"])
    schedule = Schedule(
        topology.num_decisions, settings["warmup_dec_epoch"], settings["decision_freq"], 5
    )
    assert schedule.num_epochs == settings["epochs"]
    strategy = strategy_named(f"cri{number}")
    operations = settings["ops"]
    checked = 0
    for trajectory in told["trajectories"]:
        if trajectory["family"] != family:
            continue
        row = trajectory["index"]
        alphas = torch.from_numpy(arrays[f"{family}.alpha"][row]).double()
        cell = CellDecisions.none_yet(topology)
        history = empty_history(topology.num_edges, len(operations))
        wanted = iter(enumerate(trajectory[f"criterion{number}"]["decisions"]))
        for epoch, table in enumerate(alphas):
            view = EpochView(
                epoch, "normal", table, history, cell, tuple(operations), schedule, seed=0
            )
            (record,), cell = score_epoch(view, strategy)
            history = extend_history(history, table, settings["history_size"])
            if record.edge is None:
                continue
            turn, expected = next(wanted)
            got = (record.epoch, record.edge, record.op, record.pruned, record.states)
            assert got == (
                expected["epoch"],
                expected["edge"],
                expected["op"],
                expected["pruned"],
                as_words(expected["state"], operations),
            ), (row, trajectory["kind"])
            names = ["importance", "certainty"] + ["stability"] * (number == 2)
            for name in names:
                golden_value = arrays[f"{family}.c{number}.{name}"][row, turn]
                np.testing.assert_allclose(getattr(record, name), golden_value, atol=1e-13)
            golden_score = arrays[f"{family}.c{number}.score"][row, turn]
            np.testing.assert_allclose(record.score, golden_score, atol=1e-7)
            if expected["margin"] is None:
                assert record.margin is None
            else:
                assert record.margin == pytest.approx(expected["margin"], abs=1e-7)
            checked += 1
        assert cell.complete and not cell.with_status(Status.UNDECIDED)
        edges = [[edge.op, edge.source] for edge in cell.to_gene().edges]
        assert edges == [list(e) for e in trajectory[f"criterion{number}"]["genotype"]]
    assert checked == 40 * topology.num_decisions
