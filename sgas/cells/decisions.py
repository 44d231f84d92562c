"""What is decided on each edge of a cell, and what one decision does to its siblings.

An edge is undecided (a mixture of all candidates), decided (one operation) or pruned (gone).
When a step has all the edges that it keeps, its other edges are pruned (Li et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from sgas.cells.genotype import FORMAT, CellGene, EdgeGene, Genotype
from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology


class Status(Enum):
    """The three states of an edge."""

    UNDECIDED = "undecided"
    DECIDED = "decided"
    PRUNED = "pruned"


@dataclass(frozen=True)
class EdgeState:
    """The status of an edge and, where it is decided, the name of its operation."""

    status: Status = Status.UNDECIDED
    op: str | None = None

    def __post_init__(self) -> None:
        assert (self.status is Status.DECIDED) == (self.op is not None)

    def __str__(self) -> str:
        return self.op or self.status.value


UNDECIDED = EdgeState()
PRUNED = EdgeState(Status.PRUNED)


def decided(op: str) -> EdgeState:
    """The state of an edge that keeps one operation."""
    return EdgeState(Status.DECIDED, op)


@dataclass(frozen=True)
class Choice:
    """A decision: this edge takes this operation."""

    edge: int
    op: str


@dataclass(frozen=True)
class CellDecisions:
    """The states of all edges of one cell kind, in edge order. Methods return a new one."""

    topology: CellTopology
    states: tuple[EdgeState, ...]

    @classmethod
    def none_yet(cls, topology: CellTopology) -> CellDecisions:
        """A cell whose edges are all undecided."""
        return cls(topology, (UNDECIDED,) * topology.num_edges)

    @classmethod
    def from_strings(cls, topology: CellTopology, texts: list[str]) -> CellDecisions:
        """The cell that `to_strings` wrote."""
        words = {str(UNDECIDED): UNDECIDED, str(PRUNED): PRUNED}
        return cls(topology, tuple(words.get(text) or decided(text) for text in texts))

    @classmethod
    def of_gene(cls, space: SearchSpace, gene: CellGene) -> CellDecisions:
        """The complete cell that a genotype lists; `to_gene` lists it again, in edge order."""
        topology = space.topology(gene.num_steps(space))
        states = [PRUNED] * topology.num_edges
        for step, edges in enumerate(gene.edges_by_step(space)):
            for edge in edges:
                states[topology.edge_between(edge.source, step).index] = decided(edge.op)
        return cls(topology, tuple(states))

    def to_strings(self) -> list[str]:
        """One word an edge: `undecided`, `pruned` or the operation's name."""
        return [str(state) for state in self.states]

    def with_status(self, status: Status) -> tuple[int, ...]:
        """The edges of one status, in edge order."""
        return tuple(edge for edge, state in enumerate(self.states) if state.status is status)

    @property
    def undecided(self) -> tuple[int, ...]:
        """The edges that are still open, in edge order."""
        return self.with_status(Status.UNDECIDED)

    @property
    def num_decided(self) -> int:
        """How many edges have their operation."""
        return len(self.with_status(Status.DECIDED))

    @property
    def complete(self) -> bool:
        """True once no edge is open."""
        return not self.undecided

    def decide(self, choice: Choice) -> CellDecisions:
        """The cell after a choice, siblings pruned where the step is full."""
        assert self.states[choice.edge] == UNDECIDED, f"edge {choice.edge} is not open"
        states = list(self.states)
        states[choice.edge] = decided(choice.op)
        step = self.topology.edges[choice.edge].step
        siblings = [edge.index for edge in self.topology.edges_into(step)]
        chosen = [index for index in siblings if states[index].status is Status.DECIDED]
        if len(chosen) == self.topology.kept_into(step):
            for index in siblings:
                if states[index] == UNDECIDED:
                    states[index] = PRUNED
        return replace(self, states=tuple(states))

    def pruned_since(self, before: CellDecisions) -> tuple[int, ...]:
        """The edges that are pruned here and were not in `before`."""
        old = set(before.with_status(Status.PRUNED))
        return tuple(edge for edge in self.with_status(Status.PRUNED) if edge not in old)

    def to_gene(self) -> CellGene:
        """The cell as a genotype lists it; every edge has to be decided or pruned."""
        assert self.complete, "a cell with open edges has no genotype"
        edges = tuple(
            EdgeGene(state.op, edge.source)
            for edge, state in zip(self.topology.edges, self.states, strict=True)
            if state.op is not None
        )
        return CellGene(edges, self.topology.outputs({edge.source for edge in edges}))


def genotype_of(space: SearchSpace, cells: Mapping[str, CellDecisions], **meta: object) -> Genotype:
    """The genotype of complete cells, with notes."""
    genes = {kind: cell.to_gene() for kind, cell in cells.items()}
    return Genotype(FORMAT, space.name, genes, dict(meta))
