"""The edges of a cell of any image space: what they hold, and the forward pass through them.

An edge holds all candidates (undecided), one (decided) or none (pruned); a supernet's cell and a
derived cell have the same edges. Dimensions: B images, C channels, H × W pixels, E edges, O
candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sgas.cell import dag_forward
from sgas.decisions import EdgeState, Status
from sgas.genotype import CellGene
from sgas.space import NONE, SearchSpace
from sgas.topology import CellTopology
from sgas_cnn.ops.common import Operation, SourceState

OperationTable = Mapping[str, Callable[[int, int, bool], Operation]]


@dataclass(frozen=True)
class CellEdge:
    """One edge: the state it reads, the step it enters, and the operations it holds."""

    source: int
    step: int
    ops: tuple[str, ...]


@dataclass(frozen=True)
class CellPlan:
    """What the cells of one kind have in common: edges, number of steps, states of the output."""

    edges: tuple[CellEdge, ...]
    num_steps: int
    concat: tuple[int, ...]


def searched_plan(space: SearchSpace, topology: CellTopology) -> CellPlan:
    """The cells of a search: every edge with all candidates."""
    edges = [CellEdge(edge.source, edge.step, space.operations) for edge in topology.edges]
    return CellPlan(tuple(edges), topology.num_steps, topology.concat)


def derived_plan(space: SearchSpace, gene: CellGene) -> CellPlan:
    """The cells of a gene: the edges of each step, in the genotype's order."""
    steps = gene.edges_by_step(space)
    edges = [
        CellEdge(edge.source, step, (edge.op,)) for step, into in enumerate(steps) for edge in into
    ]
    return CellPlan(tuple(edges), len(steps), gene.concat)


def operations_of(space: SearchSpace, state: EdgeState) -> tuple[str, ...]:
    """The operations that an edge holds: all candidates, the one decided, or none."""
    if state.status is Status.UNDECIDED:
        return space.operations
    return () if state.op is None else (state.op,)


@dataclass(frozen=True)
class OperationGroup:
    """All edges out of one state that hold one operation; they are evaluated together.

    `places` are those of their weights, edge by edge (None: the edge holds nothing else).
    """

    op: str
    edges: tuple[int, ...]
    places: tuple[int | None, ...]


class CellEdges(nn.ModuleList):
    """The edges of a cell, each a module dictionary of the operations that it still holds.

    `table` makes the operations and `candidates` are the columns of the weights; `strides` are
    those of the edges that leave each state.
    """

    def __init__(
        self,
        plan: CellPlan,
        channels: int,
        strides: Sequence[int],
        *,
        table: OperationTable,
        candidates: Sequence[str],
        affine: bool,
    ) -> None:
        super().__init__(
            nn.ModuleDict(
                {op: table[op](channels, strides[edge.source], affine) for op in edge.ops}
            )
            for edge in plan.edges
        )
        self.plan, self.channels, self.strides = plan, channels, tuple(strides)
        self.names, self.candidates = tuple(table), tuple(candidates)
        self._group()

    def restrict(self, kept: Sequence[Sequence[str]]) -> None:
        """Free the operations that are not in `kept`, by edge; the others stay the same modules."""
        for edge, ops in enumerate(kept):
            held = self._held(edge)
            missing = set(ops) - set(held)
            assert not missing, f"edge {edge} has lost {sorted(missing)} in an earlier decision"
            for op in set(held) - set(ops):
                del held[op]
        self._group()

    def _held(self, edge: int) -> nn.ModuleDict:
        """The operations that an edge still holds."""
        held = self[edge]
        assert isinstance(held, nn.ModuleDict)
        return held

    def _group(self) -> None:
        """Group the edges by what they read and hold."""
        self.groups: list[list[OperationGroup]] = []
        for source in range(len(self.strides)):
            leaving = [e for e, edge in enumerate(self.plan.edges) if edge.source == source]
            found = []
            for op in self.names:
                edges = tuple(edge for edge in leaving if self._contributes(edge, op))
                if edges:
                    places = tuple(self._place_of_weight(edge, op) for edge in edges)
                    found.append(OperationGroup(op, edges, places))
            self.groups.append(found)

    def _contributes(self, edge: int, op: str) -> bool:
        """True where an edge holds an operation that adds something to its output."""
        held = self._held(edge)
        return op in held and (op != NONE or len(held) == 1)

    def _place_of_weight(self, edge: int, op: str) -> int | None:
        """Where the weight of an operation stands; None where the edge holds no other."""
        if len(self._held(edge)) == 1:
            return None
        return edge * len(self.candidates) + self.candidates.index(op)

    def _scales(self, weights: Tensor | None) -> Sequence[Tensor | None]:
        """The weights `[E, O]` one by one, edge by edge, each as `[C]`; None stands for ones."""
        if weights is None:
            return [None] * (len(self) * len(self.candidates))
        # Batch norm's backward on the CPU misreads an expanded scalar as weight (torch 2.13).
        return weights.flatten().unsqueeze(1).repeat(1, self.channels).unbind(0)

    def forward(
        self, inputs: Sequence[Tensor], weights: Tensor | None = None, drop_path: float = 0.0
    ) -> list[Tensor]:
        """All states of the cell, its inputs first, each `[B, C, H, W]`.

        `weights` `[E, O]` multiply the operations of edges that hold several (None: all 1). In
        training mode every edge but a plain skip is dropped with probability `drop_path` for each
        image.
        """
        drop_path = drop_path if self.training else 0.0
        scales = self._scales(weights)

        def push(source: int, x: Tensor) -> dict[int, Tensor]:
            state = SourceState(x, self.strides[source])
            steps: dict[int, Tensor] = {}
            for group in self.groups[source]:
                ops = [cast("Operation", self._held(edge)[group.op]) for edge in group.edges]
                chosen = [scales[place] if place is not None else None for place in group.places]
                outputs = type(ops[0]).evaluate(ops, state, chosen)
                for edge, op, out in zip(group.edges, ops, outputs, strict=True):
                    if drop_path > 0 and not op.skips:
                        out = drop_images(out, drop_path)
                    step = self.plan.edges[edge].step
                    steps[step] = steps[step] + out if step in steps else out
            return steps

        return dag_forward(inputs, self.plan.num_steps, push)


def drop_images(x: Tensor, probability: float) -> Tensor:
    """`x` `[B, C, H, W]` with random images zeroed, the others scaled up.

    Drop path as in Larsson et al., "FractalNet", ICLR 2017, with one draw for an image and an edge.
    """
    keep = 1 - probability
    mask = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) < keep
    return x * (mask / keep)
