"""What a strategy sees and answers. All that is particular to a strategy, it is asked itself.

Dimensions: E edges, O candidate operations (column 0 is `none`), K epochs of history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice
from sgas.deciding.evidence import Evidence
from sgas.deciding.schedule import Schedule
from sgas.deciding.scoring import operation_probs


@dataclass(frozen=True)
class EpochView:
    """One cell kind at the end of an epoch, before anything is decided.

    `alphas` `[E, O]` and `history` `[K, E, O-1]` are float64 on the CPU; `operations` are the O
    names; `seed` is the run's. `errors` `[E, O]` are standard errors, where the strategy has them,
    and `costs` the ranks of the operations by cost, where a choice depends on them.
    """

    epoch: int
    kind: str
    alphas: Tensor
    history: Tensor
    decisions: CellDecisions
    operations: tuple[str, ...]
    schedule: Schedule
    seed: int
    errors: Tensor | None = None
    costs: tuple[int, ...] | None = None

    @property
    def is_decision_epoch(self) -> bool:
        """Whether an edge may be decided at the end of this epoch."""
        return self.schedule.may_decide(self.epoch, self.decisions.num_decided)

    def after(self, choice: Choice) -> EpochView:
        """The same epoch once `choice` is made."""
        return replace(self, decisions=self.decisions.decide(choice))


class Strategy(Protocol):
    """When and what to decide.

    `frees_edges` says that it decides as the search goes, so that epochs get cheaper, and
    `trains_paths` that the weights are trained by cells of one operation an edge, not by mixtures.
    """

    @property
    def frees_edges(self) -> bool: ...

    @property
    def trains_paths(self) -> bool: ...

    def first_decision(self, schedule: Schedule) -> int | None:
        """The epoch after which it first decides by the alphas; None where they never count."""
        ...

    def score(self, view: EpochView) -> Tensor:
        """The score `[E]` of each edge; the largest one is decided first."""
        ...

    def decide(self, view: EpochView) -> tuple[Choice, ...]:
        """The decisions at the end of this epoch, in order; empty where there is none."""
        ...

    def evidence(
        self, view: EpochView, edge: int, op: str, other: str | None = None
    ) -> Evidence | None:
        """How far an operation is ahead on its edge of another, and how sure that is.

        Of the best other one unless it is named; None if unknown.
        """
        ...

    def complete(self, view: EpochView) -> CellDecisions:
        """The cell that would be cut if the search stopped now."""
        ...


def best_operation(view: EpochView, edge: int) -> str:
    """The largest operation of an edge other than `none`; the first one on a tie."""
    probs = operation_probs(view.alphas)[edge].tolist()
    return view.operations[1 + probs.index(max(probs))]


def spread_of_probs(
    view: EpochView, edge: int, op: str, other: str | None = None
) -> Evidence | None:
    """The margin of an operation's probability, and its standard deviation over the last epochs.

    Over the K epochs of the history and this one: None where there is no history, or where the
    edge has no other operation to be ahead of.
    """
    probs = operation_probs(view.alphas)[edge]
    if len(probs) < 2 or not len(view.history):
        return None
    column = view.operations.index(op) - 1
    rivals = probs.clone()
    rivals[column] = -1
    second = int(rivals.argmax()) if other is None else view.operations.index(other) - 1
    margins = torch.cat([view.history[:, edge], probs[None]])
    margins = margins[:, column] - margins[:, second]
    return Evidence(float(margins[-1]), float(margins.std()))


def best_gain(alphas: Tensor) -> Tensor:
    """The best operation's value on each edge, `[..., E, O]` to `[..., E]`, `none` left out."""
    return alphas[..., 1:].amax(-1)


def margin_by_errors(
    view: EpochView, edge: int, op: str, other: str | None = None
) -> Evidence | None:
    """How far an operation is ahead of the next on its edge, by the errors of the table.

    In the unit of the table; None where it has no errors, or the edge no other operation.
    """
    if view.errors is None or len(view.operations) < 3:
        return None
    gains = dict(zip(view.operations[1:], view.alphas[edge, 1:].tolist(), strict=True))
    gain = gains.pop(op)
    second = other or max(gains, key=gains.__getitem__)
    error = float(view.errors[edge, view.operations.index(second)])
    return Evidence(gain - gains[second], error)


def ranked(score: Tensor, edges: tuple[int, ...]) -> list[int]:
    """`edges` from the best score to the worst, earlier edges first on a tie."""
    values = score.tolist()
    return sorted(edges, key=lambda edge: (-values[edge], edge))
