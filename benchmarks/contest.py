"""A plain network and ours side by side: the same weights, the same batches, the same decisions.

Ours are driven by the very steps of `sgas.running.search` and `sgas.running.train`. Dimensions: B
samples a batch, P points, N nodes, E edges of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from plain.common import PRUNED, UNDECIDED, CellNetwork, SearchLoop
from torch import Tensor, nn
from weights import copy_weights

from sgas.cells.decisions import CellDecisions, Choice, Status
from sgas.cells.genotype import Genotype
from sgas.cells.space import NONE, SearchSpace
from sgas.config import SearchConfig, TrainConfig
from sgas.data import DeviceSource
from sgas.family import Task, Trainable
from sgas.protocols import SearchParts, TrainParts
from sgas.running.capture import Recorder
from sgas.running.loop import Tally, frozen
from sgas.running.search import Search
from sgas.running.train import Training

CPU = torch.device("cpu")
# The loops ask their sources how many samples they have, and where, alone until they run.
NO_SAMPLES = DeviceSource(torch.zeros(1), torch.zeros(1), lambda x, _: x, lambda x: x)


@dataclass(frozen=True)
class Batch:
    """One batch as the plain network takes it and as ours does, and the targets."""

    plain: tuple[Any, ...]
    ours: Any
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        plain = tuple(tensor.to(device) for tensor in self.plain)
        return Batch(plain, self.ours.to(device), self.targets.to(device))


class OurSearch:
    """Our supernet with its optimisers, stepped as `sgas.running.search` steps it."""

    def __init__(
        self,
        models: Trainable,
        learning_rate: float,
        device: torch.device = CPU,
        recorder: Recorder | None = None,
    ) -> None:
        parts = SearchParts(NO_SAMPLES, NO_SAMPLES, NO_SAMPLES, "none")
        config = SearchConfig(learning_rate=learning_rate)
        self.search = Search(
            models,
            config,
            parts=parts,
            seed=0,
            device=device,
            recorder=recorder,
            notes={},
        )

    @property
    def network(self) -> Any:
        """The supernet."""
        return self.search.network

    def alpha_step(self, batch: Batch) -> None:
        """One step on the alphas."""
        self.search.alpha_step(batch.ours, batch.targets)

    def weight_step(self, batch: Batch) -> None:
        """One step on the weights."""
        outputs = self.search.weight_step(batch.ours, batch.targets)
        Tally().add(*outputs, batch.targets)

    def loss(self, batch: Batch) -> Tensor:
        """The loss, with what the backward pass of a weight step needs."""
        with frozen(self.network.alphas.values()):
            return self.search.labels.loss(self.network(batch.ours), batch.targets)

    def decide(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Puts decisions in force, as the end of an epoch does."""
        self.search.cells.decisions = dict(decisions)
        self.search.prune()


class OurTraining:
    """Our derived network with its optimiser, stepped as `sgas.running.train` steps it."""

    def __init__(
        self,
        models: Any,
        genotype: Genotype,
        learning_rate: float,
        device: torch.device = CPU,
        precision: str = "float32",
        recorder: Recorder | None = None,
    ) -> None:
        parts = TrainParts(NO_SAMPLES, {})
        config = TrainConfig(learning_rate=learning_rate, weight_decay=3e-4)  # as plain
        self.training = Training(
            cast("Task", models),
            genotype,
            config,
            parts=parts,
            seed=0,
            device=device,
            precision=precision,
            recorder=recorder,
        )

    @property
    def network(self) -> Any:
        """The derived network."""
        return self.training.network

    def weight_step(self, batch: Batch) -> None:
        """One step of training."""
        outputs = self.training.train_step(batch.ours, batch.targets)
        Tally().add(*outputs, batch.targets)

    def loss(self, batch: Batch) -> Tensor:
        """The loss, with what the backward pass needs."""
        return self.training.labels.loss(self.network(batch.ours), batch.targets)


class Plain:
    """A plain network with the steps that a user writes."""

    def __init__(self, network: CellNetwork, loss: Any, learning_rate: float) -> None:
        self.network = network
        self.loop = SearchLoop(network, loss, learning_rate)

    def alpha_step(self, batch: Batch) -> None:
        """One step on the alphas."""
        self.loop.alpha_step(batch.plain, batch.targets)

    def weight_step(self, batch: Batch) -> None:
        """One step on the weights."""
        self.loop.weight_step(batch.plain, batch.targets)

    def loss(self, batch: Batch) -> Tensor:
        """The loss, with what the backward pass needs."""
        return self.loop.loss(self.network(*batch.plain), batch.targets)

    def decide(self, decisions: Mapping[str, CellDecisions], space: SearchSpace) -> None:
        """Puts decisions in force."""
        self.network.select(
            {
                kind: [state_number(str(state), space) for state in cell.states]
                for kind, cell in decisions.items()
            }
        )


def state_number(state: str, space: SearchSpace) -> int:
    """The number by which plain networks know the state of an edge."""
    words = {Status.UNDECIDED.value: UNDECIDED, Status.PRUNED.value: PRUNED}
    return words[state] if state in words else space.operations.index(state)


@dataclass
class Contest:
    """Plain and ours in the same state, with batches for both."""

    plain: Plain
    ours: OurSearch | OurTraining
    batches: Sequence[Batch]
    space: SearchSpace

    def equalise(self) -> None:
        """Gives plain the weights of ours."""
        copy_weights(self.ours.network.state_dict(), self.plain.network, self.space.name)

    def decide(self, decisions: Mapping[str, CellDecisions]) -> None:
        """Puts the same decisions in force on both."""
        assert isinstance(self.ours, OurSearch), "a derived network has nothing to decide"
        self.ours.decide(decisions)
        self.plain.decide(decisions, self.space)

    def losses(self) -> tuple[float, float]:
        """The loss of plain and of ours on the first batch, in evaluation mode."""
        networks: list[nn.Module] = [self.plain.network, self.ours.network]
        for network in networks:
            network.eval()
        with torch.no_grad():
            batch = self.batches[0]
            found = self.plain.loss(batch).item(), self.ours.loss(batch).item()
        for network in networks:
            network.train()
        return found


def decisions_at(space: SearchSpace, num_steps: int, made: int) -> dict[str, CellDecisions]:
    """Cells after `made` decisions of each kind, drawn with a fixed seed."""
    names = [op for op in space.operations if op != NONE]
    cells = {}
    for seed, kind in enumerate(space.cell_kinds):
        generator = torch.Generator().manual_seed(seed)  # so that later stages extend earlier ones
        cell = CellDecisions.none_yet(space.topology(num_steps))
        for _ in range(made):
            edge = cell.undecided[_draw(len(cell.undecided), generator)]
            cell = cell.decide(Choice(edge, names[_draw(len(names), generator)]))
        cells[kind] = cell
    return cells


def _draw(choices: int, generator: torch.Generator) -> int:
    return int(torch.randint(choices, (), generator=generator))
