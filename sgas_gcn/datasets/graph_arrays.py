"""What a split of a graph data set is.

Dimensions: N nodes of a graph, D features, E edges, R labelled nodes, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgas.data import hash_of
from sgas.errors import DataError

if TYPE_CHECKING:
    import numpy as np


def attribute_rows(array: np.ndarray, num_edges: int, name: str) -> np.ndarray | None:
    """Attributes of edges `[E, A]`, of `[E]` one each; None where an edge has none of them.

    DataError, about `name`, where there is not a row for each edge.
    """
    if array.ndim not in (1, 2) or len(array) != num_edges:
        raise DataError(f"{name} has shape {list(array.shape)} for {num_edges} edges: a row each")
    rows = array if array.ndim == 2 else array[:, None]
    return rows if rows.shape[1] else None


@dataclass(frozen=True)
class GraphArrays:
    """One graph: features `x` float32 `[N, D]`, `edges` int64 `[2, E]`, sources above targets.

    An undirected edge is there in both directions. `weights` of edges are float32 `[E]`, none below
    0 (None: all 1), `attributes` float32 `[E, A]` (None: there are none). `targets` are those of
    the nodes `nodes` int64 `[R]` (None: of all), or of the graph, with R 1: bool `[R, L]` for
    several labels at once, float32 `[R, L]` for numbers, int64 `[R]` for one class.
    """

    x: np.ndarray
    edges: np.ndarray
    targets: np.ndarray
    nodes: np.ndarray | None = None
    weights: np.ndarray | None = None
    attributes: np.ndarray | None = None


@dataclass(frozen=True)
class GraphSplit:
    """One split: its graphs (none where the set has no such split) and the names of the labels.

    `transductive` says that all splits have the same one graph and differ in the labelled nodes,
    `per_graph` that targets are those of graphs. `remarks` say what is not used or was changed.
    """

    graphs: tuple[GraphArrays, ...]
    label_names: tuple[str, ...]
    multi_label: bool
    transductive: bool = False
    per_graph: bool = False
    remarks: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """A hash of the graphs: the same for the same data, wherever they lie."""
        arrays = [part for graph in self.graphs for part in (graph.x, graph.edges, graph.targets)]
        arrays += [graph.weights for graph in self.graphs if graph.weights is not None]
        arrays += [graph.attributes for graph in self.graphs if graph.attributes is not None]
        return hash_of(*arrays, *(graph.nodes for graph in self.graphs), self.label_names)

    @property
    def weighted(self) -> bool:
        """Whether edges have weights."""
        return any(graph.weights is not None for graph in self.graphs)

    @property
    def edge_channels(self) -> int:
        """Attributes of an edge (A); DataError where graphs differ in them."""
        widths = {0 if g.attributes is None else g.attributes.shape[1] for g in self.graphs}
        if len(widths) > 1:
            counts = ", ".join(map(str, sorted(widths)))
            raise DataError(f"graphs differ in their attributes of edges: {counts} an edge")
        return int(max(widths, default=0))

    @property
    def num_features(self) -> int:
        """Features of a node (D); the split has to have graphs."""
        return int(self.graphs[0].x.shape[1])
