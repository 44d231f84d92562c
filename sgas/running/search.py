"""What a search does in the loop: alpha step, weight step, decision.

One step trains the alphas on a batch of their half of the data (Adam, first order), then the
weights on a batch of theirs. At the end of each epoch the strategy may decide an edge; its
other operations are then gone from the supernet. Source: Li et al., CVPR 2020, algorithm 1.

A strategy that trains paths has no alpha step: from `alpha_start_epoch` on each weight step is that
of one path (before, of the mixture, which readies all operations at the cost of few steps), and
before a decision paths are scored on the alphas' half (`sgas.deciding.strategies.effects`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sgas.cells.decisions import CellDecisions
from sgas.cells.genotype import Genotype
from sgas.config import SearchConfig
from sgas.data import BatchOrder, Source, batches
from sgas.deciding.schedule import cosine
from sgas.family import Supernet, Trainable
from sgas.protocols import VALIDATION, SearchParts
from sgas.running.capture import Recorder, Step, captured
from sgas.running.complexity import cost_ranks
from sgas.running.loop import (
    EpochEnd,
    Figures,
    RandomState,
    StepOutput,
    evaluation_step,
    frozen,
    run_network,
)
from sgas.running.norms import NormStatistics
from sgas.running.optimizers import (
    AlphaOptimizer,
    add_zero_momentum,
    keep_only,
    make_optimizer,
    restore_optimizer,
    set_learning_rate,
    weights_in,
)
from sgas.running.paths import measure_effects, paths
from sgas.running.searched import SearchedCells


class Search:
    """One search: the supernet, its optimisers, what is decided so far. A `Body` of the loop."""

    verb = "search"
    measured: Mapping[str, Source]
    _captured: tuple[Step, ...] | None

    def __init__(
        self,
        task: Trainable,
        config: SearchConfig,
        *,
        parts: SearchParts,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        recorder: Recorder | None = None,
        notes: Mapping[str, Any],
    ) -> None:
        self.task, self.config, self.parts = task, config, parts
        self.labels, self.measured = task.labels, {VALIDATION: parts.validation}
        self.seed, self.device, self.precision = seed, device, precision
        self.cells = SearchedCells(task.space, task.num_steps, config, seed, notes)
        self.space, self.schedule = task.space, self.cells.schedule
        self.strategy = self.cells.strategy
        self.recorder = None if self.strategy.trains_paths else recorder  # each step is another
        if config.patience:
            self.cells.costs = cost_ranks(task)
        self.skips = [c for c, op in enumerate(self.space.operations) if op.startswith("skip")]
        self.ramp = torch.zeros((), device=device)  # share of the search that is over
        self.random = RandomState(seed, device)
        self.network: Supernet = task.build_supernet().to(device)
        self.statistics = NormStatistics(
            self.network, self._logits, parts.weights, config.norm_batches, seed, self.recorder
        )
        self.weight_order, self.alpha_order = (
            BatchOrder(len(part), seed, name, part.index_device)
            for name, part in (("weights", parts.weights), ("alphas", parts.alphas))
        )
        self._make_optimizers()

    def _make_optimizers(self) -> None:
        config, recorded = self.config, self.recorder is not None
        self.weight_optimizer = make_optimizer(config, self.network, recorded)
        if self.strategy.trains_paths and config.optimizer == "sgd":
            add_zero_momentum(self.weight_optimizer)
        self.alpha_optimizer = AlphaOptimizer(self.network.alphas, config, capturable=recorded)
        self.release()

    @property
    def _weights(self) -> list[nn.Parameter]:
        """The supernet's weights, from where no walk over its modules is needed."""
        return weights_in(self.weight_optimizer)

    @property
    def decisions(self) -> dict[str, CellDecisions]:
        """What is decided so far, by kind of cell."""
        return self.cells.decisions

    @property
    def num_epochs(self) -> int:
        """Epochs from the first to the last."""
        return self.schedule.num_epochs

    @property
    def batch_size(self) -> int:
        """Samples a batch: grows with every decision epoch, as memory is freed."""
        made = max(cell.num_decided for cell in self.decisions.values())
        return self.config.batch_size + self.config.batch_increase * made

    def costs(self) -> list[float]:
        """Shares of the work: an epoch costs less after each decision."""
        return self.schedule.expected_costs(self.strategy.frees_edges)

    def num_batches(self) -> int:
        """Batches of the weights' part in an epoch that begins now."""
        return self.weight_order.num_batches(self.batch_size)

    def steps(self, epoch: int, first: int) -> Iterator[StepOutput]:
        """Alpha step and weight step in turn, each on a batch of its own part."""
        if self.strategy.trains_paths and epoch >= self.config.alpha_start_epoch:
            yield from self._path_steps(epoch, first)
            return
        shape = epoch, self.batch_size, self.num_batches()
        weight_index, alpha_index = self.weight_order.epoch(*shape), self.alpha_order.epoch(*shape)
        set_learning_rate(self.weight_optimizer, self._learning_rate(epoch))
        self.ramp.fill_(epoch / self.num_epochs)
        self.network.train()
        parts, augment = self.parts, self.random.augment
        for_weights = batches(parts.weights, weight_index[first:], epoch, augment)
        for_alphas = batches(parts.alphas, alpha_index[first:], epoch, augment)
        alpha_step, weight_step, _ = self.captured_steps()
        for alpha_batch in for_alphas:
            if epoch >= self.config.alpha_start_epoch:
                alpha_step(*alpha_batch)
            inputs, targets = next(for_weights)
            loss, predictions = weight_step(inputs, targets)
            yield loss, predictions, targets

    def _path_steps(self, epoch: int, first: int) -> Iterator[StepOutput]:
        """Weight steps, each of the next path; then the cell that would be cut now is selected."""
        index = self.weight_order.epoch(epoch, self.batch_size, self.num_batches())
        set_learning_rate(self.weight_optimizer, self._learning_rate(epoch))
        self.network.train()
        dealt = paths(self.decisions, self.space.operations, self.seed, "trained", epoch)
        dealt = islice(dealt, first, None)
        for_weights = batches(self.parts.weights, index[first:], epoch, self.random.augment)
        _, weight_step, _ = self.captured_steps()
        for step, (inputs, targets) in enumerate(for_weights, first + 1):
            self.network.select(next(dealt))
            loss, predictions = weight_step(inputs, targets)
            if step == len(index):  # what the epoch's figures are of
                self.network.select(self.cells.cut(epoch, self._alphas()))
            yield loss, predictions, targets

    def captured_steps(self) -> tuple[Step, ...]:
        """Alpha step, weight step and evaluation step, each captured until the next decision."""
        if self._captured is None:
            evaluation = evaluation_step(self.network, self.labels, self.device, self.precision)
            steps = self.alpha_step, self.weight_step, evaluation
            self._captured = captured(self.recorder, *steps)
        return self._captured

    def evaluation(self) -> Step:
        """The evaluation step of the supernet until the next decision."""
        return self.captured_steps()[-1]

    def release(self) -> None:
        """Lets go of captured steps: the next are others."""
        self._captured = None
        self.statistics.release()

    def _learning_rate(self, epoch: int) -> float:
        config = self.config
        return cosine(config.learning_rate, config.learning_rate_min, epoch, self.num_epochs)

    def _logits(self, inputs: Any) -> Tensor:
        return run_network(self.network, inputs, self.precision, self.device)

    def alpha_step(self, inputs: Any, targets: Tensor) -> tuple[()]:
        """First-order step on the alphas; the weights get no gradient and keep no activations."""
        with frozen(self._weights):
            loss = self.labels.loss(self._logits(inputs), targets)
            if loss.requires_grad:  # False once no edge is open
                alphas = list(self.network.alphas.values())
                loss = loss + self._alpha_penalty(alphas)
                self.alpha_optimizer.step(
                    torch.autograd.grad(loss, alphas, allow_unused=True, materialize_grads=True)
                )
        return ()

    def _alpha_penalty(self, alphas: list[nn.Parameter]) -> Tensor | float:
        """What is added to the loss of the alphas `[E, O]`; 0 without a remedy.

        λ · ramp · mean logsumexp (Ye et al., "β-DARTS: Beta-Decay Regularization for Differentiable
        Architecture Search", CVPR 2022), and the mean probability of skips, our own.
        """
        config = self.config
        penalty: Tensor | float = 0.0
        if config.beta_decay:
            sizes = torch.cat([torch.logsumexp(alpha, -1) for alpha in alphas])
            penalty = penalty + config.beta_decay * self.ramp * sizes.mean()
        if config.skip_penalty and self.skips:
            probs = torch.cat([torch.softmax(alpha, -1) for alpha in alphas])
            penalty = penalty + config.skip_penalty * sum(probs[:, c].mean() for c in self.skips)
        return penalty

    def weight_step(self, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Step on the weights; returns the loss, a mean, and the predictions `[B, ...]`."""
        with frozen(self.network.alphas.values()):
            logits = self._logits(inputs)
            loss = self.labels.loss(logits, targets)
            loss.backward()
        nn.utils.clip_grad_norm_(self._weights, self.config.grad_clip, foreach=True)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        return loss.detach(), self.labels.predictions(logits.detach())

    def end_epoch(self, epoch: int, figures: Figures) -> EpochEnd:
        """Scores, decides and prunes."""
        batch_size = self.batch_size
        if self.strategy.trains_paths:
            self._measure_effects(epoch)
        before = dict(self.decisions)
        found = self.cells.decide(epoch, self._alphas())
        if self.decisions != before:
            self.prune()
        state = {
            "learning_rate": self._learning_rate(epoch),
            "batch_size": batch_size,
            "decided": self.cells.num_decided,
        }
        return EpochEnd(state, *found)

    def _measure_effects(self, epoch: int) -> None:
        """Puts the effects of open edges in the place of the alphas, before a decision."""
        self.network.select(None)
        if not self.cells.may_decide(epoch):
            return
        found = measure_effects(
            self.network,
            self.captured_steps()[-1],
            self.parts.alphas,
            self.decisions,
            self.space.operations,
            self.config.scored_paths,
            self.batch_size,
            self.seed,
            epoch,
        )
        with torch.no_grad():
            for kind, effects in found.items():
                self.network.alphas[kind].copy_(effects.gains)
                self.cells.errors[kind] = effects.errors

    def _alphas(self) -> dict[str, Tensor]:
        """The alphas of each kind of cell, float64 `[E, O]` on the CPU."""
        alphas = self.network.alphas
        return {kind: alphas[kind].detach().double().cpu() for kind in self.decisions}

    def prune(self) -> None:
        """Frees what the decisions leave out: operations, optimiser state, captured steps."""
        self.network.apply_decisions(self.decisions)
        keep_only(self.weight_optimizer, self.network.weights())
        self.alpha_optimizer.close(self.decisions)
        self.release()

    def genotype(self) -> Genotype:
        """The genotype of a search that has decided every edge."""
        return self.cells.genotype()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the search."""
        return {
            **self.cells.state(),
            "supernet": self.network.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.adam.state_dict(),
            "random": self.random.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.cells.restore(state)
        self.network.apply_decisions(self.decisions)
        self.network.load_state_dict(state["supernet"])
        self._make_optimizers()
        restore_optimizer(self.weight_optimizer, state["weight_optimizer"])
        restore_optimizer(self.alpha_optimizer.adam, state["alpha_optimizer"])
        self.alpha_optimizer.close(self.decisions)
        self.random.restore(state["random"])
