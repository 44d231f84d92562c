"""The edges of a cell and the operations that they hold, in a search and after it.

An edge holds all candidates (undecided), one (decided) or none (pruned). A cell keeps its edges as
a module list of dictionaries, operation by name, so that what is given up frees its weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sgas.cells.decisions import CellDecisions, EdgeState, Status
from sgas.cells.genotype import CellGene
from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology

# Where networks and supernets have the parts of an edge: `cells.CELL.edges.EDGE.OP.`, and in spaces
# whose cells are nothing but edges `cells.CELL.EDGE.OP.`.
PLACE = re.compile(r"\bcells\.(?P<cell>\w+)\.(?:edges\.)?(?P<edge>\d+)\.(?P<op>\w+)\.")


@dataclass(frozen=True)
class CellEdge:
    """One edge: the state it reads, the step it enters, and the operations it holds."""

    source: int
    step: int
    ops: tuple[str, ...]


@dataclass(frozen=True)
class CellLayout:
    """What the cells of one kind have in common: edges, number of steps, states of the output."""

    edges: tuple[CellEdge, ...]
    num_steps: int
    concat: tuple[int, ...]


def searched_layout(space: SearchSpace, topology: CellTopology) -> CellLayout:
    """The cells of a search: every edge with all candidates."""
    edges = [CellEdge(edge.source, edge.step, space.operations) for edge in topology.edges]
    return CellLayout(tuple(edges), topology.num_steps, topology.concat)


def derived_layout(space: SearchSpace, gene: CellGene) -> CellLayout:
    """The cells of a gene: the edges of each step, in the genotype's order."""
    steps = gene.edges_by_step(space)
    edges = [
        CellEdge(edge.source, step, (edge.op,)) for step, into in enumerate(steps) for edge in into
    ]
    return CellLayout(tuple(edges), len(steps), gene.concat)


def kept_operations(space: SearchSpace, decisions: CellDecisions) -> list[tuple[str, ...]]:
    """The operations that each edge holds: all candidates, the one decided, or none."""
    return [_kept(space, state) for state in decisions.states]


def _kept(space: SearchSpace, state: EdgeState) -> tuple[str, ...]:
    if state.status is Status.UNDECIDED:
        return space.operations
    return () if state.op is None else (state.op,)


def held(edges: nn.ModuleList, edge: int) -> nn.ModuleDict:
    """The operations that an edge still holds, by name."""
    operations = edges[edge]
    assert isinstance(operations, nn.ModuleDict)
    return operations


def running(
    edges: nn.ModuleList, edge: int, selected: Sequence[Sequence[str]] | None
) -> dict[str, nn.Module]:
    """The operations of an edge that run, by name: all that it holds, or those that are selected.

    What is selected has to be held, and takes its order.
    """
    operations = held(edges, edge)
    if selected is None:
        return dict(operations.items())
    missing = set(selected[edge]) - set(operations)
    assert not missing, f"edge {edge} holds no {sorted(missing)}"
    return {op: module for op, module in operations.items() if op in selected[edge]}


def restrict(edges: nn.ModuleList, kept: Sequence[Sequence[str]]) -> None:
    """Free the operations that are not in `kept`, by edge; the others stay the same modules."""
    for edge, ops in enumerate(kept):
        operations = held(edges, edge)
        missing = set(ops) - set(operations)
        assert not missing, f"edge {edge} has lost {sorted(missing)} in an earlier decision"
        for op in set(operations) - set(ops):
            del operations[op]
