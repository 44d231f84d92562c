"""TUDataset's text files: NAME_A.txt and others beside it, as arrays.

Format: Morris et al., "TUDataset", GRL+ workshop, ICML 2020. NAME_A has an edge a line, numbers of
nodes from 1; NAME_graph_indicator the graph of each node; NAME_graph_labels or
NAME_graph_attributes what is to be predicted, NAME_node_labels and NAME_node_attributes what is
known of nodes, NAME_edge_labels and NAME_edge_attributes what is known of edges.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sgas.errors import DataError

MOST_SORTS = 64  # kinds of edges, numbers from 0, which are one-hot by number


def read_tu_files(edges: Path) -> dict[str, np.ndarray]:
    """The arrays of `graph_file.py` from the files that `NAME_A.txt` is one of.

    DataError where a file is missing or holds something else.
    """
    stem = edges.name.removesuffix("_A.txt")

    def table(what: str, kind: type) -> np.ndarray | None:
        path = edges.with_name(f"{stem}_{what}.txt")
        if not path.exists():
            return None
        try:
            return np.loadtxt(path, kind, delimiter=",", ndmin=2, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no table of numbers ({error})") from None

    graph, edge = table("graph_indicator", np.int64), table("A", np.int64)
    labels = table("graph_labels", np.float64)
    target = table("graph_attributes", np.float64)
    names: dict[str, np.ndarray] = {}
    if labels is not None:
        values, target = np.unique(labels[:, 0], return_inverse=True)
        names["label_names"] = np.array([f"{value:.15g}" for value in values])
    if graph is None or edge is None or target is None:
        raise DataError(
            f"{edges.parent} lacks {stem}_graph_indicator.txt or {stem}_graph_labels.txt beside "
            f"{edges.name}: put it there"
        )
    graph = graph[:, 0]
    if not len(graph) or edge.shape[1] != 2 or edge.min() < 1 or edge.max() > len(graph):
        raise DataError(f"{edges} names nodes that are not there: 1 to {len(graph)} are")
    order = np.argsort(graph, kind="stable")
    place, values = np.empty_like(order), graph[order]
    place[order] = np.arange(len(order))
    edge = place[edge - 1]
    first = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    of_edge = np.searchsorted(first, edge[:, 0], side="right") - 1
    by_graph = np.argsort(of_edge, kind="stable")
    if len(first) != len(target):
        raise DataError(
            f"{edges.parent} has {len(first)} graphs in {stem}_graph_indicator.txt and "
            f"{len(target)} labels of graphs: write one each"
        )
    arrays = {
        "edge": edge[by_graph] - first[of_edge[by_graph]][:, None],
        "edge_ptr": np.concatenate([[0], np.cumsum(np.bincount(of_edge, minlength=len(first)))]),
        "node_ptr": np.append(first, len(graph)),
        "y": target,
        **names,
    }
    features, kinds = table("node_attributes", np.float64), table("node_labels", np.int64)
    if features is not None:
        arrays["node_attr"] = features[order]
    if kinds is not None:
        arrays["node_label"] = np.unique(kinds[:, 0], return_inverse=True)[1][order]
    of_edges = []
    sorts, attributes = table("edge_labels", np.int64), table("edge_attributes", np.float64)
    for what, rows in (("edge_labels", sorts), ("edge_attributes", attributes)):
        if rows is not None and len(rows) != len(edge):
            raise DataError(
                f"{edges.parent} has {len(edge)} edges in {edges.name} and {len(rows)} lines in "
                f"{stem}_{what}.txt: write one each"
            )
    for column in () if sorts is None else sorts.T:
        if not 0 <= column.min() <= column.max() < MOST_SORTS:
            raise DataError(
                f"{stem}_edge_labels.txt has labels from {column.min()} to {column.max()}; 0 to "
                f"{MOST_SORTS - 1} can be: write them in {stem}_edge_attributes.txt"
            )
        of_edges.append(np.eye(column.max() + 1)[column])
    if attributes is not None:
        of_edges.append(attributes)
    if of_edges:
        arrays["edge_attr"] = np.concatenate(of_edges, axis=1)[by_graph]
    return arrays
