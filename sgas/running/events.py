"""TensorBoard events of a run, where TensorBoard is installed: `tensorboard --logdir runs`.

A search tells its losses and metrics, each open edge's probabilities, importance, certainty and
stability, and its decisions in words; a training its losses and metrics; steps are epochs from 1.
Events are a view of what the run folder holds: where they fail, the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sgas.cells.decisions import Status
from sgas.cells.space import SearchSpace
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.reports.story import softmax, topology_of
from sgas.running.runs import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
PARTS = ("train", "validation", "test")
SCORES = ("importance", "certainty", "stability", "score")


class Events:
    """A `Listener` that writes events into a run's folder `tensorboard`. A context manager.

    `space` is that of a search; without one it is a training. Silent where TensorBoard is not
    installed.
    """

    def __init__(self, run: Run, space: SearchSpace | None = None) -> None:
        self.run, self.space = run, space
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
            again = shown_epoch(first_epoch) if first_epoch else None
            self.writer = SummaryWriter(folder, purge_step=again)
        except Exception as error:  # a broken installation, a full disk: the run matters more
            self._give_up(error)

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
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
        step = shown_epoch(epoch)
        for name, value in metrics.items():
            if name != "epoch":
                writer.add_scalar(_metric_tag(name), value, step)
        for record in self.run.records:
            if record.epoch == epoch:
                self._tell_record(writer, record)
        for line in news:
            writer.add_text("decisions", line, step)
        writer.flush()

    def _tell_record(self, writer: SummaryWriter, record: EpochRecord) -> None:
        """One cell's open edges."""
        assert self.space is not None
        topology, step = topology_of([record], self.space), shown_epoch(record.epoch)
        for index, edge in enumerate(topology.edges):
            if record.states[index] != Status.UNDECIDED.value and record.edge != index:
                continue
            name = topology.edge_name(edge).replace("→", "-to-").replace("(", "").replace(")", "")
            for score in SCORES:
                value = getattr(record, score)[index]
                writer.add_scalar(f"{record.cell}-{score}/{name}", value, step)
            probs = softmax(record.alphas[index])
            for operation, probability in zip(self.space.operations, probs, strict=True):
                tag = f"{record.cell}-{name}/{operation}"
                writer.add_scalar(tag, probability, step)

    def _give_up(self, error: Exception) -> None:
        self.run.log(f"no more TensorBoard events: {type(error).__name__}: {error}")
        self.writer = None


def _metric_tag(name: str) -> str:
    """`validation_loss` as `loss/validation`, so that the parts of one figure stand together."""
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in PARTS and figure else f"loop/{name}"
