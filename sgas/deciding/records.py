"""EpochRecord: one line of decisions.jsonl, everything needed to explain or replay an epoch."""

from __future__ import annotations

import msgspec

from sgas.deciding.evidence import Evidence


class EpochRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One scored epoch of one cell kind.

    `epoch` counts from 0. `alphas` are `[E][O]` after the epoch's training; importance, certainty,
    stability and score `[E]` as scored (raw, score before open edges are singled out); `states`
    `[E]` what holds after the epoch: `undecided`, `pruned` or an operation. `edge` and `op` are the
    decision, or null; `runner_up` the open edge with the second-best score and `margin` the
    distance to it; `evidence` is what speaks for the operation on its edge, null where nothing
    does. `errors` `[E][O]` are standard errors in the place of the alphas, where the strategy has
    them, and `costs` `[O]` the operations' ranks by cost, where a choice depends on them.
    """

    epoch: int
    cell: str
    decision_epoch: bool
    alphas: list[list[float]]
    importance: list[float]
    certainty: list[float]
    stability: list[float]
    score: list[float]
    states: list[str]
    edge: int | None = None
    op: str | None = None
    runner_up: int | None = None
    margin: float | None = None
    pruned: list[int] = []
    errors: list[list[float]] | None = None
    evidence: Evidence | None = None
    costs: list[int] | None = None

    def fits(self) -> bool:
        """Whether all lists speak of the same edges, and all edge numbers are among them."""
        num_edges = len(self.alphas)
        tables = (self.importance, self.certainty, self.stability, self.score, self.states)
        named = [edge for edge in (self.edge, self.runner_up, *self.pruned) if edge is not None]
        return (
            all(len(table) == num_edges for table in tables)
            and len({len(row) for row in self.alphas}) == 1
            and all(0 <= edge < num_edges for edge in named)
            and (self.edge is None) == (self.op is None)
            and (self.costs is None or {len(self.costs)} == {*map(len, self.alphas)})
            and (self.errors is None or [*map(len, self.errors)] == [*map(len, self.alphas)])
        )
