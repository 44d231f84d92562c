"""Small searches and trainings of the real families: for what every family has to keep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from sgas.cells.decisions import Choice
from sgas.config import RunConfig, SearchConfig, TrainConfig
from sgas.data import batches
from sgas.protocols import search_parts, train_parts
from sgas.running.capture import Recorder
from sgas.running.loop import Tally
from sgas.running.search import Search
from sgas.running.train import Training
from sgas_cnn.family import FAMILY as CNN
from sgas_gcn.family import FAMILY as GCN

# By search space: the family, its generated or bundled data set, a network of a second or two.
SPACES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "point": (
        GCN,
        "shapes",
        {"channels": 8, "num_cells": 2, "k": 4, "num_points": 64, "emb_dims": 32},
    ),
    "graph": (GCN, "tissues", {"channels": 8, "num_cells": 1}),
    "image": (CNN, "digits", {"channels": 4, "num_cells": 3}),
}
GENOTYPES = {"point": "cri2-modelnet-best", "graph": "cri2-ppi-best", "image": "cri2-cifar-best"}


@dataclass
class SmallSearch:
    """A search, and batches of its weights' part for as many steps as are asked for."""

    search: Search
    batches: list[tuple[Any, torch.Tensor]]
    tally: Tally = field(default_factory=Tally)

    def step(self, number: int) -> None:
        """One alpha step and one weight step on batch `number`."""
        self.search.alpha_step(*self.batches[number])
        outputs = self.search.weight_step(*self.batches[number])
        self.tally.add(*outputs, self.batches[number][1])


def small_search(
    space: str,
    *,
    precision: str = "float32",
    device: str = "cpu",
    steps: int = 1,
    decided: int = 0,
    recorder: Recorder | None = None,
) -> SmallSearch:
    """A search of `space` in training mode, and `steps` batches for it.

    The first `decided` edges of each kind of cell have their operation, each another.
    """
    where, task = torch.device(device), task_of(space)
    parts = search_parts(task, "clean", 0, 0.1, where)
    search = Search(
        task,
        SearchConfig(batch_size=4),
        parts=parts,
        seed=0,
        device=where,
        precision=precision,
        recorder=recorder,
        notes={},
    )
    search.network.train()
    if decided:
        decide(search, range(decided))
    order = search.weight_order.epoch(0, 4, steps)
    return SmallSearch(search, list(batches(parts.weights, order, 0, search.random.augment)))


def small_training(
    space: str,
    *,
    optimizer: str = "sgd",
    precision: str = "float32",
    device: str = "cpu",
    recorder: Recorder | None = None,
) -> Training:
    """A training of a published genotype in training mode, with all that is drawn at random."""
    family, task = SPACES[space][0], task_of(space)
    config = TrainConfig(
        batch_size=4, optimizer=optimizer, auxiliary=space == "image", learning_rate=0.01
    )
    where = torch.device(device)
    training = Training(
        task,
        family.load_published(GENOTYPES[space]),
        config,
        parts=train_parts(task, "clean", 0, 0.1, where),
        seed=0,
        device=where,
        precision=precision,
        recorder=recorder,
    )
    training.network.train()
    training.network.drop_path = 0.3
    return training


def training_batches(training: Training, steps: int) -> list[tuple[Any, torch.Tensor]]:
    """The first batches of a training."""
    order = training.order.epoch(0, training.config.batch_size, steps)
    return list(batches(training.parts.training, order, 0, training.random.augment))


def task_of(space: str, **options: Any) -> Any:
    """The small task of a space, with other options of the model."""
    family, dataset, sizes = SPACES[space]
    run_config = RunConfig(dataset=dataset, space=space)
    model, data = (
        family.spaces[space].model_config(**{**sizes, **options}),
        family.spaces[space].data_config(),
    )
    return family.open_task(run_config, model, data)


def decide(search: Search, edges: Iterable[int]) -> None:
    """Gives edges of each kind of cell an operation, neighbours another, and prunes."""
    names = search.space.operations[:0:-1]
    for edge in edges:
        choice = Choice(edge, names[edge % len(names)])
        for kind, cell in search.decisions.items():
            search.decisions[kind] = cell.decide(choice)
    search.prune()
