"""DARTS: the supernet stays mixed to the end and is cut once.

Each step keeps the edges whose largest non-`none` softmax weight is highest (Liu et al., ICLR 2019,
section 2.4). Not to be confused with `cri1`, which scores an edge by all its operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice
from sgas.deciding.evidence import Evidence
from sgas.deciding.schedule import Schedule
from sgas.deciding.strategies.base import EpochView, best_operation, ranked, spread_of_probs


def largest_weight(alphas: Tensor) -> Tensor:
    """The largest softmax weight of each edge, that of `none` left out: `[..., E]`."""
    return torch.softmax(alphas, dim=-1)[..., 1:].amax(-1)


@dataclass(frozen=True)
class AtTheEnd:
    """Decides everything after the last epoch, each step's edges by a measure of the alphas."""

    measure: Callable[[Tensor], Tensor]
    frees_edges = False
    trains_paths = False

    def first_decision(self, schedule: Schedule) -> int | None:
        """The last epoch."""
        return schedule.last_epoch

    def score(self, view: EpochView) -> Tensor:
        """The measure of each edge: `[E]`."""
        return self.measure(view.alphas)

    def decide(self, view: EpochView) -> tuple[Choice, ...]:
        """All choices of the cell at the end of the last epoch, step by step."""
        if view.epoch != view.schedule.last_epoch or view.decisions.complete:
            return ()
        score, topology = self.score(view), view.decisions.topology
        choices = []
        for step in range(topology.num_steps):
            edges = tuple(edge.index for edge in topology.edges_into(step))
            kept = ranked(score, edges)[: topology.kept_into(step)]
            choices += [Choice(edge, best_operation(view, edge)) for edge in kept]
        return tuple(choices)

    def evidence(
        self, view: EpochView, edge: int, op: str, other: str | None = None
    ) -> Evidence | None:
        """By the spread of the probabilities over the last epochs."""
        return spread_of_probs(view, edge, op, other)

    def complete(self, view: EpochView) -> CellDecisions:
        """The cut as if this epoch were the last one."""
        last = replace(view, epoch=view.schedule.last_epoch)
        for choice in self.decide(last):
            last = last.after(choice)
        return last.decisions


DARTS = AtTheEnd(largest_weight)
