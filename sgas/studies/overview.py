"""Shows how far a study is: bars on a terminal, a line for each event of a part elsewhere.

Everything is read from the study folder, so that jobs on other machines are seen too. The time left
follows from the seconds a unit of work took so far, where a unit is one epoch of a training, or of
a search with all edges open.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sgas.config import SearchConfig, make
from sgas.deciding.schedule import Schedule, shown_epoch
from sgas.errors import RunError
from sgas.family import Family
from sgas.running.progress import clock
from sgas.running.runs import read_metrics
from sgas.studies.study import PHASES, Part, State, StudyInfo
from sgas.terminal import console, shown


@dataclass
class Watched:
    """One part: its epochs' costs in units, how many are over, and since when we watch it run."""

    folder: Path
    costs: list[float]
    state: State | None = None
    epochs: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    epochs_then: int = 0
    changed: int = -1  # time of the last change of its metrics, in nanoseconds

    @property
    def units(self) -> float:
        """All its work."""
        return sum(self.costs)

    @property
    def place(self) -> list[str]:
        """Which of its epochs it is in; nothing where it has none, as an evaluation."""
        count = len(self.costs)
        return [f"epoch {shown_epoch(min(self.epochs, count - 1))}/{count}"] if count else []

    @property
    def left(self) -> float:
        """The work that is not done yet."""
        return 0.0 if self.state is State.DONE else sum(self.costs[self.epochs :])

    def pace(self) -> tuple[float, float]:
        """(seconds, units) of the work that tells how fast it goes; (0, 0) where none does yet."""
        if self.state is State.DONE:
            return float(self.metrics.get("seconds", 0.0)), self.units if self.metrics else 0.0
        if self.state is State.RUNNING and self.epochs > self.epochs_then:
            return time.monotonic() - self.began, sum(self.costs[self.epochs_then : self.epochs])
        return 0.0, 0.0

    def look(self) -> None:
        """Reads how many epochs its run has, where its file changed."""
        path = self.folder / "metrics.jsonl"
        try:
            changed = path.stat().st_mtime_ns
            if changed != self.changed:
                lines = read_metrics(self.folder)
                self.epochs, self.changed = min(len(lines), len(self.costs)), changed
                self.metrics = lines[-1] if lines else {}
        except (OSError, RunError):  # not there yet, or damaged: the job itself tells
            return


class Overview:
    """Prints to standard error. A context manager."""

    def __init__(self, family: Family, folder: Path, info: StudyInfo, names: Sequence[str]) -> None:
        self.watched = {
            f"{name}/{phase}": Watched(*_work(family, info, folder, name, phase))
            for name in names
            for phase in PHASES
        }
        self.console = console(file=sys.stderr)
        self.bar = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.rows: dict[str, TaskID] = {}

    def __enter__(self) -> Overview:
        self.bar.start()
        self.all = self.bar.add_task("", name="study", total=len(self.watched))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def show(self, parts: Mapping[str, Part], num_running: int, capacity: int | None) -> None:
        """Shows what changed since the last call. `num_running` entries have a job now."""
        news = [self._take(name, parts[name]) for name in self.watched]
        left = f"left {self._left(num_running, capacity)}"
        done = sum(watched.state is State.DONE for watched in self.watched.values())
        count = f"{done}/{len(self.watched)}"
        for line in filter(None, news):
            self.console.print(shown(f"{count:>7}  {line} · {left}"), soft_wrap=True)
        self.bar.update(self.all, completed=done, description=f"{count} parts · {left}")
        self._show_rows()

    def _take(self, name: str, part: Part) -> str | None:
        """Takes over the state of a part; a line where it changed."""
        watched = self.watched[name]
        before, watched.state = watched.state, part.state
        epochs = watched.epochs  # what it had when it began
        if before is None or part.state in (State.RUNNING, State.DONE):
            watched.look()
        if before is part.state or (before is None and part.state is not State.RUNNING):
            return None
        if part.state is State.RUNNING:
            watched.began, watched.epochs_then = time.monotonic(), epochs
            again = f", from epoch {shown_epoch(epochs)}" if epochs else ""
            return f"{name} runs{again}"
        if part.state is State.WAITING:
            return f"{name} was interrupted"
        if part.state is State.FAILED:
            return f"{name} failed: {part.error}"
        return " · ".join([f"{name} done", *_figures(watched)])

    def _left(self, num_running: int, capacity: int | None) -> str:
        """The time until all is done; where a phase has not been timed yet, that without it."""
        rates, seconds = {}, 0.0
        for phase in PHASES:
            mine = [w for name, w in self.watched.items() if name.endswith(f"/{phase}")]
            spent, units = (sum(column) for column in zip(*(w.pace() for w in mine), strict=True))
            rates[phase] = spent / units if units else None
        longest, untimed = 0.0, False
        for name in dict.fromkeys(name.partition("/")[0] for name in self.watched):
            own = 0.0
            for phase in PHASES:
                work, rate = self.watched[f"{name}/{phase}"].left, rates[phase]
                untimed |= bool(work) and rate is None
                own += work * (rate or 0.0)
            longest, seconds = max(longest, own), seconds + own
        at_once = max(1, num_running if capacity is None else min(capacity, num_running or 1))
        known = max(longest, seconds / at_once)
        if untimed:
            return f"at least {clock(known)}" if known else "?"
        return clock(known)

    def _show_rows(self) -> None:
        """A bar for each part that runs."""
        for name, watched in self.watched.items():
            runs = watched.state is State.RUNNING
            if name in self.rows and not runs:
                self.bar.remove_task(self.rows.pop(name))
            elif runs and name not in self.rows:
                self.rows[name] = self.bar.add_task("", name=name, total=watched.units or 1)
            if runs:
                text = " · ".join([*watched.place, *_figures(watched)])
                completed = watched.units - watched.left
                self.bar.update(self.rows[name], completed=completed, description=text)


def _work(
    family: Family, info: StudyInfo, folder: Path, name: str, phase: str
) -> tuple[Path, list[float]]:
    """The run folder of a part, and what each of its epochs is expected to cost."""
    strategy = name.rpartition("-")[0]
    if phase == "search":
        from sgas.deciding.strategies import strategy_named

        loop = make(SearchConfig, {**info.search["loop"], "strategy": strategy})
        topology = family.search_space(info.space).topology(info.search["model"]["num_steps"])
        frees_edges = strategy_named(strategy).frees_edges
        costs = Schedule.of(loop, topology).expected_costs(frees_edges)
        return folder / name / "search", costs
    epochs = info.train["loop"]["epochs"] if phase == "train" else 0
    return folder / name / phase, [1.0] * epochs


def _figures(watched: Watched) -> list[str]:
    """The last epoch's figures of a run, without losses."""
    return [
        f"{key.removeprefix('validation_')} {value:.3f}"
        for key, value in watched.metrics.items()
        if key.startswith(("validation_", "test_")) and not key.endswith("loss")
    ]
