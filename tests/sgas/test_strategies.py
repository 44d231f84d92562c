"""Every strategy of the table keeps the contract; each decides as its paper says."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch

from sgas.cells.decisions import CellDecisions, Choice, Status
from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology
from sgas.config import STRATEGIES
from sgas.deciding.evidence import Evidence, in_words, verdict
from sgas.deciding.replay import empty_history, extend_history, replay, score_epoch
from sgas.deciding.schedule import Schedule, cosine
from sgas.deciding.strategies import EpochView, strategy_named

OPERATIONS = ("none", "a", "b", "c", "d")
TOPOLOGIES = {
    "two inputs": CellTopology(3),
    "no limit": CellTopology(3, num_inputs=1, in_degree=None, num_outputs=1),
    "one step": CellTopology(1, num_outputs=3),
}


def run(name: str, topology: CellTopology, seed: int = 0):
    """A whole search on drifting alphas: records, final cell, and the cut of every epoch."""
    schedule = Schedule(topology.num_decisions, 3, 2, 2)
    torch.manual_seed(seed)
    drift = 0.05 * torch.randn(schedule.num_epochs, topology.num_edges, len(OPERATIONS))
    cell, history = CellDecisions.none_yet(topology), empty_history(topology.num_edges, 5)
    records, cuts = [], []
    for epoch, alphas in enumerate(drift.cumsum(0).double()):
        view = EpochView(epoch, "normal", alphas, history, cell, OPERATIONS, schedule, seed)
        made, cell = score_epoch(view, strategy_named(name))
        cuts.append(strategy_named(name).complete(view))
        records.extend(made)
        history = extend_history(history, alphas, 4)
    return records, cell, cuts, schedule


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_contract(name: str, topology: CellTopology) -> None:
    records, cell, cuts, schedule = run(name, topology)
    for step in range(topology.num_steps):
        states = [cell.states[edge.index].status for edge in topology.edges_into(step)]
        assert states.count(Status.DECIDED) == topology.kept_into(step)
    decided = [record for record in records if record.edge is not None]
    assert len(decided) == topology.num_decisions
    assert all(cut.complete for cut in cuts) and cuts[-1] == cell
    if strategy_named(name).frees_edges:
        assert tuple(record.epoch for record in decided) == schedule.decision_epochs
    else:
        assert {record.epoch for record in decided} == {schedule.last_epoch}
    for record in decided[:-1]:
        assert record.runner_up is not None and record.runner_up != record.edge


@pytest.mark.parametrize("name", STRATEGIES)
def test_replay_gives_the_same_and_other_strategies_part(name: str) -> None:
    space = SearchSpace("toy", OPERATIONS)
    records, cell, _, schedule = run(name, space.topology(3), seed=5)
    again = replay(records, strategy_named(name), space, schedule, 3, 4, seed=5)
    assert list(again.records) == records
    assert again.decisions == {"normal": cell} and not again.differences
    others = [other for other in STRATEGIES if other != name]
    assert any(
        replay(records, strategy_named(other), space, schedule, 3, 4, seed=5).differences
        for other in others
    )


def test_a_changed_log_is_named() -> None:
    space = SearchSpace("toy", OPERATIONS)
    records, _, _, schedule = run("cri1", space.topology(3))
    place = next(i for i, record in enumerate(records) if record.edge is not None)
    other = "a" if records[place].op == "d" else "d"
    forged = msgspec.structs.replace(records[place], op=other)
    records[place] = forged
    found = replay(records, strategy_named("cri1"), space, schedule, 3, 4, seed=0)
    assert len(found.differences) == 1 and f"epoch {forged.epoch + 1}," in found.differences[0]
    quiet = records[-1]
    records[place] = msgspec.structs.replace(forged, op="d" if other == "a" else "a")
    records[-1] = msgspec.structs.replace(quiet, states=[*reversed(quiet.states)])
    (told,) = replay(records, strategy_named("cri1"), space, schedule, 3, 4, seed=0).differences
    assert (
        told
        == f"epoch {quiet.epoch + 1}, normal cell: no decision in both, where other edges differ"
    )


def test_evidence_of_alphas_is_the_spread_of_the_margin_over_the_last_epochs() -> None:
    topology = CellTopology(1, num_outputs=3)
    alphas = torch.tensor([[0.0, 1, 3, 2, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    margins = torch.tensor([0.1, 0.4, 0.3], dtype=torch.float64)
    history = torch.zeros(3, 2, 4, dtype=torch.float64)
    history[:, 0, 1] = margins  # of `b` over `c`, the next now
    cell = CellDecisions.none_yet(topology)
    view = EpochView(3, "normal", alphas, history, cell, OPERATIONS, Schedule(2, 0, 1, 0), 0)
    now = torch.softmax(alphas[0, 1:], 0)
    wanted = torch.tensor([*margins, now[1] - now[2]]).std()
    found = strategy_named("cri1").evidence(view, 0, "b")
    assert found is not None
    assert found.margin == pytest.approx(float(now[1] - now[2]))
    assert found.error == pytest.approx(float(wanted))
    assert found.z == pytest.approx(found.margin / found.error)
    assert strategy_named("random").evidence(view, 0, "b") is None
    first = replace(view, history=history[:0])
    assert strategy_named("darts").evidence(first, 0, "b") is None


def test_effects_weigh_the_margin_by_the_error_of_the_next_operation() -> None:
    topology = CellTopology(1, num_outputs=3)
    gains = torch.tensor([[0.0, 1, 4, 2, 0]] * 2, dtype=torch.float64)
    errors = torch.tensor([[0.0, 9, 0, 0.5, 9]] * 2, dtype=torch.float64)
    cell, history = CellDecisions.none_yet(topology), empty_history(2, 5)
    view = EpochView(0, "normal", gains, history, cell, OPERATIONS, Schedule(2, 0, 1, 0), 0, errors)
    records, _ = score_epoch(view, strategy_named("effects"))
    assert records[0].op == "b" and records[0].evidence == Evidence(2.0, 0.5)
    strong, weak = Evidence(2.0, 0.5), Evidence(0.9, 0.5)
    assert verdict([strong, weak, None, Evidence(1.0, 0.0)]).startswith("1 of 4 decisions")
    assert in_words(strong) == "z 4.0" and "not told from chance" in in_words(weak)
    assert in_words(None) == "no evidence"


def test_a_decision_without_evidence_waits_and_is_filled_by_the_cheapest() -> None:
    topology, strategy = CellTopology(1, num_outputs=3), strategy_named("effects")
    gains = torch.tensor([[0.0, 1, 4, 3, 2], [0, 1, 1, 1, 1]], dtype=torch.float64)
    errors = torch.tensor([[0.0, 9, 0, 1, 0.5], [0, 9, 9, 9, 9]], dtype=torch.float64)
    schedule = Schedule(2, 0, 3, 2, patience=2)
    cell, history, costs = CellDecisions.none_yet(topology), empty_history(2, 5), (0, 4, 3, 2, 1)
    decided = {}
    for epoch in range(schedule.num_epochs):
        known = OPERATIONS, schedule, 0, errors / 4 if epoch == 1 else errors, costs
        view = EpochView(epoch, "normal", gains, history, cell, *known)
        records, cell = score_epoch(view, strategy)
        decided |= {
            record.edge: (epoch, record.op) for record in records if record.edge is not None
        }
    # At epoch 0 `b` is one error ahead of `c`, at 1 four: then it stands. The other edge has none:
    # all are within two errors, and `d` is the cheapest.
    assert decided == {0: (1, "b"), 1: (schedule.last_epoch, "d")}
    assert [schedule.may_decide(epoch, 1) for epoch in range(6)] == [False] * 3 + [True] * 3


def test_darts_keeps_the_edges_with_the_largest_weight() -> None:
    topology = CellTopology(2, num_outputs=4)
    alphas = torch.zeros(5, 5, dtype=torch.float64)
    for edge, (op, value) in enumerate([(1, 2.0), (0, 9.0), (2, 1.0), (3, 3.0), (4, 2.0)]):
        alphas[edge, op] = value
    schedule = Schedule(4, 0, 1, 0)
    view = EpochView(
        schedule.last_epoch,
        "normal",
        alphas,
        empty_history(5, 5),
        CellDecisions.none_yet(topology),
        OPERATIONS,
        schedule,
        0,
    )
    # Edge 1 is nearly all `none`, but its step has only two edges.
    choices = strategy_named("darts").decide(view)
    assert choices == (Choice(0, "a"), Choice(1, "a"), Choice(3, "c"), Choice(4, "d"))


def test_random_depends_on_the_seed_alone() -> None:
    first, again, other = (run("random", CellTopology(3), seed)[1] for seed in (1, 1, 2))
    assert first == again != other
    cells = {run("random", CellTopology(3), seed)[1].states for seed in range(20)}
    assert len(cells) == 20


def test_a_full_step_prunes_its_other_edges() -> None:
    topology = CellTopology(3)
    cell = CellDecisions.none_yet(topology).decide(Choice(5, "a"))
    assert not cell.with_status(Status.PRUNED)
    after = cell.decide(Choice(7, "b"))
    assert after.pruned_since(cell) == (6, 8)
    assert CellDecisions.from_strings(topology, after.to_strings()) == after


@pytest.mark.parametrize(
    ("steps", "interval", "num_epochs"), [(3, 7, 50), (4, 5, 50)], ids=["graph", "image"]
)
def test_published_schedules(steps: int, interval: int, num_epochs: int) -> None:
    schedule = Schedule(2 * steps, 9, interval, 5)
    assert schedule.num_epochs == num_epochs
    assert schedule.decision_epochs[0] == 9 and schedule.decision_epochs[-1] == 44


def test_cosine_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20, eta_min=0.001)
    for epoch in range(20):
        assert cosine(0.1, 0.001, epoch, 20) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
