"""Random search inside the same schedule: a random open edge takes a random operation.

The baseline that a search has to beat (Li and Talwalkar, UAI 2019). A choice depends on the seed,
the epoch and the cell kind alone, so that a resumed run draws the same cell.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice
from sgas.deciding.schedule import Schedule
from sgas.deciding.strategies.base import EpochView, ranked


@dataclass(frozen=True)
class Random:
    """Decides by drawing lots; the alphas do not count."""

    frees_edges = True
    trains_paths = False

    def first_decision(self, schedule: Schedule) -> None:
        """None: it never looks at the alphas."""

    def score(self, view: EpochView) -> Tensor:
        """A draw from the uniform distribution for each edge, new at every epoch: `[E]`."""
        return _lots(_generator(view), view)

    def decide(self, view: EpochView) -> tuple[Choice, ...]:
        """One choice at a decision epoch, while an edge is open."""
        if not view.is_decision_epoch or view.decisions.complete:
            return ()
        draw = _generator(view)
        edge = ranked(_lots(draw, view), view.decisions.undecided)[0]
        return (Choice(edge, draw.choice(view.operations[1:])),)

    def evidence(self, view: EpochView, edge: int, op: str, other: str | None = None) -> None:
        """None: lots are no evidence."""

    def complete(self, view: EpochView) -> CellDecisions:
        """The cell that this run will end with: all later draws are known by the seed."""
        for epoch in view.schedule.decision_epochs:
            if epoch >= view.epoch:
                later = replace(view, epoch=epoch)
                for choice in self.decide(later):
                    view = view.after(choice)
        return view.decisions


RANDOM = Random()


def _generator(view: EpochView) -> random.Random:
    return random.Random(f"{view.seed}/{view.kind}/{view.epoch}")


def _lots(draw: random.Random, view: EpochView) -> Tensor:
    return torch.tensor([draw.random() for _ in view.decisions.states], dtype=torch.float64)
