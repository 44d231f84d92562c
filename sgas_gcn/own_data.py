"""Clouds and graphs that a program holds in memory, as a folder that every verb can open.

Dimensions: P points, C channels, N nodes, E edges, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgas.config import AUTO
from sgas.errors import DataError
from sgas.own.keep import Arrays, as_array, keep, labelled, name_of, pairs, stacked
from sgas.own.targets import plain
from sgas_gcn.datasets.graph_arrays import attribute_rows

MASKS = {"train": "train_mask", "val": "val_mask", "test": "test_mask"}
USED = ("x", "edge_index", "adj_t", "edge_weight", "edge_attr", "y")
NOT_DATA = ("batch", "ptr", "num_nodes")  # what a graph may have beside what it holds


def keep_own(dataset: Any, test: Any | None, root: str, target: str = AUTO) -> Path:
    """The folder of a data set held in memory, with or without a test part.

    Clouds: a map-style `torch.utils.data.Dataset` of (points `[P, C]`, label), or a pair of arrays;
    a label is that of a cloud, or `[P]` those of its points.
    Graphs: `torch_geometric.data.Data` with edge_index and y, and x if there are features; one with
    train_mask, val_mask and test_mask, or several, in a list, a Batch or a data set of PyG's, with
    y of nodes or of graphs; where they have `pos` and no edges, each is a cloud. DataError where it
    is none of these, or its labels are not what a `target` can be.
    """
    for part in (dataset, test):
        refuse_hetero(part)
    dataset, test = _several(dataset), _several(test)
    if is_graph(dataset):
        if test is not None:
            raise DataError("one graph holds its test nodes in test_mask: leave test out")
        return keep(root, name_of(dataset), {"graph": _one_graph(dataset, target)})
    row: Any = dataset if isinstance(dataset, Sequence | _pyg_dataset()) else ()
    if len(row) and is_graph(row[0]):
        if len(row) == 1 and test is None and getattr(row[0], MASKS["train"], None) is not None:
            return keep(root, name_of(dataset), {"graph": _one_graph(row[0], target)})
        if _edges(row[0], "") is not None:
            return keep(root, name_of(dataset), {"graphs": _graphs(dataset, test, target)})
        dataset, test = Clouds(dataset), None if test is None else Clouds(test)
    files = {"train": _clouds(dataset, target)}
    if test is not None:
        files["test"] = _clouds(test, target)
    return keep(root, name_of(dataset).strip("_"), files)


def _pyg_dataset() -> Any:
    from torch_geometric.data import Dataset

    return Dataset


def _several(dataset: Any) -> Any:
    """The graphs of a Batch as a list; everything else as it is."""
    return dataset.to_data_list() if hasattr(dataset, "to_data_list") else dataset


def refuse_hetero(dataset: Any) -> None:
    """DataError for a graph of several kinds of nodes, or of events, alone or first in a list."""
    from torch_geometric.data import HeteroData, TemporalData

    first = dataset[0] if isinstance(dataset, list | tuple) and dataset else dataset
    if isinstance(first, HeteroData):
        raise DataError(
            "the graph is a HeteroData, with nodes and edges of several kinds: heterogeneous "
            "graphs are not supported; a search takes one kind of each: give its to_homogeneous() "
            "with x and y"
        )
    if isinstance(first, TemporalData):
        raise DataError(
            "the graph is a TemporalData: temporal graphs are not supported; give Data with "
            "edge_index, x and y"
        )


def is_graph(value: Any) -> bool:
    """Whether a value is PyG's: it alone has all of these."""
    return all(hasattr(value, name) for name in ("edge_index", "num_nodes", "to_dict"))


def unbatched(data: Any) -> Any:
    """The graphs of one of PyG's batches as a list; everything else as it is."""
    return data.to_data_list() if is_graph(data) and hasattr(data, "to_data_list") else data


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
        deep = [part[:, None] if part.ndim == 1 else part for part in parts]
        if any(part.ndim != 2 or len(part) != len(deep[0]) for part in deep):
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise DataError(f"graph {number} has pos and x of {shapes}: give a row for each point")
        return np.concatenate(deep, axis=1)


def _clouds(dataset: Any, target: str) -> Arrays:
    points, labels = [], []
    for sample, label in pairs(dataset, "cloud"):
        points.append(as_array(sample))
        labels.append(label)
    samples = stacked(points, "cloud")
    arrays = dict(labelled("points", samples, labels, dataset, target, "point"))
    if isinstance(dataset, Clouds):
        arrays |= _remarks(dataset.graphs, ("pos", "x", "y"))
    return arrays


def _used(graphs: Sequence[Any]) -> Sequence[str]:
    """What graphs may hold that is used; attributes of edges of an `adj_t` have no order."""
    sorted_edges = any(graph.edge_index is None for graph in graphs)
    return [name for name in USED if name != "edge_attr" or not sorted_edges]


def _remarks(graphs: Sequence[Any], used: Sequence[str]) -> Arrays:
    """What of graphs is not used, as an array of a file; empty where all is."""
    names = dict.fromkeys(name for graph in graphs for name in graph.to_dict())
    unused = [name for name in names if name not in (*used, *NOT_DATA)]
    return {"remarks": np.array([f"not used: {', '.join(unused)}"])} if unused else {}


def _weights(graph: Any, edges: np.ndarray, name: str) -> np.ndarray | None:
    """The weights `[E]` of the edges of a graph, or the values of its `adj_t`; None without any."""
    given = getattr(graph, "edge_weight", None)
    if given is None and graph.edge_index is None:
        given = _adjacency(graph).values()
        return None if (given == 1).all() else as_array(given)
    weights = None if given is None else as_array(given).reshape(-1)
    if weights is not None and len(weights) != len(edges):
        raise DataError(
            f"edge_weight{name} has shape {list(as_array(given).shape)} for {len(edges)} edges: "
            "one each"
        )
    return weights


def _attributes(graph: Any, edges: np.ndarray, name: str) -> np.ndarray | None:
    """The attributes `[E, A]` of the edges of a graph; None without any."""
    given = getattr(graph, "edge_attr", None)
    if given is None or graph.edge_index is None:
        return None
    return attribute_rows(as_array(given), len(edges), f"edge_attr{name}")


def _adjacency(graph: Any) -> Any:
    """The sparse `adj_t` of a graph as a tensor of coordinates: targets, then sources."""
    transposed = graph.adj_t
    if hasattr(transposed, "to_torch_sparse_coo_tensor"):
        transposed = transposed.to_torch_sparse_coo_tensor()
    return transposed.to_sparse_coo().coalesce()


def _edges(graph: Any, name: str) -> np.ndarray | None:
    """The edges `[E, 2]` of a graph, sources first, also of a sparse `adj_t`; None without any.

    `name` is what the graph is called. DataError where they are no list of pairs of nodes.
    """
    if graph.edge_index is None:
        if getattr(graph, "adj_t", None) is None:
            return None
        target_source: np.ndarray = _adjacency(graph).indices().numpy()
        return target_source[::-1].T
    edges = as_array(graph.edge_index)
    if edges.ndim != 2 or edges.shape[0] != 2:
        turned = edges.ndim == 2 and edges.shape[1] == 2
        advice = ": give edge_index.t().contiguous()" if turned else ""
        raise DataError(
            f"edge_index{name} has shape {list(edges.shape)}; wanted is [2, edges], sources above "
            f"targets{advice}"
        )
    if edges.dtype.kind not in "iu":
        raise DataError(f"edge_index{name} is {edges.dtype}; give integers, the numbers of nodes")
    return edges.T


def _parts(graph: Any, name: str) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Features `[N, D]` or None, edges `[E, 2]` and labels of a graph; DataError if some lack."""
    edges = _edges(graph, name)
    missing = [what for what, value in (("edge_index", edges), ("y", graph.y)) if value is None]
    if edges is None or graph.y is None:
        if getattr(graph, "edge_label", None) is not None:
            raise DataError(
                "links are to be predicted (edge_label), which is not supported: give y"
            )
        raise DataError(
            f"the graph{name} has no {', '.join(missing)}; x, edge_index and y are needed"
        )
    x = None if graph.x is None else as_array(graph.x)
    return x[:, None] if x is not None and x.ndim == 1 else x, edges, as_array(graph.y)


def _one_graph(graph: Any, target: str) -> Arrays:
    x, edges, labels = _parts(graph, "")
    masks = {
        split: as_array(getattr(graph, name))
        for split, name in MASKS.items()
        if getattr(graph, name, None) is not None
    }
    if len(labels.reshape(-1)) == 1 != graph.num_nodes:
        raise DataError(
            f"the graph has {graph.num_nodes} nodes and one label: give a list of graphs to learn "
            "labels of graphs"
        )
    plain(labels, target, "node")
    weights, attributes = _weights(graph, edges, ""), _attributes(graph, edges, "")
    return {
        **({} if x is None else {"x": x}),
        **({} if weights is None else {"edge_weight": weights}),
        **({} if attributes is None else {"edge_attr": attributes}),
        "edge": edges,
        "label": labels,
        "directed": np.array(True),  # PyG has an undirected edge in both directions already
        **masks,
        **_remarks([graph], (*_used([graph]), *MASKS.values())),
    }


def _graphs(dataset: Sequence[Any], test: Sequence[Any] | None, target: str) -> Arrays:
    graphs = [("train", graph) for graph in _each(dataset)]
    graphs += [("test", graph) for graph in _each(test or ())]
    parts = [_parts(graph, f" of graph {number}") for number, (_, graph) in enumerate(graphs)]
    sizes = [int(graph.num_nodes) for _, graph in graphs]
    labels = [y[None] if y.ndim == 0 else y for _, _, y in parts]
    of_nodes = all(len(y) == size for y, size in zip(labels, sizes, strict=True))
    if not of_nodes:
        labels = [y if len(y) == 1 else y[None] for y in labels]
        for number, (y, size) in enumerate(zip(labels, sizes, strict=True)):
            if y.shape != labels[0].shape:
                raise DataError(
                    f"graph {number} has {size} nodes and y of {list(parts[number][2].shape)}, "
                    f"graph 0 {sizes[0]} and {list(parts[0][2].shape)}: give all a label a node, "
                    "or all one label, or one vector, a graph"
                )
    y = np.concatenate(labels)
    plain(y, target, "node" if of_nodes else "graph")
    widths = {None if x is None else x.shape[1] for x, _, _ in parts}
    if len(widths) > 1:
        raise DataError(f"graphs differ in their features: {', '.join(map(str, widths))} a node")
    features = {} if None in widths else {"x": np.concatenate([as_array(x) for x, _, _ in parts])}
    weights = [
        _weights(graph, edges, f" of graph {number}")
        for number, ((_, graph), (_, edges, _)) in enumerate(zip(graphs, parts, strict=True))
    ]
    if any(own is not None for own in weights):
        ones = (np.ones(len(edges), np.float32) for _, edges, _ in parts)
        every = [one if own is None else own for own, one in zip(weights, ones, strict=True)]
        features["edge_weight"] = np.concatenate(every)
    attributes = [
        _attributes(graph, edges, f" of graph {number}")
        for number, ((_, graph), (_, edges, _)) in enumerate(zip(graphs, parts, strict=True))
    ]
    per_edge = {
        0 if own is None else own.shape[1]
        for own, (_, edges, _) in zip(attributes, parts, strict=True)
        if len(edges)
    } or {0}
    if len(per_edge) > 1:
        counts = ", ".join(map(str, sorted(per_edge)))
        raise DataError(f"graphs differ in edge_attr: {counts} numbers an edge; give all the same")
    if per_edge != {0}:
        known = [own for own in attributes if own is not None and len(own)]
        features["edge_attr"] = np.concatenate(known)
    return {
        **features,
        "y": y,
        "edge": np.concatenate([edges for _, edges, _ in parts]),
        "node_ptr": np.cumsum([0, *sizes]),
        "edge_ptr": np.cumsum([0, *(len(edges) for _, edges, _ in parts)]),
        "split": np.array([split for split, _ in graphs]),
        "directed": np.array(True),
        **_remarks([graph for _, graph in graphs], _used([graph for _, graph in graphs])),
    }


def _each(graphs: Sequence[Any]) -> Iterator[Any]:
    """All graphs; one of PyG's data sets ends an iteration as lists do."""
    for number in range(len(graphs)):
        yield graphs[number]
