"""SGAS: at each decision epoch the best-scored open edge takes its best operation.

Source: Li et al., CVPR 2020, algorithm 1. Cost: one scoring of a `[E, O]` table an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice
from sgas.deciding.evidence import Evidence
from sgas.deciding.schedule import Schedule
from sgas.deciding.scoring import Criterion, criterion_1, criterion_2
from sgas.deciding.strategies.base import EpochView, best_operation, ranked, spread_of_probs


@dataclass(frozen=True)
class Greedy:
    """Decides by a criterion of `sgas.deciding.scoring`."""

    criterion: Criterion
    frees_edges = True
    trains_paths = False

    def first_decision(self, schedule: Schedule) -> int | None:
        """The first decision epoch."""
        return schedule.decision_epochs[0]

    def score(self, view: EpochView) -> Tensor:
        """The criterion over all edges, decided ones included, as published: `[E]`."""
        return self.criterion(view.alphas, view.history)

    def decide(self, view: EpochView) -> tuple[Choice, ...]:
        """One choice at a decision epoch, while an edge is open."""
        if not view.is_decision_epoch or view.decisions.complete:
            return ()
        return (self._best(view),)

    def evidence(
        self, view: EpochView, edge: int, op: str, other: str | None = None
    ) -> Evidence | None:
        """By the spread of the probabilities over the last epochs."""
        return spread_of_probs(view, edge, op, other)

    def complete(self, view: EpochView) -> CellDecisions:
        """Decides on, by this epoch's scores, until no edge is open."""
        while not view.decisions.complete:
            view = view.after(self._best(view))
        return view.decisions

    def _best(self, view: EpochView) -> Choice:
        edge = ranked(self.score(view), view.decisions.undecided)[0]
        return Choice(edge, best_operation(view, edge))


CRI1, CRI2 = Greedy(criterion_1), Greedy(criterion_2)
