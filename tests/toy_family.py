"""A family that is neither graph nor picture: vectors, and operations on them.

It proves that the engine knows only cells, alphas, decisions and time, and keeps the engine's tests
fast. TOY_SIGNAL=SIGKILL@40 makes the process send itself a signal when it draws its 40th training
batch; with TOY_TARGET=parent the process that started it gets it.

Dimensions: N vectors, D features, C channels, E edges, O operations.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sgas.cells.decisions import CellDecisions
from sgas.cells.edges import (
    CellLayout,
    derived_layout,
    kept_operations,
    restrict,
    running,
    searched_layout,
)
from sgas.cells.forward import dag_extend
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import RunConfig, option, validate
from sgas.data import DeviceSource, Source, SubsetSource, stratified_parts
from sgas.errors import unknown_name
from sgas.family import DatasetInfo, Family, OperationCase, Operations, Samples, Space
from sgas.labels import OneClass
from sgas.own.samples import samples_of
from sgas.protocols import AlphasOn

OPERATIONS = ("none", "skip", "linear", "tanh", "gate")
SPACE = SearchSpace("toy", OPERATIONS, ("normal", "reduce"), num_outputs=2)
NUM_FEATURES, NUM_CLASSES = 5, 3
QUICK = {"warmup_epochs": 1, "decision_interval": 1, "final_epochs": 0}  # a search of a moment
QUICK_WORDS = [f"--{name}={value}" for name, value in QUICK.items()]


@dataclass(frozen=True)
class ToyModelConfig:
    channels: int = option(4, "channels of a state", low=1)
    num_steps: int = option(2, "steps of a cell", low=1, verbs=("search",))
    dropout: float = option(0.1, "dropout before the classifier", low=0, high=0.9)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ToyDataConfig:
    noise: float = option(0.1, "noise added to training vectors", low=0)

    def __post_init__(self) -> None:
        validate(self)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.lin(x).chunk(2, dim=-1)
        return value * torch.sigmoid(gate)


def build(op: str, channels: int) -> nn.Module:
    if op == "linear":
        return nn.Linear(channels, channels)
    if op == "tanh":
        return nn.Sequential(nn.Linear(channels, channels), nn.Tanh())
    return Gate(channels) if op == "gate" else nn.Identity()


class ToyCell(nn.Module):
    def __init__(self, channels: int, layout: CellLayout) -> None:
        super().__init__()
        self.layout = layout
        self.kept: list[tuple[str, ...]] | None = None
        self.edges = nn.ModuleList(
            nn.ModuleDict({op: build(op, channels) for op in edge.ops}) for edge in layout.edges
        )

    def forward(self, x: Tensor, weights: Tensor | None) -> Tensor:
        def extend(source: int, state: Tensor, sums: Mapping[int, Tensor]) -> dict[int, Tensor]:
            out: dict[int, Tensor] = {}
            for number, edge in enumerate(self.layout.edges):
                held = running(self.edges, number, self.kept)
                operations = held.items() if edge.source == source else ()
                for op, module in operations:
                    value = module(state)
                    if len(operations) > 1:
                        assert weights is not None
                        scale = 0.0 if op == "none" else weights[number, OPERATIONS.index(op)]
                        value = value * scale
                    out[edge.step] = out[edge.step] + value if edge.step in out else value
            return {step: sums[step] + own if step in sums else own for step, own in out.items()}

        return sum(dag_extend([x, x], self.layout.num_steps, extend)[-2:])


class ToySupernet(nn.Module):
    def __init__(self, config: ToyModelConfig) -> None:
        super().__init__()
        self.topology = SPACE.topology(config.num_steps)
        self.stem = nn.Linear(NUM_FEATURES, config.channels)
        layout = searched_layout(SPACE, self.topology)
        self.cells = nn.ModuleDict({k: ToyCell(config.channels, layout) for k in SPACE.cell_kinds})
        self.head = nn.Linear(config.channels, NUM_CLASSES)
        self.dropout = config.dropout
        shape = (self.topology.num_edges, len(OPERATIONS))
        self.alphas = nn.ParameterDict(
            {kind: nn.Parameter(1e-3 * torch.randn(shape)) for kind in SPACE.cell_kinds}
        )

    def weights(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if not name.startswith("alphas.")]

    def apply_decisions(self, decisions: Mapping[str, CellDecisions]) -> None:
        for kind, cell in decisions.items():
            restrict(self.cells[kind].edges, kept_operations(SPACE, cell))

    def select(self, cells: Mapping[str, CellDecisions] | None) -> None:
        for kind, cell in self.cells.items():
            cell.kept = None if cells is None else kept_operations(SPACE, cells[kind])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for kind, cell in self.cells.items():
            x = cell(x, torch.softmax(self.alphas[kind], -1))
        return self.head(nn.functional.dropout(x, self.dropout, self.training))


class ToyNetwork(nn.Module):
    def __init__(self, genotype: Genotype, config: ToyModelConfig, auxiliary: bool) -> None:
        super().__init__()
        self.drop_path = 0.0
        self.stem = nn.Linear(NUM_FEATURES, config.channels)
        genes = genotype.validate(SPACE).cells.values()
        self.cells = nn.ModuleList(
            ToyCell(config.channels, derived_layout(SPACE, gene)) for gene in genes
        )
        self.head = nn.Linear(config.channels, NUM_CLASSES)
        self.auxiliary = nn.Linear(config.channels, NUM_CLASSES) if auxiliary else None

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x, None)
        logits = self.head(x)
        if self.training and self.auxiliary is not None:
            return logits, self.auxiliary(x)
        return logits


def target() -> int:
    """The process that TOY_SIGNAL is for."""
    parent = multiprocessing.parent_process()
    to_parent = os.environ.get("TOY_TARGET") == "parent" and parent is not None
    return parent.pid if to_parent else os.getpid()


def send(number: signal.Signals, process: int) -> None:
    """Sends a signal; where it asks a parent to stop, waits until the parent has told us so.

    Else a job as short as these may be over before it hears of it.
    """
    if process == os.getpid() or number == signal.SIGKILL:
        os.kill(process, number)
        return
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    os.kill(process, number)
    heard = signal.sigtimedwait(stops, 30)
    if heard is not None:
        os.kill(os.getpid(), heard.si_signo)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


@dataclass(frozen=True)
class ToyPreparation:
    """Vectors `[D]`, as lists or arrays."""

    num_features: int
    labels: ClassVar[OneClass] = OneClass()
    row_name: ClassVar[str] = ""

    def read(self, data: Any, run: RunConfig, options: Any) -> Samples:
        if isinstance(data, str):
            source = ToyTask(run, ToyModelConfig(), ToyDataConfig()).test_part(torch.device("cpu"))
            names = [str(number) for number in range(len(source))]
            return Samples(source.inputs, names, False, source.targets, ToyTask.classes)
        vectors, alone = samples_of(data, "vector", lambda one: np.ndim(one) == 1)
        return Samples(torch.tensor(np.array(vectors)).float(), range(len(vectors)), alone)

    def batches(self, items: Tensor, batch_size: int, device: torch.device) -> Any:
        for numbers in torch.arange(len(items)).split(batch_size):
            yield numbers.tolist(), items[numbers].to(device), [1] * len(numbers)


class ToyTask:
    dataset, samples, paper_alphas_on = "blobs", "vectors", AlphasOn.TEST
    space = SPACE
    labels = OneClass()
    classes = ("0", "1", "2")
    smallest_batch = 2
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __init__(self, run: RunConfig, model: ToyModelConfig, data: ToyDataConfig) -> None:
        if run.dataset not in FAMILY.datasets:
            raise unknown_name("data set", str(run.dataset), FAMILY.datasets)
        self.model, self.data, self.num_steps = model, data, model.num_steps
        self.dimensions = {"num_features": NUM_FEATURES, "num_classes": NUM_CLASSES}
        self.opened: list[str] = []
        self.drawn = 0

    def fingerprint(self) -> str:
        return "blobs"

    @property
    def preparation(self) -> ToyPreparation:
        return ToyPreparation(NUM_FEATURES)

    def _arrays(self, split: str, device: torch.device) -> tuple[DeviceSource, np.ndarray]:
        self.opened.append(split)
        draw = np.random.default_rng({"train": 1, "test": 2}[split])
        labels = np.arange(240 if split == "train" else 60) % NUM_CLASSES
        vectors = draw.normal(size=(len(labels), NUM_FEATURES))
        vectors[:, 0] += labels
        vectors[:, 1] *= 1 + labels
        inputs = torch.from_numpy(vectors.astype(np.float32)).to(device)
        source = DeviceSource(
            inputs, torch.from_numpy(labels).to(device), self._augment, lambda batch: batch
        )
        return source, labels

    def _augment(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        self.drawn += 1
        name, _, moment = os.environ.get("TOY_SIGNAL", "").partition("@")
        if moment and self.drawn == int(moment):
            send(signal.Signals[name], target())
        drawn = torch.randn(batch.shape, generator=generator, device=batch.device)
        return batch + self.data.noise * drawn

    def parts_of_training(
        self, fractions: tuple[float, ...], seed: int, device: Any
    ) -> list[SubsetSource]:
        source, labels = self._arrays("train", device)
        parts = stratified_parts(labels, fractions, seed)
        return [SubsetSource(source, torch.from_numpy(part)) for part in parts]

    def training_part(self, device: Any) -> DeviceSource:
        return self._arrays("train", device)[0]

    def validation_part(self, device: Any) -> None:
        return None

    def count(self, part: Source) -> int:
        return len(part)

    def test_part(self, device: Any) -> DeviceSource:
        return self._arrays("test", device)[0]

    def build_supernet(self) -> ToySupernet:
        return ToySupernet(self.model)

    def build_network(self, genotype: Genotype, auxiliary: bool) -> ToyNetwork:
        return ToyNetwork(genotype, self.model, auxiliary)

    def example_input(self) -> Tensor:
        return torch.ones(1, NUM_FEATURES)


def open_task(run: RunConfig, model: Any, data: Any) -> ToyTask:
    return ToyTask(run, model, data)


def models(model: Any, dimensions: Mapping[str, int]) -> ToyTask:
    return ToyTask(RunConfig(dataset="blobs"), model, ToyDataConfig())


def cases() -> list[OperationCase]:
    x = torch.randn(6, 4, dtype=torch.float64)
    return [OperationCase((4,), x, (), x.shape, torch.arange(6).flip(0))]


def operations() -> Operations:
    return Operations({op: partial(build, op) for op in OPERATIONS}, nn.Module, cases)


SPACES = {
    SPACE.name: Space(
        SPACE,
        "vectors",
        ToyModelConfig,
        ToyDataConfig,
        open_task,
        models,
        lambda fields: ToyPreparation(**fields),
        {"num_features": NUM_FEATURES, "num_classes": NUM_CLASSES},
        operations,
        {"blobs": DatasetInfo("blobs", "vectors", "three blobs of vectors")},
    )
}

FAMILY = Family(
    name="toy",
    home="toy_family",
    title="a family for tests",
    package="toy_presets",
    default_dataset="blobs",
    spaces=SPACES,
    operation_groups={},
    default_preset=lambda dataset, space: "tiny",
    space_of=lambda dataset, space: SPACE.name,
    check_folder=lambda folder, target: {"folder": folder, "problems": []},
    keep_own=lambda dataset, test, root, target: Path(root),
    published_names=lambda: (),
    load_published=lambda name: Genotype(1, "toy", {}),
)


if __name__ == "__main__":
    import sys

    from sgas.cli import main

    sys.exit(main(FAMILY))
