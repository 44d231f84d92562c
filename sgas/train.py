"""Trains a derived network from scratch, and evaluates it. The reported epoch is the last.

SGD with a cosine learning rate, drop path on a linear ramp, an optional auxiliary head; settings of
Li et al., CVPR 2020. In protocol `paper` the test split is measured at every epoch and the best one
is reported beside the last, as the authors did.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgas.capture import Recorder, Step, captured
from sgas.config import TrainConfig
from sgas.data import BatchOrder, batches
from sgas.errors import Interrupted
from sgas.family import Network, Task, TrainParts
from sgas.genotype import Genotype
from sgas.loop import (
    Listener,
    RandomState,
    Silent,
    Tally,
    evaluate,
    evaluation_step,
    rate_on,
    require_finite,
    restore_optimizer,
    run_network,
    set_learning_rate,
    whole_steps,
)
from sgas.runs import Run
from sgas.schedule import learning_rate
from sgas.signals import StopSignal


def make_optimizer(
    config: TrainConfig, weights: list[nn.Parameter], recorded: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a training; weight decay is added to the gradient, as published."""
    device, decay = weights[0].device, config.weight_decay
    rate, how = rate_on(device, config.learning_rate, recorded), whole_steps(device)
    if config.optimizer == "adam":
        return torch.optim.Adam(weights, lr=rate, weight_decay=decay, capturable=recorded, **how)
    return torch.optim.SGD(weights, lr=rate, momentum=config.momentum, weight_decay=decay, **how)


class Training:
    """One training, from its first epoch or from a checkpoint to the last."""

    def __init__(
        self,
        task: Task,
        genotype: Genotype,
        config: TrainConfig,
        run: Run,
        *,
        parts: TrainParts,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        recorder: Recorder | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.task, self.config, self.run, self.parts = task, config, run, parts
        self.device, self.precision, self.recorder = device, precision, recorder
        self.listener = listener or Silent()
        self.random = RandomState(seed, device)
        self.network: Network = task.build_network(genotype, config.auxiliary).to(device)
        where = parts.training.index_device
        self.order = BatchOrder(len(parts.training), seed, "training", where)
        self.optimizer = make_optimizer(
            config, list(self.network.parameters()), recorded=recorder is not None
        )
        self._forget_steps()
        self.epoch, self.step, self.tally, self.seconds = 0, 0, Tally(), 0.0

    def execute(self) -> Network:
        """Trains to the last epoch and returns the network; Interrupted after a stop signal."""
        with StopSignal() as stop:
            if self.epoch == 0 and self.step == 0:
                self._save()
            self.listener.started(self.epoch, [1.0] * self.config.epochs)
            try:
                while self.epoch < self.config.epochs:
                    self._train_epoch(stop)
                    self._end_epoch()
            finally:
                self._forget_steps()  # and the memory that is captured with them
        return self.network

    def _forget_steps(self) -> None:
        """The next steps are not those that were captured."""
        self.steps: tuple[Step, ...] | None = None
        self.evaluation: Step | None = None

    def _evaluation_step(self) -> Step:
        if self.evaluation is None:
            labels = self.task.labels
            step = evaluation_step(self.network, labels, self.device, self.precision)
            (self.evaluation,) = captured(self.recorder, step)
        return self.evaluation

    def _train_epoch(self, stop: StopSignal) -> None:
        began, config = time.perf_counter(), self.config
        num_steps = self.order.num_batches(config.batch_size)
        index = self.order.epoch(self.epoch, config.batch_size, num_steps)
        set_learning_rate(self.optimizer, learning_rate(config, self.epoch))
        drop_path = config.drop_path * self.epoch / config.epochs
        if self.steps is None or drop_path != self.network.drop_path:
            self.steps = captured(self.recorder, self._train_step)
        self.network.drop_path = drop_path
        self.network.train()
        ready = batches(self.parts.training, index[self.step :], self.epoch, self.random.augment)
        (train_step,) = self.steps
        for step in range(self.step, num_steps):
            if stop.requested:
                self.seconds += time.perf_counter() - began
                self._save()
                raise Interrupted(f"stopped in epoch {self.epoch}, step {step} of {num_steps}")
            inputs, targets = next(ready)
            loss, predictions = train_step(inputs, targets)
            self.tally.add(loss, predictions, targets)
            self.step = step + 1
            self.listener.stepped(self.epoch, self.step, num_steps)
        self.seconds += time.perf_counter() - began

    def _train_step(self, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One update; returns the loss without the auxiliary one, a mean, and the predictions."""
        output = run_network(self.network, inputs, self.precision, self.device)
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        loss = self.task.labels.loss(logits, targets, self.config.label_smoothing)
        total = loss
        if auxiliary is not None:
            total = loss + self.config.auxiliary_weight * self.task.labels.loss(
                auxiliary, targets, self.config.label_smoothing
            )
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), self.task.labels.predictions(logits.detach())

    def _end_epoch(self) -> None:
        began = time.perf_counter()
        training = self.tally.figures(self.task.labels)
        require_finite(self.epoch, training)
        metrics: dict[str, Any] = {
            "epoch": self.epoch,
            **{f"train_{name}": value for name, value in training.items()},
        }
        if self.parts.validation is not None:
            figures = evaluate(
                self.network,
                self.task.labels,
                self.parts.validation,
                self.config.batch_size,
                self.device,
                self.precision,
                self._evaluation_step(),
            )
            require_finite(self.epoch, figures)
            prefix = self.parts.validation_name
            metrics.update({f"{prefix}_{name}": value for name, value in figures.items()})
        self.seconds += time.perf_counter() - began
        metrics["learning_rate"] = learning_rate(self.config, self.epoch)
        metrics["seconds"] = round(self.seconds, 3)
        self.run.add_epoch(metrics)
        epoch, self.epoch, self.step, self.tally = self.epoch, self.epoch + 1, 0, Tally()
        self._save()
        self.listener.epoch_ended(epoch, metrics, ())

    def _save(self) -> None:
        self.run.save_checkpoint(
            {
                "kind": "train",
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": self.random.state(),
                "tally": self.tally.state(),
            }
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where a checkpoint was written; records made later are dropped."""
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.seconds = state["seconds"]
        self.tally = Tally.restored(state["tally"], self.device)
        self.random.restore(state["random"])
        self.run.forget_from(self.epoch)
