"""FAMILY: images, as the engine and the command line see them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.config import RunConfig
from sgas.errors import unknown_name
from sgas.family import Family, Models, Operations, Preparation, Space, Task
from sgas_cnn.config import (
    IMAGE_SPACE,
    NASBENCH201_SPACE,
    ImageDataConfig,
    ImageModelConfig,
    NasBench201Config,
)
from sgas_cnn.datasets import DATASETS, DatasetEntry
from sgas_cnn.library import LIBRARY
from sgas_cnn.nasbench201_text import from_nasbench201
from sgas_cnn.published import load_published, published_names

if TYPE_CHECKING:
    from sgas.exporting.forms import NetworkForm

OPERATION_GROUPS = {
    "skip_connect": "skip",
    "max_pool_3x3": "pooling",
    "avg_pool_3x3": "pooling",
    "sep_conv_3x3": "separable",
    "sep_conv_5x5": "separable",
    "sep_conv_7x7": "separable",
    "dil_conv_3x3": "dilated",
    "dil_conv_5x5": "dilated",
    "conv_7x1_1x7": "convolution",
    "nor_conv_1x1": "1x1 convolution",
    "nor_conv_3x3": "convolution",
}


def default_preset(dataset: str, space: str) -> str:
    """`demo` for digits, the published for CIFAR-10 and ImageNet, `small` for your own folders."""
    if dataset == "cifar10" and space == "nasbench201":
        return "benchmark"
    if dataset in ("cifar10", "imagenet"):
        return "imagenet" if dataset == "imagenet" else "paper"
    return "demo" if dataset in DATASETS else "small"


def space_of(dataset: str, space: str | None) -> str:
    """The space that was asked for: any data set of images fits both; `image` by default."""
    if space is not None and space not in SPACES:
        raise unknown_name("search space", space, SPACES)
    return space or IMAGE_SPACE.name


def _open_task(run: RunConfig, model: Any, data: Any) -> Task:
    from sgas_cnn.task import open_task

    return open_task(run, model, data)


def _models(model: Any, dimensions: Mapping[str, int]) -> Models:
    from sgas_cnn.task import models

    return models(model, dimensions)


def _preparation(fields: Mapping[str, Any]) -> Preparation:
    from sgas_cnn.preparation import ImagePreparation

    lists = {name: tuple(fields[name]) for name in ("mean", "std")}  # JSON knows no tuples
    return ImagePreparation(**{**fields, **lists})


def _image_form(network: Any, preparation: Any, example: Any) -> NetworkForm:
    from sgas_cnn.export import image_form

    return image_form(network, preparation, example)


def _nasbench201_form(network: Any, preparation: Any, example: Any) -> NetworkForm:
    from sgas_cnn.export import nasbench201_form

    return nasbench201_form(network, preparation, example)


def _image_operations() -> Operations:
    from sgas_cnn.ops.cases import image_cases
    from sgas_cnn.ops.image import IMAGE_OPERATIONS
    from sgas_cnn.ops.operation import Operation

    return Operations(IMAGE_OPERATIONS, Operation, image_cases)


def _nasbench201_operations() -> Operations:
    from sgas_cnn.ops.cases import nasbench201_cases
    from sgas_cnn.ops.nasbench201 import NASBENCH201_TABLE
    from sgas_cnn.ops.operation import Operation

    return Operations(NASBENCH201_TABLE, Operation, nasbench201_cases)


def _check_folder(folder: str, target: str) -> dict[str, Any]:
    from sgas.own.class_folders import holds_classes
    from sgas_cnn.datasets.folder import describe_folder
    from sgas_cnn.datasets.pictures import describe_pictures

    if holds_classes(Path(folder)):
        return describe_pictures(folder)
    return describe_folder(folder, target)


def _keep_own(dataset: Any, test: Any, root: str, target: str) -> Path:
    from sgas_cnn.own_data import keep_own

    return keep_own(dataset, test, root, target)


CIFAR10 = {"in_channels": 3, "num_classes": 10, "image_size": 32}

SPACES = {
    space.name: Space(
        space,
        "images",
        model_config,
        ImageDataConfig,
        _open_task,
        _models,
        _preparation,
        CIFAR10,
        operations,
        DATASETS,
        DatasetEntry,
        form=form,
        from_text=from_text,
    )
    for space, model_config, operations, form, from_text in (
        (IMAGE_SPACE, ImageModelConfig, _image_operations, _image_form, None),
        (
            NASBENCH201_SPACE,
            NasBench201Config,
            _nasbench201_operations,
            _nasbench201_form,
            from_nasbench201,
        ),
    )
}

FAMILY = Family(
    name="cnn",
    home="sgas_cnn.family",
    title="greedy architecture search for images",
    package="sgas_cnn",
    default_dataset="digits",
    spaces=SPACES,
    operation_groups=OPERATION_GROUPS,
    default_preset=default_preset,
    space_of=space_of,
    check_folder=_check_folder,
    keep_own=_keep_own,
    published_names=published_names,
    load_published=load_published,
    library=LIBRARY,
)
