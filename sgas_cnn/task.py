"""ImageTask: one data set of images with the supernet and the networks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from sgas.errors import ConfigError, DataError, option
from sgas.family import Network, Supernet, refuse_auxiliary
from sgas.labels import Labels, OneClass, kept, labels_of
from sgas.own.class_folders import ClassFiles
from sgas.protocols import AlphasOn
from sgas_cnn.augment import ImageAugmentation
from sgas_cnn.config import (
    IMAGE_SPACE,
    NASBENCH201_SPACE,
    ImageDataConfig,
    ImageModelConfig,
    NasBench201Config,
)
from sgas_cnn.datasets import load_images
from sgas_cnn.edges import OperationTable
from sgas_cnn.file_source import IMAGE_SIZE, MEAN, STD, FileSource
from sgas_cnn.nasbench201 import NasBench201Network, NasBench201Supernet
from sgas_cnn.network import ImageNetwork
from sgas_cnn.ops.image import IMAGE_OPERATIONS
from sgas_cnn.ops.nasbench201 import NASBENCH201_TABLE
from sgas_cnn.preparation import ImagePreparation
from sgas_cnn.supernet import ImageSupernet


class ImageModels:
    """The supernet and the networks of a space for images of `in_channels` and `num_classes`.

    Images have `image_size` rows, and as many columns unless `image_width` says another number.
    """

    labels: Labels = OneClass()
    smallest_batch = 2
    warnings: Sequence[str] = ()
    remarks: Sequence[str] = ()

    def __init__(
        self,
        model: ImageModelConfig | NasBench201Config,
        in_channels: int,
        num_classes: int,
        image_size: int,
        image_width: int | None = None,
        space: SearchSpace | None = None,
        operations: OperationTable | None = None,
    ) -> None:
        self.model, self.num_steps = model, model.num_steps
        own = isinstance(model, ImageModelConfig)
        self.space = space or (IMAGE_SPACE if own else NASBENCH201_SPACE)
        self.operations = operations or (IMAGE_OPERATIONS if own else NASBENCH201_TABLE)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.sides = (image_size, image_width or image_size)
        self.dimensions = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "image_size": image_size,
        }
        if self.sides[0] != self.sides[1]:
            self.dimensions["image_width"] = self.sides[1]

    def build_supernet(self) -> Supernet:
        """A supernet with nothing decided, on the CPU."""
        cells = self.in_channels, self.num_classes, self.space, self.operations
        if isinstance(self.model, NasBench201Config):
            return NasBench201Supernet(self.model, *cells)
        return ImageSupernet(self.model, *cells)

    def build_network(self, genotype: Genotype, auxiliary: bool) -> Network:
        """The derived network of a genotype, on the CPU."""
        sizes = (self.in_channels, self.num_classes)
        cells: dict[str, Any] = {"space": self.space, "operations": self.operations}
        if isinstance(self.model, NasBench201Config):
            refuse_auxiliary(auxiliary, f"space {self.space.name}")
            return NasBench201Network(genotype, self.model, *sizes, **cells)
        return ImageNetwork(genotype, self.model, *sizes, auxiliary=auxiliary, **cells)

    def example_input(self) -> Tensor:
        """One image of random values: `[1, in_channels, rows, columns]`."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.in_channels, *self.sides)
        return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)


class ImageTask(ImageModels):
    """A data set of images; its training part is read and checked here, its test part on demand."""

    samples, paper_alphas_on = "training images", AlphasOn.HALF

    def __init__(
        self,
        dataset: str,
        model: ImageModelConfig | NasBench201Config,
        data: ImageDataConfig,
        run: RunConfig,
        **cells: Any,
    ) -> None:
        self.dataset = dataset
        self._load = partial(
            load_images, dataset, data_root=run.data_root, seed=run.seed, options=data
        )
        self._data, self._seed = data, run.seed
        self._training = self._load(split="train")
        self.classes, self.remarks = self._training.classes, self._training.remarks
        self.labels = labels_of([self._training.labels], measure=data.number_loss)
        if isinstance(self._training, ClassFiles):
            channels, height = 3, data.image_size or IMAGE_SIZE
            width = height
        else:
            self._augmentation = ImageAugmentation.of(data, self._training.inputs)
            _, height, width, channels = self._training.inputs.shape
        super().__init__(model, channels, len(self.classes), height, width, **cells)
        side = min(height, width)
        if isinstance(model, ImageModelConfig) and model.stem == "imagenet" and side < 64:
            raise ConfigError(
                f"stem is imagenet, which needs images of at least 64 pixels a side; those of "
                f"{dataset} have {side}: give {option('stem', 'cifar')}"
            )

    def fingerprint(self) -> str:
        """A hash of the training set."""
        return self._training.fingerprint()

    @property
    def preparation(self) -> ImagePreparation:
        """Images of the size and the normalisation of training."""
        files = isinstance(self._training, ClassFiles)
        mean, std = (MEAN, STD) if files else (self._augmentation.mean, self._augmentation.std)
        sizes = self.in_channels, *self.sides
        return ImagePreparation(*sizes, mean, std, files, kept(self.labels))

    def _part(self, split: LabelledArrays | ClassFiles, part: np.ndarray, device: Any) -> Source:
        if isinstance(split, ClassFiles):
            return FileSource(split.subset(part), self._data, self._seed, device)
        return SubsetSource(self._on_device(split, device), torch.from_numpy(part).to(device))

    def _on_device(self, split: LabelledArrays, device: torch.device) -> DeviceSource:
        return DeviceSource(
            torch.from_numpy(split.inputs).to(device),
            torch.from_numpy(split.labels).to(device),
            self._augmentation.augment,
            self._augmentation.prepare,
        )

    def _whole(self, split: LabelledArrays | ClassFiles, device: torch.device) -> Source:
        return self._part(split, np.arange(len(split)), device)

    def training_part(self, device: torch.device) -> Source:
        """The whole training set."""
        return self._whole(self._training, device)

    def parts_of_training(
        self, fractions: tuple[float, ...], seed: int, device: torch.device
    ) -> list[Source]:
        """Disjoint parts of the training set, stratified by class."""
        parts = stratified_parts(strata_of(self._training.labels), fractions, seed)
        if isinstance(self._training, ClassFiles):
            return [self._part(self._training, part, device) for part in parts]
        source = self._on_device(self._training, device)
        return [SubsetSource(source, torch.from_numpy(part).to(device)) for part in parts]

    def validation_part(self, device: torch.device) -> None:
        """None: a data set's validation images are its test split here."""

    def count(self, part: Source) -> int:
        """The images of a part."""
        return len(part)

    def test_part(self, device: torch.device) -> Source:
        """The test split, opened here for the first time."""
        test = self._load(split="test")
        if isinstance(test, LabelledArrays) and isinstance(self._training, LabelledArrays):
            theirs, ours = test.inputs.shape[1:], self._training.inputs.shape[1:]
            if theirs != ours:
                raise DataError(
                    f"test images are {theirs}, training images {ours} (rows, columns, channels); "
                    "both have to agree"
                )
        return self._whole(test, device)


def models(model: Any, dimensions: Mapping[str, int], **cells: Any) -> ImageModels:
    """The networks of the model's space for inputs and outputs of known size, without data.

    `cells` are the `space` and `operations` of another space of the same layers.
    """
    sizes: dict[str, Any] = dict(dimensions)
    return ImageModels(model, **sizes, **cells)


def open_task(run: RunConfig, model: Any, data: Any, **cells: Any) -> ImageTask:
    """The task of a run's data set; DataError or ConfigError where it cannot be used."""
    assert run.dataset is not None, "the command line resolves the data set first"
    return ImageTask(run.dataset, model, data, run, **cells)
