"""When a search decides, how long it lasts and how its batch grows; how epochs are counted.

Code and files count epochs from 0, what a reader is shown counts from 1: `shown_epoch`.

Source: Li et al., CVPR 2020, section 4 and the published settings: decisions at
e = warmup_epochs + n · decision_interval, then `final_epochs` more on the finished cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sgas.cells.topology import CellTopology
from sgas.config import STRATEGIES, SearchConfig, TrainConfig

FINAL_SLOPE = 5  # epochs of the second slope


def shown_epoch(epoch: int) -> int:
    """The number that a reader sees of an epoch of code and files: the first is 1."""
    return epoch + 1


@dataclass(frozen=True)
class Turn:
    """A training in a search among trained cells: its round, which of the round's, how long."""

    round: int
    index: int
    epochs: int


def turns(config: SearchConfig) -> tuple[Turn, ...]:
    """The trainings of a search among trained cells, in order; none for other strategies.

    Each round has as many epochs as the others, for the cells that are left in it, at least one
    each; the last is that of two cells, or the first where none goes on.
    """
    keeps = STRATEGIES[config.strategy].keeps
    if keeps is None:
        return ()
    counts = [config.num_candidates]
    while keeps and counts[-1] > 2:
        counts.append(max(2, int(counts[-1] * keeps)))
    of_round = config.num_candidates * config.candidate_epochs / len(counts)
    return tuple(
        Turn(number, index, max(1, round(of_round / count)))
        for number, count in enumerate(counts)
        for index in range(count)
    )


@dataclass(frozen=True)
class Schedule:
    """The decision epochs of a search. `num_decisions` is a cell's number of kept edges.

    `costs` are the epochs' shares of the work, where they are known beforehand; `patience` is how
    many epochs a decision without evidence waits.
    """

    num_decisions: int
    warmup_epochs: int
    decision_interval: int
    final_epochs: int
    costs: tuple[float, ...] = ()
    patience: int = 0

    @classmethod
    def of(cls, config: SearchConfig, topology: CellTopology) -> Schedule:
        """The schedule of a config for cells of one topology.

        Where complete cells are trained an epoch is one turn, and the last one decides.
        """
        trained = turns(config)
        if trained:
            costs = tuple(float(turn.epochs) for turn in trained)
            return cls(topology.num_decisions, len(trained) - 1, 0, 0, costs, config.patience)
        return cls(
            topology.num_decisions,
            config.warmup_epochs,
            config.decision_interval,
            config.final_epochs,
            patience=config.patience,
        )

    @property
    def decision_epochs(self) -> tuple[int, ...]:
        """The epochs at whose end an edge is decided."""
        return tuple(
            self.warmup_epochs + n * self.decision_interval for n in range(self.num_decisions)
        )

    def may_decide(self, epoch: int, num_decided: int) -> bool:
        """Whether an edge may be decided after an epoch by which `num_decided` are.

        At decision epochs and, for as long as one of them has waited, in the epochs after it.
        """
        due = [decision for decision in self.decision_epochs if decision <= epoch]
        if not self.patience or not due:
            return epoch in due
        return num_decided < len(due) and epoch <= due[-1] + self.patience

    @property
    def num_epochs(self) -> int:
        """Length of the search in epochs."""
        return self.decision_epochs[-1] + self.final_epochs + 1

    @property
    def last_epoch(self) -> int:
        """The number of the last epoch."""
        return self.num_epochs - 1

    def expected_costs(self, frees_edges: bool) -> list[float]:
        """Expected share of the work of each epoch, for the time left.

        It falls with each decision where the strategy frees what is decided. An epoch costs its
        open edges and a part that no decision takes away (on an idle CPU, by the point family's
        demo preset, about a quarter of the first epoch).
        """
        if self.costs:
            return list(self.costs)
        costs = []
        for epoch in range(self.num_epochs):
            made = sum(1 for e in self.decision_epochs if e < epoch and frees_edges)
            costs.append(0.25 + 0.75 * (1 - made / self.num_decisions))
        return costs


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch of a training."""
    start, end = config.learning_rate, config.learning_rate_min
    fall = {"cosine": cosine, "linear": linear, "two_slopes": two_slopes}[
        config.learning_rate_schedule
    ]
    warmup = min(1.0, (epoch + 1) / (config.learning_rate_warmup + 1))
    return fall(start, end, epoch, config.epochs) * warmup


def linear(start: float, end: float, epoch: int, num_epochs: int) -> float:
    """Learning rate of an epoch: a line from `start` at epoch 0 to `end` at `num_epochs`."""
    return start + (end - start) * epoch / num_epochs


def two_slopes(start: float, end: float, epoch: int, num_epochs: int) -> float:
    """Learning rate of an epoch: a line that falls nearly to `end`, then a flatter one.

    The last `FINAL_SLOPE` epochs share one step of the first line; trainings no longer than that
    have one line. Source: the published training of SGAS on ImageNet.
    """
    steep, left = num_epochs - FINAL_SLOPE, num_epochs - epoch
    if steep <= 0:
        return linear(start, end, epoch, num_epochs)
    share = (left - FINAL_SLOPE) / steep if left > FINAL_SLOPE else left / (steep * FINAL_SLOPE)
    return end + (start - end) * share


def cosine(start: float, end: float, epoch: int, num_epochs: int) -> float:
    """Learning rate of an epoch: half a cosine from `start` at epoch 0 to `end` at `num_epochs`.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.
    """
    return end + (start - end) * (1 + math.cos(math.pi * epoch / num_epochs)) / 2
