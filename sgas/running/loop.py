"""The loop of searches and trainings: epoch, step, stop, save, restore, report.

A `Body` says what a step is and what an epoch ends with; `sgas.running.search` and
`sgas.running.train` hold the two that there are. The loop takes the steps, keeps losses and time,
stops at a signal, and writes the run. Above stands what both bodies need: sums, seeds, measuring.

Dimensions: B samples a batch. Nothing inside a step waits for the device.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, nn

from sgas.cells.genotype import Genotype
from sgas.data import Source, batches, in_order, stream_seed
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.errors import Interrupted, SgasError
from sgas.labels import Labels
from sgas.native.precision import widened
from sgas.running.capture import Step
from sgas.running.listeners import Listener, Silent
from sgas.running.norms import NormStatistics
from sgas.running.predictions import Said
from sgas.running.runs import Run
from sgas.running.signals import StopSignal


@dataclass
class Tally:
    """Loss and predictions of the steps of an epoch so far; stays on the device until asked."""

    loss: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add(
        self, loss: Tensor, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> None:
        """Adds one batch; `rows` are the targets of each of its graphs, or nothing."""
        self.rows.extend(rows)
        self.loss.append(loss.detach() * len(targets))
        self.predictions.append(predictions)
        self.targets.append(targets)

    def figures(self, labels: Labels) -> dict[str, float]:
        """Mean loss and the metrics of `labels` over all batches added."""
        targets = torch.cat(self.targets)
        loss = float(torch.stack(self.loss).double().sum()) / len(targets)
        return {"loss": loss, **labels.metrics(torch.cat(self.predictions), targets, self.rows)}

    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint in the middle of an epoch keeps."""
        return {"loss": self.loss, "predictions": self.predictions, "targets": self.targets}

    @classmethod
    def restored(cls, state: Mapping[str, list[Tensor]], device: torch.device) -> Tally:
        """The tally that `state` was made of."""
        moved = {name: [part.to(device) for part in parts] for name, parts in state.items()}
        return cls(moved["loss"], moved["predictions"], moved["targets"])


# What a step gives: the loss, a mean, the predictions and the targets.
StepOutput = tuple[Tensor, Tensor, Tensor]
# The figures of an epoch by part (`train` and those that are measured) and name.
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class EpochEnd:
    """What a body adds to the end of an epoch: figures, records, the genotype of now, and news."""

    figures: Mapping[str, Any]
    records: Sequence[EpochRecord] = ()
    genotype: Genotype | None = None
    news: tuple[str, ...] = ()


class Body(Protocol):
    """What the loop runs: a search or a training, on one device.

    `measured` are parts that are measured after each epoch, by name. `batch_size` may change from
    epoch to epoch.
    """

    verb: str
    labels: Labels
    measured: Mapping[str, Source]
    device: torch.device
    precision: str

    @property
    def network(self) -> Any:
        """The network that is trained now."""
        ...

    @property
    def statistics(self) -> NormStatistics:
        """What takes the statistics of its norms."""
        ...

    @property
    def num_epochs(self) -> int:
        """Epochs from the first to the last."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples a batch now."""
        ...

    def costs(self) -> list[float]:
        """The epochs' expected shares of the work, in any unit."""
        ...

    def num_batches(self) -> int:
        """Steps of an epoch that begins now."""
        ...

    def steps(self, epoch: int, first: int) -> Iterator[StepOutput | None]:
        """Takes the steps of an epoch one by one, from number `first`.

        None for a step that does not count in the epoch's figures.
        """
        ...

    def evaluation(self) -> Step:
        """The evaluation step of the network as it is now."""
        ...

    def end_epoch(self, epoch: int, figures: Figures) -> EpochEnd:
        """Decides what is to be decided after an epoch, and says what there is to report."""
        ...

    def release(self) -> None:
        """Lets go of captured steps, and of the memory with them."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        ...


class Loop:
    """One run of a body, from its first epoch or from a checkpoint to the last."""

    def __init__(self, body: Body, run: Run, listener: Listener | None = None) -> None:
        self.body, self.run, self.listener = body, run, listener or Silent()
        self.epoch, self.step, self.tally, self.seconds = 0, 0, Tally(), 0.0

    def execute(self) -> None:
        """Runs to the end; Interrupted after a stop signal, with the state in the checkpoint."""
        with StopSignal() as stop:
            if self.epoch == 0 and self.step == 0:
                self._save()
            self.listener.started(self.epoch, self.body.costs())
            try:
                while self.epoch < self.body.num_epochs:
                    self._take_steps(stop)
                    self._end_epoch()
            finally:
                self.body.release()

    def _take_steps(self, stop: StopSignal) -> None:
        """What is left of an epoch."""
        began, num_batches = time.perf_counter(), self.body.num_batches()
        steps = self.body.steps(self.epoch, self.step)
        for step in range(self.step, num_batches):
            if stop.requested:
                self.seconds += time.perf_counter() - began
                self._save()
                raise Interrupted(
                    f"stopped in epoch {shown_epoch(self.epoch)}, step {step} of {num_batches}"
                )
            output = next(steps)
            if output is not None:
                self.tally.add(*output)
            self.step = step + 1
            self.listener.stepped(self.epoch, self.step, num_batches)
        self.seconds += time.perf_counter() - began

    def _end_epoch(self) -> None:
        """Measures, lets the body decide, and puts the epoch on disk."""
        began, body, epoch = time.perf_counter(), self.body, self.epoch
        figures = {"train": self.tally.figures(body.labels)}
        require_finite(epoch, figures["train"])
        last = epoch == body.num_epochs - 1
        if body.measured or last:
            body.statistics.estimate(epoch, body.batch_size, last)
        for name, source in body.measured.items():
            figures[name] = measure(
                body.network,
                body.labels,
                source,
                body.batch_size,
                body.device,
                body.precision,
                body.evaluation(),
            )
            require_finite(epoch, figures[name])
        require_finite_state(epoch, body.network)
        end = body.end_epoch(epoch, figures)
        self.seconds += time.perf_counter() - began
        metrics = {
            "epoch": epoch,
            **{f"{part}_{name}": v for part, of in figures.items() for name, v in of.items()},
            **end.figures,
            "seconds": round(self.seconds, 3),
        }
        require_finite_lines(epoch, metrics, end.records)
        self.run.add_epoch(metrics, end.records, end.genotype)
        for line in end.news:
            self.run.log(f"epoch {shown_epoch(epoch)}: {line}")
        self.epoch, self.step, self.tally = epoch + 1, 0, Tally()
        self._save()
        self.listener.epoch_ended(epoch, metrics, end.news)

    def _save(self) -> None:
        self.run.save_checkpoint(
            {
                "kind": self.body.verb,
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "tally": self.tally.state(),
                **self.body.state(),
            }
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where a checkpoint was written; records made later are dropped.

        ValueError, KeyError or RuntimeError where it is the checkpoint of something else.
        """
        if state["kind"] != self.body.verb:
            raise ValueError(f"it is of a {state['kind']}")
        self.body.restore(state)
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.tally = Tally.restored(state["tally"], self.body.device)
        self.run.forget_from(self.epoch)


def run_network(model: Any, inputs: Any, precision: str, device: torch.device) -> Any:
    """What a network returns, its 16-bit tensors as float32, so that losses are computed in that.

    `precision` bf16: autocast inside, which leaves parameters and gradients of parameters float32.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(inputs)
    return tuple(map(widened, output)) if isinstance(output, tuple) else widened(output)


def evaluation_step(
    model: Any, labels: Labels, device: torch.device, precision: str, said: Said | None = None
) -> Step:
    """What computes the loss of a batch, a mean, and the predictions of a model.

    `said` keeps what it says of each row.
    """

    def step(inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = run_network(model, inputs, precision, device)
        if said is not None:
            said.add(logits, targets)
        return labels.loss(logits, targets), labels.predictions(logits)

    return step


@torch.no_grad()
def tallied(
    model: Any,
    labels: Labels,
    source: Source,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    step: Step | None = None,
) -> Tally:
    """Losses and predictions of a model in evaluation mode, over all samples of a source in order.

    `step` is its `evaluation_step`, captured, where there is one.
    """
    tally = Tally()
    step = step or evaluation_step(model, labels, device, precision)
    model.eval()
    order = in_order(len(source), batch_size, source.index_device)
    for inputs, targets in batches(source, order, 0, None):
        loss, predictions = step(inputs, targets)
        tally.add(loss, predictions, targets, getattr(inputs, "rows", ()))
    model.train()
    return tally


def measure(
    model: Any,
    labels: Labels,
    source: Source,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    step: Step | None = None,
) -> dict[str, float]:
    """Mean loss and metrics of a model over all samples of a source: the figures of `tallied`."""
    return tallied(model, labels, source, batch_size, device, precision, step).figures(labels)


@contextlib.contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """No gradient for `parameters` inside: autograd then keeps nothing for them either."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class RandomState:
    """The generators of a run: one on the device for augmentation, and torch's own (dropout)."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.augment = torch.Generator(device).manual_seed(stream_seed(seed, "augment"))
        torch.manual_seed(stream_seed(seed, "torch"))

    def state(self) -> dict[str, Tensor]:
        """The states of all generators."""
        state = {"augment": self.augment.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts all generators back to where `state` was taken."""
        self.augment.set_state(state["augment"])
        torch.set_rng_state(state["torch"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)


def require_finite(epoch: int, figures: Mapping[str, float]) -> None:
    """SgasError where the loss of an epoch is no number any more."""
    if not math.isfinite(figures["loss"]):
        raise _diverged(epoch, f"the loss is {figures['loss']}")


def require_finite_state(epoch: int, network: nn.Module) -> None:
    """SgasError where a weight, an alpha or a statistic is no number or infinite."""
    state = {n: t for n, t in network.state_dict().items() if t.is_floating_point()}
    finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
    wrong = [name for name, is_finite in zip(state, finite, strict=True) if not is_finite]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise _diverged(epoch, f"{wrong[0]}{more} left the range of numbers")


def require_finite_lines(
    epoch: int, metrics: Mapping[str, Any], records: Sequence[EpochRecord]
) -> None:
    """SgasError where a number that is to be written is none: nobody could read the line again."""
    lines = [("", metrics), *((f" of the {r.cell} cell", msgspec.to_builtins(r)) for r in records)]
    for of, line in lines:
        wrong = [name for name, value in line.items() if not _is_finite(value)]
        if wrong:
            raise _diverged(epoch, f"{wrong[0]}{of} left the range of numbers")


def _is_finite(value: Any) -> bool:
    """Whether all numbers in lists and mappings are finite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _diverged(epoch: int, what: str) -> SgasError:
    return SgasError(
        f"{what} in epoch {shown_epoch(epoch)}: training diverged; lower learning_rate or "
        "grad_clip and start again (the last good checkpoint is kept)"
    )
