"""How the inputs of trained networks of clouds and of graphs are made of what a user has.

Dimensions: B clouds, P points of a cloud, C channels, N nodes of a graph, D features, E edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.family import Samples
from sgas.labels import Labels, ManyLabels, ManyLabelsByGraph, OneClass, restored
from sgas.own.class_folders import is_data_set
from sgas.own.npz import read_headers
from sgas.own.samples import array_of, in_chunks, is_array_file, numbers_of, samples_of
from sgas.own.targets import rows_of
from sgas_gcn.blocks import partition
from sgas_gcn.datasets import DATASETS
from sgas_gcn.datasets.cloud_files import READERS, read_cloud
from sgas_gcn.datasets.folder import near_origin
from sgas_gcn.datasets.graph_arrays import GraphArrays, attribute_rows
from sgas_gcn.datasets.graph_file import degree_features
from sgas_gcn.datasets.graph_folder import load_unlabelled
from sgas_gcn.drawing import chosen_points, drawn_order
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.own_data import Clouds, is_graph, refuse_hetero, unbatched
from sgas_gcn.parts import PartedNeighbors, gains_by_parts

if TYPE_CHECKING:
    from sgas.config import RunConfig

CHOSEN, FIRST = "chosen", "first"
WITH_NORMALS = ", of which three are the place and three the normal (a mesh has both)"


@dataclass(frozen=True)
class CloudPreparation:
    """Clouds `[P, in_channels]`, each of any size from `least_points` on.

    Of more than `num_points` points so many are taken: the first (`drawn` FIRST), or a choice by
    chance (CHOSEN) that follows from the cloud and `seed` (`sgas_gcn.drawing`). `target` is how
    answers were compared with targets (`sgas.labels.kept`). With `per_point` all points are asked,
    of a cloud with more than `num_points` in parts of so many, each drawn from the whole cloud.
    """

    in_channels: int
    num_points: int
    least_points: int
    drawn: str
    seed: int
    target: Mapping[str, Any] = field(default_factory=dict)
    per_point: bool = False

    @property
    def row_name(self) -> str:
        """A row of answers a cloud, or a point."""
        return "point" if self.per_point else ""

    @property
    def labels(self) -> Labels:
        """One class a cloud or a point, many labels or numbers, as in training."""
        return restored(self.target)

    def read(self, data: Any, run: RunConfig, options: Any) -> Samples:
        """Clouds from arrays, lists, data sets, PyG's data with `pos`, and files."""
        if isinstance(data, str | Path):
            path = Path(data)
            if path.is_file() and path.suffix.lower() in READERS and path.suffix.lower() != ".npy":
                return self._of_files([path], True)
            own = str(path) not in DATASETS and path.is_dir()
            if own and not is_data_set(path, options.test_fraction):
                found = (f for f in path.rglob("*") if f.suffix.lower() in READERS)
                return self._of_files(sorted(found), False)
            if not is_array_file(path):
                return self._test_part(str(data), run, options)
            data = array_of(path, "points")
        clouds, alone = samples_of(unbatched(data), "cloud", _is_one_cloud)
        if all(isinstance(cloud, str | Path) for cloud in clouds):
            return self._of_files([Path(cloud) for cloud in clouds], alone)
        items = [self._checked(number, cloud) for number, cloud in enumerate(clouds)]
        return Samples(items, [str(number) for number in range(len(items))], alone)

    def _of_files(self, paths: Sequence[Path], alone: bool) -> Samples:
        """The clouds in files, or of meshes; coordinates alone where the network has no more."""
        if not paths:
            raise DataError(f"there are no clouds to predict ({', '.join(READERS)})")
        width = 3 if self.in_channels == 3 else None
        clouds = (read_cloud(path)[:, :width] for path in paths)
        items = [self._checked(number, cloud) for number, cloud in enumerate(clouds)]
        return Samples(items, [str(path) for path in paths], alone)

    def _test_part(self, dataset: str, run: RunConfig, options: Any) -> Samples:
        from sgas_gcn.datasets import load_points

        arrays: LabelledArrays = load_points(
            dataset, "test", run.data_root, self.num_points, self.seed, options
        )
        items = [self._checked(number, cloud) for number, cloud in enumerate(arrays.inputs)]
        names, targets = [str(number) for number in range(len(items))], arrays.labels
        rows = () if arrays.rows is None else arrays.rows.tolist()
        if rows:
            targets = rows_of(targets)
        known = torch.from_numpy(targets) if bool(rows) == self.per_point else None
        return Samples(items, names, False, known, arrays.classes, rows)

    def _checked(self, number: int, cloud: Any) -> Tensor:
        """A cloud float32 `[P, C]` of at most `num_points` points."""
        array = numbers_of(Clouds([cloud]).points(0) if is_graph(cloud) else cloud, "cloud", number)
        if array.ndim != 2 or array.shape[1] != self.in_channels:
            raise DataError(
                f"cloud {number} has shape {list(array.shape)}; the network takes "
                f"[points, {self.in_channels}]{WITH_NORMALS if self.in_channels == 6 else ''}"
            )
        if len(array) < self.least_points:
            raise DataError(
                f"cloud {number} has {len(array)} points; the network looks at the "
                f"{self.least_points} nearest of a point: give as many at least"
            )
        points = torch.from_numpy(near_origin(array[None])[0][0])
        if not points.isfinite().all():
            raise DataError(f"cloud {number} has NaN or infinite points: correct or remove it")
        if len(points) <= self.num_points or self.per_point:
            return points
        if self.drawn == FIRST:
            return points[: self.num_points]
        return chosen_points(points.unsqueeze(0), self.num_points, self.seed)[0]

    def batches(
        self, items: Sequence[Tensor], batch_size: int, device: torch.device
    ) -> Iterator[tuple[Sequence[int], Tensor, Sequence[int]]]:
        """Clouds, or parts of them, of one size together, `[B, P, C]`."""
        parts = [(number, part) for number, item in enumerate(items) for part in self._parts(item)]
        for size in dict.fromkeys(len(part) for _, part in parts):
            same = [index for index, (_, part) in enumerate(parts) if len(part) == size]
            for chunk in in_chunks(same, batch_size):
                inputs = torch.stack([parts[index][1] for index in chunk]).to(device)
                rows = [size if self.per_point else 1] * len(chunk)
                yield [parts[index][0] for index in chunk], inputs, rows

    def _places(self, cloud: Tensor) -> list[Tensor]:
        """The numbers of the points in each part of a cloud; the last has some of those before."""
        order, count = drawn_order(cloud.unsqueeze(0), self.seed)[0], self.num_points
        starts = [min(start, len(cloud) - count) for start in range(0, len(cloud), count)]
        return [order[start : start + count].sort().values for start in starts]

    def _parts(self, cloud: Tensor) -> list[Tensor]:
        """A cloud, or where it has more points than the network is asked about at once, parts."""
        if len(cloud) <= self.num_points:
            return [cloud]
        return [cloud[places] for places in self._places(cloud)]

    def joined(self, cloud: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """The rows of a cloud from those of its parts."""
        if len(parts) == 1:
            return parts[0]
        rows = parts[0].new_empty(len(cloud), parts[0].shape[1])
        for places, part in zip(self._places(cloud), parts, strict=True):
            rows[places.to(rows.device)] = part
        return rows


def _is_one_cloud(data: Any) -> bool:
    """One of PyG's, or an array of points."""
    return is_graph(data) or getattr(data, "ndim", 0) == 2


@dataclass(frozen=True)
class GraphPreparation:
    """Graphs of nodes with `in_channels` features; all nodes are asked, or graphs (`per_graph`).

    Figures of many labels are over all nodes, or a graph at a time (`by_graph`). `degrees`: nodes
    had no features but their degrees, which new graphs are given too. `target` is how
    answers were compared with targets (`sgas.labels.kept`); runs of before have none. `weighted`:
    edges had weights; those of new graphs are read, and without are all 1. Of `edge_channels`
    attributes of edges, new graphs need as many; without, theirs are not read. A graph of more than
    `part_nodes` nodes is computed in parts of so many (0: as a whole).
    """

    in_channels: int
    many_labels: bool
    by_graph: bool
    per_graph: bool = False
    degrees: bool = False
    target: Mapping[str, Any] = field(default_factory=dict)
    weighted: bool = False
    edge_channels: int = 0
    part_nodes: int = 0

    @property
    def row_name(self) -> str:
        """A row of answers a node, unless graphs are asked."""
        return "" if self.per_graph else "node"

    @property
    def labels(self) -> Labels:
        """One class each, many labels or numbers."""
        if self.target:
            labels = restored(self.target)
            return ManyLabelsByGraph() if self.by_graph else labels
        many = ManyLabelsByGraph if self.by_graph else ManyLabels
        return many() if self.many_labels else OneClass()

    def read(self, data: Any, run: RunConfig, options: Any) -> Samples:
        """Graphs from PyG's data, a pair (x `[N, D]`, edge_index `[2, E]`), lists, or files."""
        if isinstance(data, str | Path):
            if not _is_unlabelled(Path(data)):
                return self._test_part(str(data), run, options)
            found = [self._batch_of(graph) for graph in load_unlabelled(Path(data))]
            data = found[0] if len(found) == 1 else found
        refuse_hetero(data)
        graphs, alone = samples_of(unbatched(data), "graph", _is_one_graph)
        items = [self._checked(number, graph) for number, graph in enumerate(graphs)]
        return Samples(items, [str(number) for number in range(len(items))], alone)

    def _test_part(self, dataset: str, run: RunConfig, options: Any) -> Samples:
        from sgas_gcn.datasets.graphs import load_graphs

        split = load_graphs(dataset, "test", run.data_root, run.seed, options)
        if not split.graphs:
            raise DataError(f"{dataset} has no test graphs: add some")
        items = [self._checked(n, self._batch_of(graph)) for n, graph in enumerate(split.graphs)]
        names = [str(number) for number in range(len(items))]
        targets = torch.cat([torch.from_numpy(graph.targets) for graph in split.graphs])
        rows = () if self.per_graph else [graph.asked_nodes.tolist() for graph in items]
        same = split.multi_label == self.many_labels and split.per_graph == self.per_graph
        known = targets if same else None
        return Samples(items, names, False, known, split.label_names, rows)

    def _batch_of(self, graph: GraphArrays) -> GraphBatch:
        """A graph of a file, with what the network reads of its edges."""
        weights = graph.weights if self.weighted else None
        attributes = graph.attributes if self.edge_channels else None
        return graph_batch_of(replace(graph, weights=weights, attributes=attributes))

    def _checked(self, number: int, graph: Any) -> GraphBatch:
        """A graph as the network takes it."""
        if not isinstance(graph, GraphBatch):
            if not _is_one_graph(graph):
                raise DataError(
                    f"graph {number} is of type {type(graph).__name__}; give PyG's Data or a pair "
                    "(x, edge_index)"
                )
            x, edge_index = (graph.x, graph.edge_index) if is_graph(graph) else graph
            if x is None and edge_index is not None and self.degrees:
                ends = numbers_of(edge_index, "edge_index of graph", number)
                x = degree_features(ends.T, int(graph.num_nodes))
            if x is None or edge_index is None:
                raise DataError(f"graph {number} has no {'x' if x is None else 'edge_index'}")
            features = torch.from_numpy(np.array(numbers_of(x, "x of graph", number), np.float32))
            ends = numbers_of(edge_index, "edge_index of graph", number)
            edges = torch.from_numpy(np.array(ends, np.int64))
            if not features.isfinite().all():
                raise DataError(f"graph {number} has NaN or infinite features: correct them")
            if (edges.numpy() != ends).any():
                raise DataError(f"edge_index of graph {number} has fractions: give whole numbers")
            if features.ndim != 2 or edges.ndim != 2 or len(edges) != 2:
                raise DataError(
                    f"graph {number} has x {list(features.shape)} and edge_index "
                    f"{list(edges.shape)}; wanted are [nodes, features] and [2, edges]"
                )
            more = self._weights(number, graph), self._attributes(number, graph)
            graph = GraphBatch.of_graph(features, edges, None, *more)
        attributes, count = graph.neighbors.edges.attributes, graph.neighbors.edges.num_edges
        width = 0 if attributes is None else attributes.shape[1]
        if not count and width != self.edge_channels:  # without edges there is nothing to lack
            none = torch.zeros(0, self.edge_channels) if self.edge_channels else None
            graph = GraphBatch.of_graph(graph.x, torch.zeros(2, 0).long(), graph.asked, None, none)
        elif width != self.edge_channels:
            raise DataError(
                f"edges of graph {number} have {width} attributes; the network takes "
                f"{self.edge_channels} (edge_attr)"
            )
        if graph.x.shape[1] != self.in_channels:
            raise DataError(
                f"graph {number} has {graph.x.shape[1]} features a node; the network takes "
                f"{self.in_channels}"
            )
        return graph

    def _weights(self, number: int, graph: Any) -> Tensor | None:
        """The weights of the edges of a graph, float32 `[E]`, where the network reads some."""
        given = getattr(graph, "edge_weight", None)
        if given is None or not self.weighted:
            return None
        weights = np.array(numbers_of(given, "edge_weight of graph", number), np.float32)
        count = graph.edge_index.shape[1]
        if weights.reshape(-1).shape != (count,) or not (weights >= 0).all():
            raise DataError(
                f"edge_weight of graph {number} has shape {list(weights.shape)}; wanted are "
                f"{count} numbers of 0 or more"
            )
        return torch.from_numpy(weights.reshape(-1))

    def _attributes(self, number: int, graph: Any) -> Tensor | None:
        """The attributes of a graph's edges, float32 `[E, A]`, where the network reads some."""
        given = getattr(graph, "edge_attr", None)
        if given is None or not self.edge_channels:
            return None
        array = numbers_of(given, "edge_attr of graph", number)
        with np.errstate(over="ignore"):
            array = np.array(array, np.float32)
        count = graph.edge_index.shape[1]
        attributes = attribute_rows(array, count, f"edge_attr of graph {number}")
        if not np.isfinite(array).all():
            raise DataError(f"graph {number} has NaN or infinite edge_attr: correct them")
        return None if attributes is None else torch.from_numpy(attributes)

    def batches(
        self, items: Sequence[GraphBatch], batch_size: int, device: torch.device
    ) -> Iterator[tuple[Sequence[int], GraphBatch, Sequence[int]]]:
        """Graphs joined to one."""
        for numbers in in_chunks(range(len(items)), batch_size):
            graphs = [items[number] for number in numbers]
            rows = [1 if self.per_graph else len(graph.asked_nodes) for graph in graphs]
            yield numbers, self._in_parts(GraphBatch.join(graphs), device).to(device), rows

    def _in_parts(self, batch: GraphBatch, device: torch.device) -> GraphBatch:
        if not 0 < self.part_nodes < len(batch.x) or not gains_by_parts(batch, device):
            return batch
        edges = batch.neighbors.edges.edge_index.numpy()
        parts = partition(edges, len(batch.x), math.ceil(len(batch.x) / self.part_nodes))
        return replace(batch, neighbors=PartedNeighbors.of(batch.neighbors, parts))


def _is_one_graph(data: Any) -> bool:
    """One of ours, one of PyG's, or a pair of features and edges."""
    if isinstance(data, tuple) and len(data) == 2:
        return not (is_graph(data[0]) or isinstance(data[0], tuple))
    return isinstance(data, GraphBatch) or is_graph(data)


def _is_unlabelled(path: Path) -> bool:
    """Whether a path is that of an `.npz` file of graphs without labels."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    return not {"label", "y"} & read_headers(path).keys()


def graph_batch_of(graph: GraphArrays) -> GraphBatch:
    """A graph of a data set, on the CPU, with its edges sorted."""
    asked = None if graph.nodes is None else torch.from_numpy(graph.nodes)
    edges = torch.from_numpy(np.ascontiguousarray(graph.edges))
    of_edges = (graph.weights, graph.attributes)
    more = (None if each is None else torch.from_numpy(each) for each in of_edges)
    return GraphBatch.of_graph(torch.from_numpy(graph.x), edges, asked, *more)
