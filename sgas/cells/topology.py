"""The edges of a cell's directed acyclic graph; all arithmetic of edge numbers lives here.

States are numbered: the cell's inputs first (0 .. num_inputs-1), then one state a step. Edges are
numbered step by step, sources in order, as in DARTS (Liu et al., ICLR 2019) and SGAS
(Li et al., CVPR 2020): step i has num_inputs + i incoming edges.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from sgas.errors import ConfigError


@dataclass(frozen=True)
class Edge:
    """One edge: from state `source` into step `step`; `index` is its row in the alphas."""

    index: int
    source: int
    step: int


@dataclass(frozen=True)
class CellTopology:
    """The complete graph of a cell before anything is decided.

    `in_degree` is how many edges each step keeps in the end (None: all of them); `num_outputs` how
    many of the last states are concatenated into the cell's output (None: those of the steps that
    no kept edge leaves).
    """

    num_steps: int
    num_inputs: int = 2
    in_degree: int | None = 2
    num_outputs: int | None = 4

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps is {self.num_steps}; a cell needs at least 1 step")
        if self.in_degree is not None and not 1 <= self.in_degree <= self.num_inputs:
            raise ConfigError(
                f"in_degree is {self.in_degree}; the first step has {self.num_inputs} edges"
            )
        if self.num_outputs is not None and not 1 <= self.num_outputs <= self.num_states:
            raise ConfigError(
                f"num_outputs is {self.num_outputs}; a cell of {self.num_steps} steps has "
                f"{self.num_states} states"
            )

    @property
    def num_states(self) -> int:
        """Number of states, inputs included."""
        return self.num_inputs + self.num_steps

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges in the order of the alphas' rows."""
        pairs = [
            (source, step)
            for step in range(self.num_steps)
            for source in range(self.num_inputs + step)
        ]
        return tuple(Edge(index, source, step) for index, (source, step) in enumerate(pairs))

    @property
    def num_edges(self) -> int:
        """Number of edges before anything is decided."""
        return len(self.edges)

    def edges_into(self, step: int) -> tuple[Edge, ...]:
        """The edges that enter a step."""
        return tuple(edge for edge in self.edges if edge.step == step)

    def edge_between(self, source: int, step: int) -> Edge:
        """The edge from a state into a step; KeyError where the cell has none."""
        for edge in self.edges_into(step):
            if edge.source == source:
                return edge
        raise KeyError((source, step))

    def kept_into(self, step: int) -> int:
        """How many edges a step keeps in the end."""
        return len(self.edges_into(step)) if self.in_degree is None else self.in_degree

    @property
    def num_decisions(self) -> int:
        """Number of edges that are decided in the end."""
        return sum(self.kept_into(step) for step in range(self.num_steps))

    @property
    def concat(self) -> tuple[int, ...]:
        """The states that can be part of the output: the last `num_outputs`, or all the steps'."""
        num_outputs = self.num_steps if self.num_outputs is None else self.num_outputs
        return tuple(range(self.num_states - num_outputs, self.num_states))

    def outputs(self, sources: Collection[int]) -> tuple[int, ...]:
        """The states that make the output of a cell whose kept edges leave the states `sources`."""
        if self.num_outputs is not None:
            return self.concat
        return tuple(state for state in self.concat if state not in sources)

    def state_of(self, step: int) -> int:
        """The number of the state that a step computes."""
        return self.num_inputs + step

    def state_name(self, state: int) -> str:
        """How a state is called in pictures and logs: c(k-2), c(k-1), n1, n2, …"""
        if state >= self.num_inputs:
            return f"n{state - self.num_inputs + 1}"
        return "in" if self.num_inputs == 1 else f"c(k-{self.num_inputs - state})"

    def edge_name(self, edge: Edge) -> str:
        """How an edge is called in pictures and logs: c(k-1)→n1."""
        return f"{self.state_name(edge.source)}→{self.state_name(self.state_of(edge.step))}"
