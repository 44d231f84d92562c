"""What the records of a search say about each edge: the facts that all pictures show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sgas.cells.decisions import CellDecisions, EdgeState, Status
from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology, Edge
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.errors import InputError


def topology_of(records: Sequence[EpochRecord], space: SearchSpace) -> CellTopology:
    """The complete cell that the records score; InputError where there is none to draw."""
    if not records:
        raise InputError("no epoch was scored yet, so there is no cell to draw; search longer")
    num_edges, num_steps = len(records[-1].states), 1
    while space.topology(num_steps).num_edges < num_edges:
        num_steps += 1
    topology = space.topology(num_steps)
    if topology.num_edges != num_edges:
        raise InputError(
            f"a record scores {num_edges} edges; a cell of space {space.name!r} has "
            f"{topology.num_edges} with {num_steps} steps: is it a record of another space?"
        )
    return topology


def softmax(values: Sequence[float]) -> list[float]:
    """The softmax of a row, finite for alphas of any size."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def ranking(alphas: Sequence[float], operations: Sequence[str]) -> list[tuple[str, float]]:
    """The operations other than `none` of one edge with p(operation | not none), best first."""
    pairs = zip(operations[1:], softmax(alphas[1:]), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


@dataclass(frozen=True)
class EdgeStory:
    """What happened to one edge.

    `order` is the number of its decision (from 1; None where it has none of its own), `record` the
    epoch that decided or pruned it, or the last one while it is open.
    """

    edge: Edge
    name: str
    state: EdgeState
    order: int | None
    record: EpochRecord
    ranking: tuple[tuple[str, float], ...]

    @property
    def epoch(self) -> int:
        """The epoch of `record`, from 1."""
        return shown_epoch(self.record.epoch)

    @property
    def status(self) -> Status:
        """Whether the edge is open, decided or pruned."""
        return self.state.status

    @property
    def sign(self) -> str:
        """What stands in the edge's disc: its order, • for decided without one, ? or ×."""
        if self.status is Status.DECIDED:
            return str(self.order) if self.order else "•"
        return "?" if self.status is Status.UNDECIDED else "×"

    @property
    def operation(self) -> str:
        """The operation that it has, or that leads."""
        return self.state.op or self.ranking[0][0]

    @property
    def strength(self) -> float:
        """Importance × probability of the operation, in [0, 1]."""
        return self.importance * dict(self.ranking).get(self.operation, 0.0)

    @property
    def importance(self) -> float:
        """Importance in the record that counts."""
        return self.record.importance[self.edge.index]

    @property
    def factors(self) -> dict[str, float]:
        """Importance I, certainty C and stability S as criteria multiply them (`factors_of`)."""
        return factors_of(self.record, self.edge.index)

    @property
    def score(self) -> float:
        """Score in the record that counts."""
        return self.record.score[self.edge.index]


def factors_of(record: EpochRecord, edge: int) -> dict[str, float]:
    """What criteria multiply for an edge: each from 0, the lowest of the cell's edges, to 1."""
    tables = {"I": record.importance, "C": record.certainty, "S": record.stability}
    spans = {name: (min(table), max(table) - min(table)) for name, table in tables.items()}
    return {
        name: (table[edge] - spans[name][0]) / spans[name][1] if spans[name][1] else 0.0
        for name, table in tables.items()
    }


def decisions_in(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    """The records that decided an edge, in order."""
    return [record for record in records if record.edge is not None]


def edge_stories(records: Sequence[EpochRecord], space: SearchSpace) -> list[EdgeStory]:
    """The story of every edge after the last of the records, in edge order."""
    topology = topology_of(records, space)
    states = CellDecisions.from_strings(topology, records[-1].states).states
    orders = {record.edge: n for n, record in enumerate(decisions_in(records), start=1)}
    stories = []
    for edge, state in zip(topology.edges, states, strict=True):
        record = _record_that_counts(records, edge.index, state)
        ranked = tuple(ranking(record.alphas[edge.index], space.operations))
        name = topology.edge_name(edge)
        stories.append(EdgeStory(edge, name, state, orders.get(edge.index), record, ranked))
    return stories


def _record_that_counts(records: Sequence[EpochRecord], edge: int, state: EdgeState) -> EpochRecord:
    """The first record with the edge's last state, or the last record while the edge is open."""
    if state.status is Status.UNDECIDED:
        return records[-1]
    return next(record for record in records if record.states[edge] == str(state))


def in_order(stories: Sequence[EdgeStory]) -> list[EdgeStory]:
    """Decided edges in order of decision, then open ones by score, then pruned ones."""
    rank = {Status.DECIDED: 0, Status.UNDECIDED: 1, Status.PRUNED: 2}

    def key(story: EdgeStory) -> tuple[float, ...]:
        if story.status is Status.UNDECIDED:
            return rank[story.status], -story.score, story.edge.index
        order = story.order or math.inf
        return rank[story.status], order, story.record.epoch, story.edge.index

    return sorted(stories, key=key)
