"""TensorBoard events of a run, where TensorBoard is installed: `tensorboard --logdir runs`.

A search tells its losses and metrics, each open edge's probabilities, importance, certainty and
stability, its decisions in words, and the cell's picture at each of them; a training its losses and
metrics. Events are a view of what the run folder holds: where they fail, the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sgas.decisions import Status
from sgas.loop import Listener
from sgas.records import EpochRecord
from sgas.reports import draw_cell
from sgas.reports.raster import rasterise
from sgas.reports.story import softmax, topology_of
from sgas.runs import Run
from sgas.schedule import Schedule
from sgas.space import SearchSpace

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
PARTS = ("train", "validation", "test")
SCORES = ("importance", "certainty", "stability", "score")


class Events:
    """A `Listener` that writes events into a run's folder `tensorboard`. A context manager.

    `space` and `schedule` are those of a search; without them it is a training. Silent where
    TensorBoard is not installed.
    """

    def __init__(
        self,
        run: Run,
        space: SearchSpace | None = None,
        schedule: Schedule | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        self.run, self.space, self.schedule, self.groups = run, space, schedule, groups
        self.enabled = find_spec("tensorboard") is not None
        self.writer: SummaryWriter | None = None

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """Opens the events; those of epochs that will be made again are dropped from view."""
        if not self.enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter

            folder = str(self.run.folder / FOLDER)
            self.writer = SummaryWriter(folder, purge_step=first_epoch or None)
        except Exception as error:  # a broken installation, a full disk: the run matters more
            self._give_up(error)

    def stepped(self, epoch: int, step: int, num_steps: int) -> None:
        """Steps are too many to tell."""

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Writes what the epoch gave."""
        if self.writer is None:
            return
        try:
            self._tell(self.writer, epoch, metrics, news)
        except Exception as error:  # as above
            self._give_up(error)

    def _tell(
        self,
        writer: SummaryWriter,
        epoch: int,
        metrics: Mapping[str, Any],
        news: tuple[str, ...],
    ) -> None:
        for name, value in metrics.items():
            if name != "epoch":
                writer.add_scalar(_metric_tag(name), value, epoch)
        for record in self.run.records:
            if record.epoch == epoch:
                self._tell_record(writer, record)
        for line in news:
            writer.add_text("decisions", line, epoch)
        writer.flush()

    def _tell_record(self, writer: SummaryWriter, record: EpochRecord) -> None:
        """One cell's open edges, and the cell's picture where one of them was decided."""
        assert self.space is not None and self.schedule is not None
        topology = topology_of([record], self.space)
        for index, edge in enumerate(topology.edges):
            if record.states[index] != Status.UNDECIDED.value and record.edge != index:
                continue
            name = topology.edge_name(edge).replace("→", "-to-").replace("(", "").replace(")", "")
            for score in SCORES:
                value = getattr(record, score)[index]
                writer.add_scalar(f"{record.cell}-{score}/{name}", value, record.epoch)
            probs = softmax(record.alphas[index])
            for operation, probability in zip(self.space.operations, probs, strict=True):
                tag = f"{record.cell}-{name}/{operation}"
                writer.add_scalar(tag, probability, record.epoch)
        so_far = [r for r in self.run.records if r.cell == record.cell and r.epoch <= record.epoch]
        if record.edge is not None or record.states != so_far[max(0, len(so_far) - 2)].states:
            picture = rasterise(self._cell(record.cell, so_far))
            writer.add_image(f"cell/{record.cell}", picture, record.epoch, dataformats="HWC")

    def _cell(self, kind: str, so_far: Sequence[EpochRecord]) -> str:
        """The SVG of a cell as it was after the last of its records so far."""
        assert self.space is not None and self.schedule is not None
        ahead = [epoch for epoch in self.schedule.decision_epochs if epoch > so_far[-1].epoch]
        upcoming = ahead[0] if ahead else None
        num_epochs = self.schedule.num_epochs
        return draw_cell(so_far, self.space, num_epochs, kind, upcoming, self.groups)

    def _give_up(self, error: Exception) -> None:
        self.run.log(f"no more TensorBoard events: {type(error).__name__}: {error}")
        self.writer = None


class Both:
    """Two listeners that hear the same."""

    def __init__(self, first: Listener, second: Listener) -> None:
        self.both = (first, second)

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """Tells both."""
        for listener in self.both:
            listener.started(first_epoch, costs)

    def stepped(self, epoch: int, step: int, num_steps: int) -> None:
        """Tells both."""
        for listener in self.both:
            listener.stepped(epoch, step, num_steps)

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Tells both."""
        for listener in self.both:
            listener.epoch_ended(epoch, metrics, news)


def _metric_tag(name: str) -> str:
    """`validation_loss` as `loss/validation`, so that the parts of one figure stand together."""
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in PARTS and figure else f"loop/{name}"
