"""Clouds and graphs that a program holds in memory, as a folder that every verb can open.

Dimensions: P points, C channels, N nodes, E edges, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgas.errors import DataError
from sgas.own.keep import Arrays, as_array, keep, labelled, name_of, pairs, stacked

MASKS = {"train": "train_mask", "val": "val_mask", "test": "test_mask"}


def keep_own(dataset: Any, test: Any | None, root: str) -> Path:
    """The folder of a data set held in memory, with or without a test part.

    Clouds: a map-style `torch.utils.data.Dataset` of (points `[P, C]`, label), or a pair of arrays.
    Graphs: `torch_geometric.data.Data` with x, edge_index and y, one with train_mask, val_mask and
    test_mask, or a list of several; where they have `pos` and no edges, each is a cloud. DataError
    where it is none of these.
    """
    for part in (dataset, test):
        refuse_hetero(part)
    if is_graph(dataset):
        if test is not None:
            raise DataError("one graph holds its test nodes in test_mask: leave test out")
        return keep(root, name_of(dataset), {"graph": _one_graph(dataset)})
    row: Any = dataset if isinstance(dataset, Sequence | _pyg_dataset()) else ()
    if len(row) and is_graph(row[0]):
        if row[0].edge_index is not None:
            return keep(root, name_of(dataset), {"graphs": _graphs(dataset, test)})
        dataset, test = Clouds(dataset), None if test is None else Clouds(test)
    files = {"train": _clouds(dataset)}
    if test is not None:
        files["test"] = _clouds(test)
    return keep(root, name_of(dataset).strip("_"), files)


def _pyg_dataset() -> Any:
    from torch_geometric.data import Dataset

    return Dataset


def refuse_hetero(dataset: Any) -> None:
    """DataError for a graph of several kinds of nodes, alone or first in a list."""
    from torch_geometric.data import HeteroData

    first = dataset[0] if isinstance(dataset, list | tuple) and dataset else dataset
    if isinstance(first, HeteroData):
        raise DataError(
            "the graph is a HeteroData, with nodes and edges of several kinds, and a search takes "
            "one kind of each: give its to_homogeneous() with x and y"
        )


def is_graph(value: Any) -> bool:
    """Whether a value is PyG's: it alone has all of these."""
    return all(hasattr(value, name) for name in ("edge_index", "num_nodes", "to_dict"))


class Clouds:
    """PyG's clouds as pairs of points (with the features of x after pos) and label."""

    def __init__(self, graphs: Sequence[Any]) -> None:
        self.graphs = graphs

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, number: int) -> tuple[np.ndarray, Any]:
        return self.points(number), self.graphs[number].y

    def points(self, number: int) -> np.ndarray:
        """One cloud `[P, C]`; DataError where a graph is none."""
        graph = self.graphs[number]
        if graph.pos is None:
            raise DataError(f"graph {number} has no pos: it is no cloud")
        parts = [as_array(part) for part in (graph.pos, graph.x) if part is not None]
        return np.concatenate(parts, axis=1)


def _clouds(dataset: Any) -> Arrays:
    points, labels = [], []
    for sample, label in pairs(dataset, "cloud"):
        points.append(np.asarray(as_array(sample), np.float32))
        labels.append(label)
    return labelled("points", stacked(points, "cloud"), labels, dataset)


def _one_graph(graph: Any) -> Arrays:
    missing = [name for name in ("x", "edge_index", "y") if getattr(graph, name) is None]
    if missing:
        raise DataError(f"the graph has no {', '.join(missing)}; x, edge_index and y are needed")
    masks = {}
    for split, name in MASKS.items():
        mask = getattr(graph, name, None)
        if mask is not None:
            masks[split] = _first_column(as_array(mask))
    return {
        "x": np.asarray(as_array(graph.x), np.float32),
        "edge": as_array(graph.edge_index).T,
        "label": _targets(graph),
        "directed": np.array(True),  # PyG has an undirected edge in both directions already
        **masks,
    }


def _first_column(mask: np.ndarray) -> np.ndarray:
    """Some of PyG's data sets have ten splits, a column each; the first is the one that is used."""
    return mask if mask.ndim == 1 else mask[:, 0]


def _targets(graph: Any) -> np.ndarray:
    """y `[N]` of classes, or `[N, L]` of 0 and 1."""
    targets = as_array(graph.y)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    return targets.astype(np.uint8) if targets.ndim == 2 else targets


def _graphs(dataset: Sequence[Any], test: Sequence[Any] | None) -> Arrays:
    graphs = [("train", graph) for graph in _each(dataset)]
    graphs += [("test", graph) for graph in _each(test or ())]
    each = [_one_graph(graph) for _, graph in graphs]
    for number, arrays in enumerate(each):
        if len(arrays["label"]) != len(arrays["x"]):
            raise DataError(
                f"graph {number} has {len(arrays['x'])} nodes and y of {len(arrays['label'])}; "
                "labels belong to nodes here, not to whole graphs"
            )
    return {
        "x": np.concatenate([arrays["x"] for arrays in each]),
        "y": np.concatenate([arrays["label"] for arrays in each]),
        "edge": np.concatenate([arrays["edge"] for arrays in each]),
        "node_ptr": np.cumsum([0, *(len(arrays["x"]) for arrays in each)]),
        "edge_ptr": np.cumsum([0, *(len(arrays["edge"]) for arrays in each)]),
        "split": np.array([split for split, _ in graphs]),
        "directed": np.array(True),
    }


def _each(graphs: Sequence[Any]) -> Iterator[Any]:
    """All graphs; one of PyG's data sets ends an iteration as lists do."""
    for number in range(len(graphs)):
        yield graphs[number]
