"""Shows a search or a training: a bar on a terminal, one line an epoch elsewhere.

An epoch of a search among trained cells is one training of one cell, and is called so: beside it
stand its figure on the held-out half, which the search compares, and the validation figure of the
best cell so far.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from sgas.deciding.schedule import shown_epoch
from sgas.terminal import console, shown


def clock(seconds: float) -> str:
    """A duration as 0:07, 12:30 or 3:05:00."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


NARROW = 50  # columns: below, there is no room for a bar
# What a line leaves out first where it is too long: from the last of these on.
RANKS = ("place", "val", "test", "left", "held out", "decided", "train", "loss")


def fitted(fields: Mapping[str, str], room: int) -> str:
    """The fields beside each other in `room` columns: whole ones, those that matter most."""
    kept = dict(fields)
    for name in reversed(RANKS[1:]):
        if len(" · ".join(kept.values())) <= room:
            break
        kept.pop(name, None)
    return " · ".join(kept.values())


class ShowProgress:
    """A `Listener` that prints to standard error. A context manager."""

    def __init__(
        self,
        verb: str,
        total_decisions: int = 0,
        metric: str = "accuracy",
        trains_cells: bool = False,
    ) -> None:
        self.verb, self.total_decisions, self.metric = verb, total_decisions, metric
        self.epoch, self.val = ("training", "best val") if trains_cells else ("epoch", "val")
        self.console = console(file=sys.stderr)
        width = self.console.width
        before = (TextColumn(f"{verb} ", markup=False), BarColumn(min(40, width // 4)))
        self.bar = Progress(
            *(() if width < NARROW else before),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.room = width if width < NARROW else width - len(verb) - min(40, width // 4) - 3
        self.costs: list[float] = []
        self.done_before, self.began = 0.0, 0.0
        self.figures: dict[str, str] = {}

    def __enter__(self) -> ShowProgress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """Remembers what share of the work each epoch is expected to be."""
        self.costs, self.done_before = costs, sum(costs[:first_epoch])
        self.began = time.monotonic()
        self.row = self.bar.add_task("", total=sum(costs))
        self.bar.update(self.row, completed=self.done_before)

    def _left(self, done: float) -> str:
        spent, worked = time.monotonic() - self.began, done - self.done_before
        return clock(spent / worked * (sum(self.costs) - done)) if worked > 0 else "?"

    def _place(self, epoch: int) -> str:
        return f"{self.epoch} {shown_epoch(epoch)}/{len(self.costs)}"

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        """Moves the bar."""
        done = sum(self.costs[:epoch]) + self.costs[epoch] * step / num_batches
        fields = {"place": self._place(epoch), **self.figures, "left": f"left {self._left(done)}"}
        self.bar.update(self.row, completed=done, description=fitted(fields, self.room))

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Prints decisions; without a terminal also the epoch's figures."""
        self.figures = {
            name: f"{label} {metrics[key]:.3f}"
            for key, name, label in (
                ("train_loss", "loss", "loss"),
                (f"train_{self.metric}", "train", "train"),
                (f"alphas_{self.metric}", "held out", "held out"),
                (f"validation_{self.metric}", "val", self.val),
                (f"test_{self.metric}", "test", "test"),
            )
            if key in metrics
        }
        decided = metrics.get("decided")
        if decided is not None and self.total_decisions:
            self.figures["decided"] = f"{decided}/{self.total_decisions} decided"
        if not self.console.is_terminal:
            left = f"left {self._left(sum(self.costs[: epoch + 1]))}"
            line = " · ".join([self._place(epoch), *self.figures.values(), left])
            self.console.print(shown(line), soft_wrap=True)
        for line in news:
            told = f"  decision after {self.epoch} {shown_epoch(epoch)}: {line}"
            self.console.print(shown(told), soft_wrap=True)
