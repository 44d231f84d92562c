"""What the search loop and the training loop share: steps, sums, seeds, evaluation.

Dimensions: B samples a batch. Nothing inside a step waits for the device.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sgas.capture import Step
from sgas.data import Source, batches, in_order, stream_seed
from sgas.errors import SgasError
from sgas.labels import Labels
from sgas.precision import widened

OWN = ("lr", "capturable", "foreach", "fused")  # settings of an optimiser that no checkpoint has


class Listener(Protocol):
    """Hears how far a search or a training is, to show it."""

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """The loop begins at `first_epoch`, above 0 after a resume.

        `costs` are the epochs' expected shares of the work, in any unit.
        """
        ...

    def stepped(self, epoch: int, step: int, num_steps: int) -> None:
        """Step `step` (from 1) of `num_steps` of an epoch is done."""
        ...

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """An epoch is over; `news` are its decisions in words."""
        ...


class Silent:
    """A listener that shows nothing."""

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """Shows nothing."""

    def stepped(self, epoch: int, step: int, num_steps: int) -> None:
        """Shows nothing."""

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Shows nothing."""


@dataclass
class Tally:
    """Loss and predictions of the steps of an epoch so far; stays on the device until asked."""

    loss: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    def add(self, loss: Tensor, predictions: Tensor, targets: Tensor) -> None:
        """Adds one batch."""
        self.loss.append(loss.detach() * len(targets))
        self.predictions.append(predictions)
        self.targets.append(targets)

    def figures(self, labels: Labels) -> dict[str, float]:
        """Mean loss and the metrics of `labels` over all batches added."""
        targets = torch.cat(self.targets)
        loss = float(torch.stack(self.loss).double().sum()) / len(targets)
        return {"loss": loss, **labels.metrics(torch.cat(self.predictions), targets)}

    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint in the middle of an epoch keeps."""
        return {"loss": self.loss, "predictions": self.predictions, "targets": self.targets}

    @classmethod
    def restored(cls, state: Mapping[str, list[Tensor]], device: torch.device) -> Tally:
        """The tally that `state` was made of."""
        return cls(**{name: [part.to(device) for part in parts] for name, parts in state.items()})


def run_network(model: Any, inputs: Any, precision: str, device: torch.device) -> Any:
    """What a network returns, its 16-bit tensors as float32, so that losses are computed in that.

    `precision` bf16: autocast inside, which leaves parameters and gradients of parameters float32.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(inputs)
    return tuple(map(widened, output)) if isinstance(output, tuple) else widened(output)


def evaluation_step(model: Any, labels: Labels, device: torch.device, precision: str) -> Step:
    """What computes the loss of a batch, a mean, and the predictions of a model."""

    def step(inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = run_network(model, inputs, precision, device)
        return labels.loss(logits, targets), labels.predictions(logits)

    return step


@torch.no_grad()
def evaluate(
    model: Any,
    labels: Labels,
    source: Source,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    step: Step | None = None,
) -> dict[str, float]:
    """Mean loss and metrics of a model in evaluation mode, over all samples of a source.

    `step` is its `evaluation_step`, captured, where there is one.
    """
    tally = Tally()
    step = step or evaluation_step(model, labels, device, precision)
    model.eval()
    order = in_order(len(source), batch_size, source.index_device)
    for inputs, targets in batches(source, order, 0, None):
        loss, predictions = step(inputs, targets)
        tally.add(loss, predictions, targets)
    model.train()
    return tally.figures(labels)


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


def whole_steps(device: torch.device) -> dict[str, Any]:
    """The option by which torch's SGD and Adam update all parameters in one pass over them.

    A fused step on the CPU goes through memory in order, whatever the strides say (torch 2.13):
    a gradient has to lie as its parameter does. Those of `backward()` do; others, such as those of
    `torch.autograd.grad`, have to be laid so.
    """
    return {"fused": True} if device.type in ("cpu", "cuda") else {"foreach": True}


def rate_on(device: torch.device, learning_rate: float, recorded: bool) -> float | Tensor:
    """A learning rate as optimisers take it: on a GPU, and where steps are recorded, a tensor.

    A recorded step reads it anew each time. On a GPU fused optimisers read float32; so that a step
    that is not recorded has the same rate to the last bit, it is a tensor for both.
    """
    if device.type == "cuda":
        return torch.tensor(learning_rate, dtype=torch.float32, device=device)
    return torch.tensor(learning_rate, dtype=torch.float64) if recorded else learning_rate


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of all parameter groups; in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Gives an optimiser back its state, but for how it runs here and the learning rate.

    The run may have begun on another device, or before steps were recorded; an epoch sets its rate.
    """
    own = [{name: g[name] for name in OWN if name in g} for g in optimizer.param_groups]
    groups = [{**saved, **kept} for saved, kept in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group["lr"] = kept["lr"]  # the very tensor, of which loading makes a copy


def require_finite(epoch: int, figures: Mapping[str, float]) -> None:
    """SgasError where the loss of an epoch is no number any more."""
    if not math.isfinite(figures["loss"]):
        raise SgasError(
            f"the loss is {figures['loss']} in epoch {epoch}: training diverged; lower "
            "learning_rate or grad_clip and start again (the last good checkpoint is kept)"
        )
