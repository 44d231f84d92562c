"""The best of the cells that were trained, cut after the last turn (`sgas.running.candidates`).

In the place of alphas stands what each operation of each edge was worth in the best cell that has
it; the best cell has the largest value on each of its edges.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgas.deciding.evidence import Evidence
from sgas.deciding.schedule import Schedule
from sgas.deciding.strategies.base import EpochView, best_gain, margin_by_errors
from sgas.deciding.strategies.darts import AtTheEnd


@dataclass(frozen=True)
class ByCandidates(AtTheEnd):
    """Decides everything after the last turn, by what trained cells were worth."""

    def first_decision(self, schedule: Schedule) -> None:
        """None: no alphas are trained."""

    def evidence(
        self, view: EpochView, edge: int, op: str, other: str | None = None
    ) -> Evidence | None:
        """How far the best cell is ahead of the best one with another operation on the edge."""
        return margin_by_errors(view, edge, op, other)


CANDIDATES = ByCandidates(best_gain)
