"""FAMILY: point clouds and graphs, as the engine and the command line see them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.config import RunConfig
from sgas.errors import DataError, InputError, unknown_name
from sgas.family import Family, Models, Operations, Preparation, Space, Task
from sgas_gcn.config import (
    GRAPH_SPACE,
    NASBENCHGRAPH_SPACE,
    POINT_SPACE,
    GraphDataConfig,
    GraphModelConfig,
    NasBenchGraphConfig,
    PointDataConfig,
    PointModelConfig,
)
from sgas_gcn.datasets import DATASETS, DatasetEntry
from sgas_gcn.datasets.graphs import GRAPH_DATASETS, GraphEntry
from sgas_gcn.datasets.kind import GRAPH, POINT, kind_of, labels_graphs, looks_like_path
from sgas_gcn.library import LIBRARY
from sgas_gcn.published import load_published, published_names

if TYPE_CHECKING:
    from sgas.exporting.forms import NetworkForm

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
    "gcn": "mean and sum",
    "cheb": "spectral",
    "arma": "spectral",
    "graph": "mean and sum",
    "fc": "point-wise",
    "skip": "skip",
}

PRESETS = {
    "shapes": "demo",
    "tissues": "demo",
    "modelnet10": "paper",
    "modelnet40": "paper",
    "ppi": "paper",
    **dict.fromkeys(("cora", "citeseer", "pubmed"), "citation"),
}
NASBENCHGRAPH_PRESETS = {"tissues": "demo", "cora": "cora", "citeseer": "citeseer"}


def default_preset(dataset: str, space: str) -> str:
    """`demo` for generated data, that of the data set where there is one; of your own, `graphs` or
    `small`.
    """
    if space == NASBENCHGRAPH_SPACE.name:
        return NASBENCHGRAPH_PRESETS.get(dataset, "small")
    own = "graphs" if space == GRAPH_SPACE.name and labels_graphs(dataset) else "small"
    return PRESETS.get(dataset, own)


def space_of(dataset: str, space: str | None) -> str:
    """The search space of a data set; InputError where another one is asked for."""
    if space is not None and space not in SPACES:
        raise unknown_name("search space", space, SPACES)
    if dataset not in FAMILY.datasets and not looks_like_path(dataset):
        known = unknown_name("data set", dataset, FAMILY.datasets, DataError)
        raise DataError(f"{known}, or give the path of a folder with your own")
    kind = kind_of(dataset)
    if space is not None and kind not in (space, SPACES[space].like):
        raise InputError(f"space is {space!r}, but {dataset} needs {kind!r}: leave space out")
    return space or kind


def _open_points(run: RunConfig, model: Any, data: Any) -> Task:
    from sgas_gcn import task

    return task.open_task(run, model, data)


def _open_graphs(run: RunConfig, model: Any, data: Any) -> Task:
    from sgas_gcn import graph_task

    return graph_task.open_task(run, model, data)


def _point_models(model: Any, dimensions: Mapping[str, int]) -> Models:
    from sgas_gcn import task

    return task.models(model, dimensions)


def _graph_models(model: Any, dimensions: Mapping[str, int]) -> Models:
    from sgas_gcn import graph_task

    return graph_task.models(model, dimensions)


def _cloud_preparation(fields: Mapping[str, Any]) -> Preparation:
    from sgas_gcn.preparation import CloudPreparation

    return CloudPreparation(**fields)


def _graph_preparation(fields: Mapping[str, Any]) -> Preparation:
    from sgas_gcn.preparation import GraphPreparation

    return GraphPreparation(**fields)


def _cloud_form(network: Any, preparation: Any, example: Any) -> NetworkForm:
    from sgas_gcn.export import cloud_form

    return cloud_form(network, preparation, example)


def _graph_form(network: Any, preparation: Any, example: Any) -> NetworkForm:
    from sgas_gcn.export import graph_form

    return graph_form(network, preparation, example)


def _nasbenchgraph_form(network: Any, preparation: Any, example: Any) -> NetworkForm:
    from sgas_gcn.export import nasbenchgraph_form

    return nasbenchgraph_form(network, preparation, example)


def _point_operations() -> Operations:
    from sgas_gcn.ops.cases import point_cases
    from sgas_gcn.ops.operation import Operation
    from sgas_gcn.ops.point import POINT_OPERATIONS

    return Operations(POINT_OPERATIONS, Operation, point_cases)


def _graph_operations() -> Operations:
    from sgas_gcn.ops.cases import graph_cases
    from sgas_gcn.ops.graph import GRAPH_OPERATIONS
    from sgas_gcn.ops.operation import Operation

    return Operations(GRAPH_OPERATIONS, Operation, graph_cases)


def _nasbenchgraph_operations() -> Operations:
    from sgas_gcn.ops.cases import nasbenchgraph_cases
    from sgas_gcn.ops.nasbenchgraph import NASBENCHGRAPH_TABLE, NodeOperation

    return Operations(NASBENCHGRAPH_TABLE, NodeOperation, nasbenchgraph_cases)


def _check_folder(folder: str, target: str) -> dict[str, Any]:
    if kind_of(folder) == GRAPH:
        from sgas_gcn.datasets.graph_folder import describe_graph_file

        return describe_graph_file(folder, target)
    from sgas.own.class_folders import holds_classes
    from sgas_gcn.datasets.cloud_files import describe_clouds
    from sgas_gcn.datasets.folder import describe_folder

    if holds_classes(Path(folder)):
        return describe_clouds(folder)
    return describe_folder(folder, target)


def _keep_own(dataset: Any, test: Any, root: str, target: str) -> Path:
    from sgas_gcn.own_data import keep_own

    return keep_own(dataset, test, root, target)


SPACES = {
    POINT: Space(
        POINT_SPACE,
        "point clouds",
        PointModelConfig,
        PointDataConfig,
        _open_points,
        _point_models,
        _cloud_preparation,
        {"in_channels": 3, "num_classes": 40},
        _point_operations,
        DATASETS,
        DatasetEntry,
        form=_cloud_form,
    ),
    GRAPH: Space(
        GRAPH_SPACE,
        "graphs",
        GraphModelConfig,
        GraphDataConfig,
        _open_graphs,
        _graph_models,
        _graph_preparation,
        {"in_channels": 50, "num_outputs": 121},
        _graph_operations,
        GRAPH_DATASETS,
        GraphEntry,
        form=_graph_form,
    ),
    NASBENCHGRAPH_SPACE.name: Space(
        NASBENCHGRAPH_SPACE,
        "graphs",
        NasBenchGraphConfig,
        GraphDataConfig,
        _open_graphs,
        _graph_models,
        _graph_preparation,
        {"in_channels": 1433, "num_outputs": 7},
        _nasbenchgraph_operations,
        GRAPH_DATASETS,
        GraphEntry,
        form=_nasbenchgraph_form,
        like=GRAPH,
        compiled=False,
    ),
}

FAMILY = Family(
    name="gcn",
    home="sgas_gcn.family",
    title="greedy architecture search for point clouds and graphs",
    package="sgas_gcn",
    default_dataset="shapes",
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
