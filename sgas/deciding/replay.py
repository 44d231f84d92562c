"""Scores an epoch, decides, and writes down why; and does the same again from what was written.

The search and `replay` share `score_epoch`, so that a replay under the run's own strategy can part
from the run only where the record was changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice, Status, decided
from sgas.cells.space import SearchSpace
from sgas.deciding.evidence import ENOUGH
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import Schedule, shown_epoch
from sgas.deciding.scoring import (
    edge_importance,
    operation_probs,
    selection_certainty,
    selection_stability,
)
from sgas.deciding.strategies import EpochView, Strategy
from sgas.deciding.strategies.base import ranked
from sgas.errors import RunError


def score_epoch(
    view: EpochView, strategy: Strategy
) -> tuple[tuple[EpochRecord, ...], CellDecisions]:
    """The records of one cell kind at the end of an epoch, and what is decided after it.

    One record a decision, and one where nothing is decided (strategy `darts` decides all edges of
    a cell in its last epoch; the others one at a time).
    """
    probs = operation_probs(view.alphas)
    score = strategy.score(view)
    undecided = EpochRecord(
        epoch=view.epoch,
        cell=view.kind,
        decision_epoch=view.is_decision_epoch,
        alphas=view.alphas.tolist(),
        importance=edge_importance(view.alphas).tolist(),
        certainty=selection_certainty(probs).tolist(),
        stability=selection_stability(probs, view.history).tolist(),
        score=score.tolist(),
        states=view.decisions.to_strings(),
        errors=None if view.errors is None else view.errors.tolist(),
        costs=None if view.costs is None else list(view.costs),
    )
    decisions, records = view.decisions, []
    for choice in _choices(view, strategy):
        after = decisions.decide(choice)
        runner_up = _runner_up(score, decisions, choice)
        margin = None if runner_up is None else float(score[choice.edge] - score[runner_up])
        records.append(
            msgspec.structs.replace(
                undecided,
                states=after.to_strings(),
                edge=choice.edge,
                op=choice.op,
                runner_up=runner_up,
                margin=margin,
                pruned=list(after.pruned_since(decisions)),
                evidence=strategy.evidence(view, choice.edge, choice.op),
            )
        )
        decisions = after
    return tuple(records) or (undecided,), decisions


def completed(view: EpochView, strategy: Strategy) -> CellDecisions:
    """The cell that would be cut if the search stopped now.

    Where decisions wait, an edge without evidence takes the cheapest operation that does no harm.
    """
    cell = strategy.complete(view)
    if view.costs is None:
        return cell
    states = list(cell.states)
    for edge in view.decisions.undecided:
        op = states[edge].op
        if op is not None:
            states[edge] = decided(_cheapest(view, strategy, edge, op))
    return replace(cell, states=tuple(states))


def _choices(view: EpochView, strategy: Strategy) -> tuple[Choice, ...]:
    """What is decided at the end of an epoch; with patience, what has evidence, until the last."""
    schedule = view.schedule
    if not schedule.patience:
        return strategy.decide(view)
    if view.epoch == schedule.last_epoch:
        states = completed(view, strategy).states
        open_states = ((edge, states[edge].op) for edge in view.decisions.undecided)
        return tuple(Choice(edge, op) for edge, op in open_states if op is not None)
    found = (
        (choice, strategy.evidence(view, choice.edge, choice.op))
        for choice in strategy.decide(view)
    )
    return tuple(choice for choice, evidence in found if evidence is None or evidence.enough)


def _cheapest(view: EpochView, strategy: Strategy, edge: int, op: str) -> str:
    """The cheapest operation of an edge that is not told from its best one, `op`.

    Within `ENOUGH` standard errors; one whose distance is not known counts as worse.
    """
    assert view.costs is not None
    harmless = [op]
    for other in view.operations[1:]:
        behind = None if other == op else strategy.evidence(view, edge, op, other)
        if behind is not None and behind.margin <= ENOUGH * behind.error:
            harmless.append(other)
    return min(harmless, key=dict(zip(view.operations, view.costs, strict=True)).__getitem__)


def _runner_up(score: Tensor, before: CellDecisions, choice: Choice) -> int | None:
    """The open edge with the second-best score; None where no other is open."""
    others = tuple(edge for edge in before.undecided if edge != choice.edge)
    return ranked(score, others)[0] if others else None


def extend_history(history: Tensor, alphas: Tensor, history_size: int) -> Tensor:
    """History `[K, E, O-1]` with this epoch's probabilities added, at most `history_size` long."""
    return torch.cat([history, operation_probs(alphas)[None]])[-history_size:]


def empty_history(num_edges: int, num_operations: int) -> Tensor:
    """The history before the first epoch: `[0, E, O-1]`, float64."""
    return torch.empty(0, num_edges, num_operations - 1, dtype=torch.float64)


@dataclass(frozen=True)
class Replay:
    """Decisions recomputed from a log: the records, the cells in the end, where they part."""

    records: tuple[EpochRecord, ...]
    decisions: dict[str, CellDecisions]
    differences: tuple[str, ...]


def replay(
    recorded: Sequence[EpochRecord],
    strategy: Strategy,
    space: SearchSpace,
    schedule: Schedule,
    num_steps: int,
    history_size: int,
    seed: int,
) -> Replay:
    """All decisions again from the alphas in `recorded`, under any strategy; no data, no model.

    RunError where the log has gaps or its tables have the wrong shape.
    """
    topology = space.topology(num_steps)
    shape = (topology.num_edges, len(space.operations))
    again: list[EpochRecord] = []
    cells: dict[str, CellDecisions] = {}
    for kind in space.cell_kinds:
        decisions, history = CellDecisions.none_yet(topology), empty_history(*shape)
        for epoch, record in enumerate(_one_an_epoch(recorded, kind)):
            alphas = _table(record, shape)
            errors = None if record.errors is None else alphas.new_tensor(record.errors)
            costs = None if record.costs is None else tuple(record.costs)
            if record.epoch != epoch:
                raise RunError(
                    f"decisions.jsonl has no line for epoch {shown_epoch(epoch)} of cell {kind!r}"
                )
            known = space.operations, schedule, seed, errors, costs
            view = EpochView(epoch, kind, alphas, history, decisions, *known)
            made, decisions = score_epoch(view, strategy)
            again.extend(made)
            history = extend_history(history, alphas, history_size)
        cells[kind] = decisions
    ordered = tuple(sorted(again, key=lambda record: record.epoch))
    return Replay(ordered, cells, tuple(differences(recorded, ordered, space, num_steps)))


def differences(
    recorded: Sequence[EpochRecord],
    again: Sequence[EpochRecord],
    space: SearchSpace,
    num_steps: int,
) -> list[str]:
    """Where two logs part: a line for each epoch whose decision, pruning or states differ."""
    topology, lines = space.topology(num_steps), []

    def in_words(record: EpochRecord | None) -> str:
        if record is None or record.edge is None:
            return "no decision"
        return f"{topology.edge_name(topology.edges[record.edge])} = {record.op}"

    def by_key(records: Sequence[EpochRecord]) -> dict[tuple[int, str, int], EpochRecord]:
        turns: Counter[tuple[int, str]] = Counter()
        keyed = {}
        for record in records:
            key = (record.epoch, record.cell)
            keyed[(*key, turns[key])] = record
            turns[key] += 1
        return keyed

    ours, theirs = by_key(recorded), by_key(again)
    for key in sorted(ours.keys() | theirs.keys()):
        first, second = ours.get(key), theirs.get(key)
        if (first and (first.edge, first.op, first.states)) != (
            second and (second.edge, second.op, second.states)
        ):
            where = f"epoch {shown_epoch(key[0])}, {key[1]} cell"
            if in_words(first) == in_words(second):
                lines.append(f"{where}: {in_words(first)} in both, where other edges differ")
            else:
                lines.append(f"{where}: recorded {in_words(first)}, replayed {in_words(second)}")
    return lines


def _one_an_epoch(recorded: Sequence[EpochRecord], kind: str) -> list[EpochRecord]:
    first: dict[int, EpochRecord] = {}
    for record in recorded:
        if record.cell == kind:
            first.setdefault(record.epoch, record)
    return [first[epoch] for epoch in sorted(first)]


def _table(record: EpochRecord, shape: tuple[int, int]) -> Tensor:
    rows = record.alphas
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise RunError(
            f"decisions.jsonl, epoch {shown_epoch(record.epoch)}: alphas are no table of "
            f"{shape[0]} edges × {shape[1]} operations"
        )
    return torch.tensor(rows, dtype=torch.float64)


def open_edges(decisions: CellDecisions) -> Tensor:
    """1.0 for each edge that is still open, else 0.0: `[E, 1]`."""
    return torch.tensor([[float(s.status is Status.UNDECIDED)] for s in decisions.states])
