"""PointTask: one data set of clouds with the supernet and the networks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import RunConfig
from sgas.data import (
    DeviceSource,
    LabelledArrays,
    Source,
    SubsetSource,
    strata_of,
    stratified_parts,
)
from sgas.errors import ConfigError, DataError
from sgas.family import refuse_auxiliary
from sgas.labels import Labels, OneClass, kept, labels_of
from sgas.own.targets import rows_of
from sgas.protocols import AlphasOn
from sgas_gcn.augment import CloudAugmentation, have_normals
from sgas_gcn.cells import Operations
from sgas_gcn.config import POINT_SPACE, PointDataConfig, PointModelConfig
from sgas_gcn.datasets import DATASETS, load_points
from sgas_gcn.drawing import points_of
from sgas_gcn.network import PointNetwork
from sgas_gcn.ops.point import POINT_OPERATIONS
from sgas_gcn.preparation import CHOSEN, FIRST, CloudPreparation
from sgas_gcn.supernet import PointSupernet


class PointModels:
    """The supernet and the networks for clouds of `in_channels` and `num_classes`.

    With `per_point` the classes are those of points.
    """

    labels: Labels = OneClass()
    smallest_batch = 2
    warnings: Sequence[str] = ()
    remarks: Sequence[str] = ()

    def __init__(
        self,
        model: PointModelConfig,
        in_channels: int,
        num_classes: int,
        per_point: int = 0,
        space: SearchSpace = POINT_SPACE,
        operations: Operations = POINT_OPERATIONS,
    ) -> None:
        widest = model.k * model.num_cells
        if widest > model.num_points:
            raise ConfigError(
                f"k is {model.k} and the last of {model.num_cells} cells takes every "
                f"{model.num_cells}-th neighbour, which needs {widest} points; a cloud has "
                f"{model.num_points}: lower k or num_cells, or raise num_points"
            )
        self.model, self.num_steps = model, model.num_steps
        self.space, self.operations = space, operations
        self.in_channels, self.num_classes = in_channels, num_classes
        self.dimensions = {"in_channels": in_channels, "num_classes": num_classes}
        self.per_point = bool(per_point)
        if per_point:
            self.dimensions["per_point"] = 1

    def build_supernet(self) -> PointSupernet:
        """A supernet with nothing decided, on the CPU."""
        sizes = self.in_channels, self.num_classes
        return PointSupernet(self.model, *sizes, self.space, self.operations, self.per_point)

    def build_network(self, genotype: Genotype, auxiliary: bool) -> PointNetwork:
        """The derived network of a genotype, on the CPU."""
        if self.per_point:
            refuse_auxiliary(auxiliary, "points")
        return PointNetwork(
            genotype,
            self.model,
            self.in_channels,
            self.num_classes,
            auxiliary=auxiliary,
            space=self.space,
            operations=self.operations,
            per_point=self.per_point,
        )

    def example_input(self) -> Tensor:
        """One cloud of random points: `[1, num_points, in_channels]`."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self.model.num_points, self.in_channels, generator=generator)


@dataclass(frozen=True)
class PointSource:
    """Clouds `[N, P, C]` whose points have targets `[N, P, ...]`; a sample is a cloud.

    The rows of a batch's targets are those of the points that its clouds hold then. `numbers`
    `[N, P]` are those of the points in the data.
    """

    inputs: Tensor
    targets: Tensor
    augmentation: CloudAugmentation
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def index_device(self) -> torch.device:
        """The device of the tensors."""
        return self.targets.device

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The clouds `[B, num_points, C]`, augmented where a generator is given, and their rows."""
        clouds, targets = self.inputs[index], self.targets[index]
        taken = self.augmentation.taken(clouds, generator)
        clouds, targets = points_of(clouds, taken), points_of(targets, taken)
        if generator is not None:
            clouds = self.augmentation.moved(clouds, generator)
        return clouds, targets.flatten(0, 1)

    def row_names(self, number: int) -> list[tuple[str, ...]]:
        """A cloud and each of the points that evaluation takes of it."""
        points = self.numbers[number, : self.augmentation.num_points].tolist()
        return [(str(number), "", str(point)) for point in points]


class PointTask(PointModels):
    """A data set of clouds; its training part is read and checked here, its test part on demand."""

    samples, paper_alphas_on = "training clouds", AlphasOn.TEST

    def __init__(
        self,
        dataset: str,
        model: PointModelConfig,
        data: PointDataConfig,
        run: RunConfig,
        **cells: Any,
    ) -> None:
        self.dataset, self._seed = dataset, run.seed
        self._load = partial(
            load_points, dataset, data_root=run.data_root, seed=run.seed, options=data
        )
        wanted = None if data.resample else model.num_points
        self._training = self._load(split="train", num_points=wanted)
        stored, channels = self._training.inputs.shape[1:]
        if model.num_points > stored:
            raise ConfigError(
                f"num_points is {model.num_points}; the clouds of {dataset} have {stored} points: "
                f"give at most {stored}"
            )
        of_points, targets = self._training.rows is not None, self._training.labels
        super().__init__(model, channels, len(self._training.classes), int(of_points), **cells)
        self.classes, self.remarks = self._training.classes, self._training.remarks
        rows = rows_of(targets) if of_points else targets
        self.labels = labels_of([rows], measure=data.number_loss, of_points=of_points)
        self._augmentation = CloudAugmentation(
            data, model.num_points, have_normals(self._training.inputs)
        )

    def fingerprint(self) -> str:
        """A hash of the training set."""
        return self._training.fingerprint()

    @property
    def preparation(self) -> CloudPreparation:
        """Clouds of any size; the loader of a data set with a name takes the first points."""
        model = self.model
        drawn = FIRST if self.dataset in DATASETS else CHOSEN
        least = model.k * model.num_cells
        sizes = self.in_channels, model.num_points, least
        return CloudPreparation(*sizes, drawn, self._seed, kept(self.labels), self.per_point)

    def _source(self, arrays: LabelledArrays, device: torch.device) -> DeviceSource | PointSource:
        inputs = torch.from_numpy(arrays.inputs).to(device)
        targets = torch.from_numpy(arrays.labels).to(device)
        if arrays.rows is not None:
            return PointSource(inputs, targets, self._augmentation, arrays.rows)
        return DeviceSource(inputs, targets, self._augmentation.augment, self._augmentation.prepare)

    def training_part(self, device: torch.device) -> DeviceSource | PointSource:
        """The whole training set."""
        return self._source(self._training, device)

    def parts_of_training(
        self, fractions: tuple[float, ...], seed: int, device: torch.device
    ) -> list[SubsetSource]:
        """Disjoint parts of the training set, stratified by class."""
        source = self.training_part(device)
        parts = stratified_parts(strata_of(self._training.labels), fractions, seed)
        return [SubsetSource(source, torch.from_numpy(part).to(device)) for part in parts]

    def validation_part(self, device: torch.device) -> None:
        """None: no data set of clouds has a validation split of its own."""

    def count(self, part: Source) -> int:
        """The clouds of a part."""
        return len(part)

    def test_part(self, device: torch.device) -> Source:
        """The test split, opened here for the first time."""
        arrays = self._load(split="test", num_points=self.model.num_points)
        if arrays.inputs.shape[2] != self.in_channels:
            raise DataError(
                f"test clouds have {arrays.inputs.shape[2]} channels, training clouds "
                f"{self.in_channels}; both have to agree"
            )
        if (arrays.rows is not None) != self.per_point:
            raise DataError(
                "labels are of points in one of training and test alone: write the same"
            )
        return self._source(arrays, device)


def models(model: Any, dimensions: Mapping[str, int], **cells: Any) -> PointModels:
    """The networks of the point space for inputs and outputs of known size, without data.

    `cells` are the `space` and `operations` of another space of the same layers.
    """
    sizes: dict[str, Any] = dict(dimensions)
    return PointModels(model, **sizes, **cells)


def open_task(run: RunConfig, model: Any, data: Any, **cells: Any) -> PointTask:
    """The task of a run's data set; DataError or ConfigError where it cannot be used."""
    assert run.dataset is not None, "the command line resolves the data set first"
    return PointTask(run.dataset, model, data, run, **cells)
