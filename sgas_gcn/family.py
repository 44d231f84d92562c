"""FAMILY: point clouds and graphs, as the engine and the command line see them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgas.config import RunConfig
from sgas.family import DatasetInfo, Family, Models, Task
from sgas_gcn.config import POINT_SPACE, PointDataConfig, PointModelConfig
from sgas_gcn.datasets import DATASETS
from sgas_gcn.published import load_published, published_names

OPERATION_GROUPS = {
    "skip_connect": "skip",
    "conv_1x1": "point-wise",
    "edge_conv": "edge",
    "mr_conv": "relative max",
    "gat": "attention",
    "semi_gcn": "mean and sum",
    "gin": "mean and sum",
    "sage": "sage",
    "rel_sage": "sage",
}


def default_preset(dataset: str) -> str:
    """`demo` for generated shapes, `paper` for ModelNet, `small` for your own folders."""
    if dataset in ("modelnet10", "modelnet40"):
        return "paper"
    return "demo" if dataset in DATASETS else "small"


def space_of(dataset: str) -> str:
    """The search space of a data set: every set so far holds point clouds."""
    return POINT_SPACE.name


def _open_task(run: RunConfig, model: Any, data: Any) -> Task:
    from sgas_gcn.task import open_task

    return open_task(run, model, data)


def _models(space: str, model: Any, dimensions: Mapping[str, int]) -> Models:
    from sgas_gcn.task import models

    return models(space, model, dimensions)


def _check_folder(folder: str) -> dict[str, Any]:
    from sgas_gcn.datasets.folder import describe_folder

    return describe_folder(folder)


FAMILY = Family(
    name="gcn",
    title="greedy architecture search for point clouds",
    package="sgas_gcn",
    datasets={e.name: DatasetInfo(e.name, "point clouds", e.help) for e in DATASETS.values()},
    default_dataset="shapes",
    spaces={POINT_SPACE.name: POINT_SPACE},
    model_config=PointModelConfig,
    data_config=PointDataConfig,
    operation_groups=OPERATION_GROUPS,
    default_preset=default_preset,
    space_of=space_of,
    open_task=_open_task,
    models=_models,
    paper_dimensions={POINT_SPACE.name: {"in_channels": 3, "num_classes": 40}},
    check_folder=_check_folder,
    published_names=published_names,
    load_published=load_published,
)
