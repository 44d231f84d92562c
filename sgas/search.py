"""The search loop: alpha step, weight step, decision.

One step trains the alphas on a batch of their half of the data (Adam, first order), then the
weights on a batch of theirs (SGD). At the end of each epoch the strategy may decide an edge; its
other operations are then gone from the supernet. Source: Li et al., CVPR 2020, algorithm 1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgas.capture import Recorder, Step, captured
from sgas.config import SearchConfig
from sgas.data import BatchOrder, batches
from sgas.decisions import CellDecisions, genotype_of
from sgas.errors import Interrupted
from sgas.family import Searchable, SearchParts, Supernet
from sgas.genotype import Genotype
from sgas.loop import (
    Listener,
    RandomState,
    Silent,
    Tally,
    evaluate,
    evaluation_step,
    frozen,
    rate_on,
    require_finite,
    restore_optimizer,
    run_network,
    set_learning_rate,
    whole_steps,
)
from sgas.records import EpochRecord
from sgas.replay import empty_history, extend_history, open_edges, score_epoch
from sgas.runs import Run
from sgas.schedule import Schedule, cosine
from sgas.signals import StopSignal
from sgas.strategies import EpochView, strategy_named


class AlphaOptimizer:
    """Adam on the alphas of open edges; those of other edges stand still.

    Weight decay is added to the gradient of open edges here (as Adam itself does for all): a
    decided edge then has gradient and moments of exactly zero, and does not move.
    """

    def __init__(
        self, alphas: Mapping[str, nn.Parameter], config: SearchConfig, capturable: bool = False
    ) -> None:
        self.alphas, self.weight_decay = dict(alphas), config.alpha_weight_decay
        self.adam = torch.optim.Adam(
            self.alphas.values(),
            lr=config.alpha_learning_rate,
            betas=(0.5, 0.999),
            capturable=capturable,
            **whole_steps(next(iter(self.alphas.values())).device),
        )
        self.open = {kind: torch.ones_like(alpha[:, :1]) for kind, alpha in self.alphas.items()}

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...]) -> None:
        """One update by the gradients `[E, O]` of all kinds, in order."""
        for (kind, alpha), gradient in zip(self.alphas.items(), gradients, strict=True):
            gradient = gradient.contiguous()  # as the alphas lie: see `whole_steps`
            alpha.grad = (gradient + self.weight_decay * alpha) * self.open[kind]
        self.adam.step()
        self.adam.zero_grad()

    def close(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Forgets the moments of edges that are decided or pruned."""
        for kind, alpha in self.alphas.items():
            self.open[kind] = open_edges(decisions[kind]).to(alpha)
            for name in ("exp_avg", "exp_avg_sq"):
                if name in self.adam.state[alpha]:
                    self.adam.state[alpha][name] *= self.open[kind]


def keep_only(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Takes all but `parameters` out of an optimiser, with their state; the rest keeps its own."""
    kept = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in kept:
                optimizer.state.pop(parameter, None)
        group["params"] = [p for p in group["params"] if id(p) in kept]


class Search:
    """One search, from its first epoch or from a checkpoint to the genotype."""

    def __init__(
        self,
        task: Searchable,
        config: SearchConfig,
        run: Run,
        *,
        parts: SearchParts,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        recorder: Recorder | None = None,
        notes: Mapping[str, Any],
        listener: Listener | None = None,
    ) -> None:
        self.task, self.config, self.run, self.parts = task, config, run, parts
        self.seed, self.device, self.precision = seed, device, precision
        self.recorder = recorder
        self.notes = dict(notes)
        self.listener = listener or Silent()
        self.strategy = strategy_named(config.strategy)
        self.space = task.space
        topology = self.space.topology(task.num_steps)
        self.schedule = Schedule.of(config, topology)
        self.decisions = {k: CellDecisions.none_yet(topology) for k in self.space.cell_kinds}
        history = empty_history(topology.num_edges, len(self.space.operations))
        self.history = {kind: history for kind in self.space.cell_kinds}
        self.random = RandomState(seed, device)
        self.supernet: Supernet = task.build_supernet().to(device)
        self.weight_order, self.alpha_order = (
            BatchOrder(len(part), seed, name, part.index_device)
            for name, part in (("weights", parts.weights), ("alphas", parts.alphas))
        )
        self.epoch, self.step, self.tally, self.seconds = 0, 0, Tally(), 0.0
        self._make_optimizers()

    def _make_optimizers(self) -> None:
        config, recorded = self.config, self.recorder is not None
        self.weight_optimizer = torch.optim.SGD(
            self.supernet.weights(),
            lr=rate_on(self.device, config.learning_rate, recorded),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            **whole_steps(self.device),
        )
        self.alpha_optimizer = AlphaOptimizer(self.supernet.alphas, config, capturable=recorded)
        self._forget_steps()

    @property
    def _weights(self) -> list[nn.Parameter]:
        """The supernet's weights, from where no walk over its modules is needed."""
        parameters: list[nn.Parameter] = self.weight_optimizer.param_groups[0]["params"]
        return parameters

    def _forget_steps(self) -> None:
        """The next steps are not those that were captured."""
        self.steps: tuple[Step, ...] | None = None

    @property
    def batch_size(self) -> int:
        """Samples a batch: grows with every decision epoch, as memory is freed."""
        made = max(cell.num_decided for cell in self.decisions.values())
        return self.config.batch_size + self.config.batch_increase * made

    def execute(self) -> Genotype:
        """Searches to the end and returns the genotype; Interrupted after a stop signal."""
        with StopSignal() as stop:
            if self.epoch == 0 and self.step == 0:
                self._save()
            costs = self.schedule.expected_costs(self.config.strategy)
            self.listener.started(self.epoch, costs)
            try:
                while self.epoch < self.schedule.num_epochs:
                    self._train_epoch(stop)
                    self._end_epoch()
            finally:
                self._forget_steps()  # and the memory that is captured with them
        return self.genotype(self.decisions)

    def _train_epoch(self, stop: StopSignal) -> None:
        began = time.perf_counter()
        num_steps = self.weight_order.num_batches(self.batch_size)
        weight_index = self.weight_order.epoch(self.epoch, self.batch_size, num_steps)
        alpha_index = self.alpha_order.epoch(self.epoch, self.batch_size, num_steps)
        set_learning_rate(self.weight_optimizer, self._learning_rate())
        self.supernet.train()
        parts, augment = self.parts, self.random.augment
        for_weights = batches(parts.weights, weight_index[self.step :], self.epoch, augment)
        for_alphas = batches(parts.alphas, alpha_index[self.step :], self.epoch, augment)
        alpha_step, weight_step, _ = self._steps_of_stage()
        for step in range(self.step, num_steps):
            if stop.requested:
                self.seconds += time.perf_counter() - began
                self._save()
                raise Interrupted(f"stopped in epoch {self.epoch}, step {step} of {num_steps}")
            alpha_batch = next(for_alphas)
            if self.epoch >= self.config.alpha_start_epoch:
                alpha_step(*alpha_batch)
            weight_batch = next(for_weights)
            loss, predictions = weight_step(*weight_batch)
            self.tally.add(loss, predictions, weight_batch[1])
            self.step = step + 1
            self.listener.stepped(self.epoch, self.step, num_steps)
        self.seconds += time.perf_counter() - began

    def _steps_of_stage(self) -> tuple[Step, ...]:
        """Alpha step, weight step and evaluation step, each captured until the next decision."""
        if self.steps is None:
            evaluation = evaluation_step(
                self.supernet, self.task.labels, self.device, self.precision
            )
            steps = self._alpha_step, self._weight_step, evaluation
            self.steps = captured(self.recorder, *steps)
        return self.steps

    def _learning_rate(self) -> float:
        config, last = self.config, self.schedule.num_epochs
        return cosine(config.learning_rate, config.learning_rate_min, self.epoch, last)

    def _logits(self, inputs: Any) -> Tensor:
        return run_network(self.supernet, inputs, self.precision, self.device)

    def _alpha_step(self, inputs: Any, targets: Tensor) -> tuple[()]:
        """First-order step on the alphas; the weights get no gradient and keep no activations."""
        with frozen(self._weights):
            loss = self.task.labels.loss(self._logits(inputs), targets)
            if loss.requires_grad:  # False once no edge is open
                alphas = list(self.supernet.alphas.values())
                self.alpha_optimizer.step(
                    torch.autograd.grad(loss, alphas, allow_unused=True, materialize_grads=True)
                )
        return ()

    def _weight_step(self, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Step on the weights; returns the loss, a mean, and the predictions `[B, ...]`."""
        with frozen(self.supernet.alphas.values()):
            logits = self._logits(inputs)
            loss = self.task.labels.loss(logits, targets)
            loss.backward()
        nn.utils.clip_grad_norm_(self._weights, self.config.grad_clip, foreach=True)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        return loss.detach(), self.task.labels.predictions(logits.detach())

    def _end_epoch(self) -> None:
        """Reports, scores, decides, prunes, and puts the epoch on disk."""
        began = time.perf_counter()
        training = self.tally.figures(self.task.labels)
        require_finite(self.epoch, training)
        validation = evaluate(
            self.supernet,
            self.task.labels,
            self.parts.validation,
            self.batch_size,
            self.device,
            self.precision,
            self._steps_of_stage()[-1],
        )
        require_finite(self.epoch, validation)
        batch_size = self.batch_size
        records, cut = self._decide()
        self.seconds += time.perf_counter() - began
        metrics = {
            "epoch": self.epoch,
            **{f"train_{name}": value for name, value in training.items()},
            **{f"validation_{name}": value for name, value in validation.items()},
            "learning_rate": self._learning_rate(),
            "batch_size": batch_size,
            "decided": sum(cell.num_decided for cell in self.decisions.values()),
            "seconds": round(self.seconds, 3),
        }
        self.run.add_epoch(metrics, records, self.genotype(cut))
        news = tuple(self._told(record) for record in records if record.edge is not None)
        for line in news:
            self.run.log(f"epoch {self.epoch}: {line}")
        epoch, self.epoch, self.step, self.tally = self.epoch, self.epoch + 1, 0, Tally()
        self._save()
        self.listener.epoch_ended(epoch, metrics, news)

    def _decide(self) -> tuple[list[EpochRecord], dict[str, CellDecisions]]:
        """This epoch's records, and the cells that would be cut now; prunes what was decided."""
        records: list[EpochRecord] = []
        cut, before = {}, dict(self.decisions)
        for kind, alphas in self.supernet.alphas.items():
            table = alphas.detach().double().cpu()
            view = EpochView(
                self.epoch,
                kind,
                table,
                self.history[kind],
                self.decisions[kind],
                self.space.operations,
                self.schedule,
                self.seed,
            )
            made, self.decisions[kind] = score_epoch(view, self.strategy)
            cut[kind] = self.strategy.complete(view)
            records.extend(made)
            self.history[kind] = extend_history(self.history[kind], table, self.config.history_size)
        if self.decisions != before:
            self._prune()
        return records, cut

    def _prune(self) -> None:
        self.supernet.apply_decisions(self.decisions)
        keep_only(self.weight_optimizer, self.supernet.weights())
        self.alpha_optimizer.close(self.decisions)
        self._forget_steps()

    def genotype(self, cells: Mapping[str, CellDecisions]) -> Genotype:
        """The genotype of complete cells, with notes on where it comes from."""
        final = all(cell.complete for cell in self.decisions.values())
        return genotype_of(self.space, cells, **self.notes, epoch=self.epoch, final=final)

    def _told(self, record: EpochRecord) -> str:
        topology = self.space.topology(self.task.num_steps)
        assert record.edge is not None
        edge = topology.edges[record.edge]
        rival = (
            ""
            if record.runner_up is None
            else (
                f", runner-up {topology.edge_name(topology.edges[record.runner_up])} "
                f"{record.score[record.runner_up]:.3f}"
            )
        )
        kind = f"{record.cell} cell: " if len(self.space.cell_kinds) > 1 else ""
        return (
            f"{kind}{topology.edge_name(edge)} = {record.op}, "
            f"score {record.score[record.edge]:.3f}{rival}"
        )

    def _save(self) -> None:
        self.run.save_checkpoint(
            {
                "kind": "search",
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "decisions": {kind: cell.to_strings() for kind, cell in self.decisions.items()},
                "history": self.history,
                "supernet": self.supernet.state_dict(),
                "weight_optimizer": self.weight_optimizer.state_dict(),
                "alpha_optimizer": self.alpha_optimizer.adam.state_dict(),
                "random": self.random.state(),
                "tally": self.tally.state(),
            }
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where a checkpoint was written; records made later are dropped."""
        topology = self.space.topology(self.task.num_steps)
        self.decisions = {
            kind: CellDecisions.from_strings(topology, texts)
            for kind, texts in state["decisions"].items()
        }
        self.supernet.apply_decisions(self.decisions)
        self.supernet.load_state_dict(state["supernet"])
        self._make_optimizers()
        restore_optimizer(self.weight_optimizer, state["weight_optimizer"])
        restore_optimizer(self.alpha_optimizer.adam, state["alpha_optimizer"])
        self.alpha_optimizer.close(self.decisions)
        self.history = dict(state["history"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.seconds = state["seconds"]
        self.tally = Tally.restored(state["tally"], self.device)
        self.random.restore(state["random"])
        self.run.forget_from(self.epoch)
