"""What a training of a derived network does in the loop. The last epoch is kept, or the best.

SGD with a cosine learning rate, drop path on a linear ramp, an optional auxiliary head; settings of
Li et al., CVPR 2020. In protocol `paper` the test split is measured at every epoch and the best one
is reported beside the last, as the authors did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgas.cells.genotype import Genotype
from sgas.config import BEST, TrainConfig
from sgas.data import BatchOrder, Source, batches
from sgas.deciding.schedule import learning_rate
from sgas.family import Network, Trainable
from sgas.protocols import VALIDATION, TrainParts
from sgas.running.capture import Recorder, Step, captured
from sgas.running.loop import (
    EpochEnd,
    Figures,
    RandomState,
    StepOutput,
    evaluation_step,
    run_network,
)
from sgas.running.norms import NormStatistics
from sgas.running.optimizers import make_optimizer, restore_optimizer, set_learning_rate


class Training:
    """One training: the derived network and its optimiser. A `Body` of the loop."""

    verb = "train"
    measured: Mapping[str, Source]
    _captured: tuple[Step, ...] | None
    _evaluation: Step | None

    def __init__(
        self,
        task: Trainable,
        genotype: Genotype,
        config: TrainConfig,
        *,
        parts: TrainParts,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        recorder: Recorder | None = None,
    ) -> None:
        self.config, self.parts, self.labels = config, parts, task.labels
        self.measured = parts.measured
        self.best: dict[str, Any] | None = None  # epoch, figure and weights that kept_epoch keeps
        self.device, self.precision, self.recorder = device, precision, recorder
        self.num_epochs, self.batch_size = config.epochs, config.batch_size
        self.random = RandomState(seed, device)
        self.network: Network = task.build_network(genotype, config.auxiliary).to(device)
        self.statistics = NormStatistics(
            self.network, self._outputs, parts.training, config.norm_batches, seed, recorder
        )
        where = parts.training.index_device
        self.order = BatchOrder(len(parts.training), seed, "training", where)
        self.optimizer = make_optimizer(config, self.network, recorder is not None)
        self.release()

    def costs(self) -> list[float]:
        """Shares of the work: all epochs cost the same."""
        return [1.0] * self.num_epochs

    def num_batches(self) -> int:
        """Batches of the training part in an epoch."""
        return self.order.num_batches(self.batch_size)

    def steps(self, epoch: int, first: int) -> Iterator[StepOutput]:
        """One update a batch; drop path rises epoch by epoch."""
        config = self.config
        index = self.order.epoch(epoch, self.batch_size, self.num_batches())
        set_learning_rate(self.optimizer, learning_rate(config, epoch))
        drop_path = config.drop_path * epoch / config.epochs
        if self._captured is None or drop_path != self.network.drop_path:
            self._captured = captured(self.recorder, self.train_step)
        self.network.drop_path = drop_path
        self.network.train()
        (train_step,) = self._captured
        for inputs, targets in batches(
            self.parts.training, index[first:], epoch, self.random.augment
        ):
            loss, predictions = train_step(inputs, targets)
            yield loss, predictions, targets

    def _outputs(self, inputs: Any) -> Any:
        return run_network(self.network, inputs, self.precision, self.device)

    def train_step(self, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One update; returns the loss without the auxiliary one, a mean, and the predictions."""
        output = self._outputs(inputs)
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        loss = self.labels.loss(logits, targets, self.config.label_smoothing)
        total = loss
        if auxiliary is not None:
            total = loss + self.config.auxiliary_weight * self.labels.loss(
                auxiliary, targets, self.config.label_smoothing
            )
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), self.labels.predictions(logits.detach())

    def evaluation(self) -> Step:
        """The evaluation step of the network, captured once."""
        if self._evaluation is None:
            step = evaluation_step(self.network, self.labels, self.device, self.precision)
            (self._evaluation,) = captured(self.recorder, step)
        return self._evaluation

    def release(self) -> None:
        """Lets go of captured steps: the next are others."""
        self._captured, self._evaluation = None, None
        self.statistics.release()

    def end_epoch(self, epoch: int, figures: Figures) -> EpochEnd:
        """Nothing is decided but whether the epoch is the best; its learning rate is told."""
        if self.config.kept_epoch == BEST:
            figure = figures[VALIDATION][self.labels.primary_metric]
            if self.best is None or figure > self.best["figure"]:
                weights = {n: w.detach().clone() for n, w in self.network.state_dict().items()}
                self.best = {"epoch": epoch, "figure": figure, "network": weights}
        return EpochEnd({"learning_rate": learning_rate(self.config, epoch)})

    def keep(self) -> int:
        """Gives the network the weights that the training ends with, and tells their epoch."""
        if self.best is None:
            return self.num_epochs - 1
        self.network.load_state_dict(self.best["network"])
        return int(self.best["epoch"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the training."""
        return {
            "best": self.best,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.best = state.get("best")  # which checkpoints of before do not have
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.random.restore(state["random"])
