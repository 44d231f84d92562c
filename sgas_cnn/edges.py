"""The edges of a cell of any image space: what they hold, and the forward pass through them.

An edge holds all candidates (undecided), one (decided) or none (pruned); a supernet's cell and a
derived cell have the same edges. Dimensions: B images, C channels, H × W pixels, E edges, O
candidate operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from sgas.cells.edges import CellLayout, restrict, running
from sgas.cells.forward import dag_extend
from sgas_cnn.fused.plan import SourcePlan, Use
from sgas_cnn.fused.source import forward_source
from sgas_cnn.ops.operation import Operation

OperationTable = Mapping[str, Callable[[int, int, bool], Operation]]


@dataclass(frozen=True)
class Single:
    """An operation that is not fused: its edge, and the place of its weight (None: it is 1)."""

    op: str
    edge: int
    place: int | None


@dataclass
class Leaving:
    """What leaves one state: the edges that are fused, in the plan's order, and the rest."""

    plan: SourcePlan | None = None
    fused: list[int] = field(default_factory=list)
    singles: list[Single] = field(default_factory=list)


class CellEdges(nn.ModuleList):
    """The edges of a cell, each a module dictionary of the operations that it still holds.

    `table` makes the operations and `candidates` are the columns of the weights; `strides` are
    those of the edges that leave each state.
    """

    def __init__(
        self,
        layout: CellLayout,
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
            for edge in layout.edges
        )
        self.layout, self.channels, self.strides = layout, channels, tuple(strides)
        self.candidates = tuple(candidates)
        self.select(None)

    def restrict(self, kept: Sequence[Sequence[str]]) -> None:
        """Free the operations that are not in `kept`, by edge; the others stay the same modules."""
        restrict(self, kept)
        self.select(None)

    def select(self, kept: Sequence[Sequence[str]] | None) -> None:
        """Run the operations in `kept` alone, by edge, and free none; None: all that are held."""
        self.running = [running(self, edge, kept) for edge in range(len(self))]
        self._group()

    def _group(self) -> None:
        """Sort the operations by the state they read, into those that are fused and the rest."""
        self.mixes = any(len(ops) > 1 for ops in self.running)
        self.leaving: list[Leaving] = []
        for source, stride in enumerate(self.strides):
            leaving, uses = Leaving(), list[Use]()
            for edge, ends in enumerate(self.layout.edges):
                if ends.source == source:
                    uses += self._sort(edge, leaving)
            if uses:
                leaving.plan = SourcePlan(uses, len(leaving.fused), stride)
            self.leaving.append(leaving)

    def _sort(self, edge: int, leaving: Leaving) -> list[Use]:
        """Put the operations of an edge where they belong; the parts of those that are fused."""
        uses: list[Use] = []
        for name, op in self.running[edge].items():
            place, parts = self._place_of_weight(edge, name), cast("Operation", op).parts()
            alone = len(self.running[edge]) == 1
            if parts is None or (alone and not parts):
                leaving.singles.append(Single(name, edge, place))
            else:
                uses += [Use(len(leaving.fused), place, part) for part in parts]
        if uses:
            leaving.fused.append(edge)
        return uses

    def _place_of_weight(self, edge: int, op: str) -> int | None:
        """Where the weight of an operation stands; None where the edge runs no other."""
        if len(self.running[edge]) == 1:
            return None
        return edge * len(self.candidates) + self.candidates.index(op)

    def forward(
        self, inputs: Sequence[Tensor], weights: Tensor | None = None, drop_path: float = 0.0
    ) -> list[Tensor]:
        """All states of the cell, its inputs first, each `[B, C, H, W]`.

        `weights` `[E, O]` multiply the operations of edges that hold several (None: all 1). In
        training mode every edge but a plain skip is dropped with probability `drop_path` for each
        image.
        """
        drop_path = drop_path if self.training else 0.0
        if weights is None and self.mixes:
            weights = inputs[0].new_ones(len(self), len(self.candidates))

        def extend(source: int, x: Tensor, sums: Mapping[int, Tensor]) -> dict[int, Tensor]:
            steps, leaving = dict(sums), self.leaving[source]
            outs = self._fused_outputs(leaving, x, weights, drop_path, steps)
            for single in leaving.singles:
                out = self._single_output(single, x, weights)
                outs[single.edge] = outs[single.edge] + out if single.edge in outs else out
            for edge, out in outs.items():
                self._add(edge, out, drop_path, steps)
            return steps

        return dag_extend(inputs, self.layout.num_steps, extend)

    def plain_states(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """All states in plain torch, of a cell that is decided: each edge by its definition."""
        states = list(inputs)
        for step in range(self.layout.num_steps):
            outs = [
                op(states[ends.source])
                for edge, ends in enumerate(self.layout.edges)
                if ends.step == step
                for op in self.running[edge].values()
            ]
            states.append(reduce(torch.add, outs))
        return states

    def _fused_outputs(
        self,
        leaving: Leaving,
        x: Tensor,
        weights: Tensor | None,
        drop_path: float,
        steps: dict[int, Tensor],
    ) -> dict[int, Tensor]:
        """The outputs of the fused edges, by edge, each with what its step has from before.

        That is taken out of `steps`; with drop path it stays there, or it would be dropped too.
        """
        if leaving.plan is None:
            return {}
        before: list[Tensor | None] = []
        for edge in leaving.fused:
            joins = drop_path == 0
            before.append(steps.pop(self.layout.edges[edge].step, None) if joins else None)
        outs = forward_source(leaving.plan, x, weights, before, self.training)
        return dict(zip(leaving.fused, outs, strict=True))

    def _single_output(self, single: Single, x: Tensor, weights: Tensor | None) -> Tensor:
        """The output of an operation that is not fused, times its weight."""
        out = self.running[single.edge][single.op](x)
        if weights is None or single.place is None:
            return out
        return out * weights.flatten()[single.place]

    def _add(self, edge: int, out: Tensor, drop_path: float, steps: dict[int, Tensor]) -> None:
        """Add the output of an edge to the step it enters."""
        ops = cast("Sequence[Operation]", list(self.running[edge].values()))
        if drop_path > 0 and not all(op.skips for op in ops):
            out = drop_images(out, drop_path)
        step = self.layout.edges[edge].step
        steps[step] = steps[step] + out if step in steps else out


def drop_images(x: Tensor, probability: float) -> Tensor:
    """`x` `[B, C, H, W]` with random images zeroed, the others scaled up.

    Drop path as in Larsson et al., "FractalNet", ICLR 2017, with one draw for an image and an edge.
    """
    keep = 1 - probability
    mask = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) < keep
    return x * (mask / keep)
