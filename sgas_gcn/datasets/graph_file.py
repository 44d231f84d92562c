"""Reads and checks an `.npz` file of graphs of one's own.

Several graphs, one after the other, each in one split:
    node_ptr, edge_ptr `[G + 1]`, edge `[E, 2]` numbered within its graph, x `[N, D]`,
    y `[N, L]` of 0 and 1 or `[N]` of classes, split `[G]` of "train", "val", "test"
One graph, whose nodes are split:
    edge `[E, 2]`, label `[N]` of classes (-1: unknown) or `[N, L]` of 0 and 1, features x `[N, D]`
    or in compressed rows (feat_indptr, feat_indices, feat_dim and, if not all 1, feat_data),
    train, val, test: node numbers, or masks `[N]`
Either may have `label_names`, a text array, and `directed`, a single truth: without it edges are
undirected and stored once. Without `split`, or without train, val and test, the data is split by a
draw that is always the same.

Dimensions: G graphs, N nodes of all graphs, E edges of all graphs, D features, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgas.errors import DataError
from sgas.own.npz import (
    ArrayHeader,
    as_names,
    available_memory,
    in_words,
    read_array,
    read_headers,
)

SPLITS = ("train", "val", "test")
# Two graphs (with and without self-loops) keep four numbers for each direction of an edge.
EDGE_BYTES = 2 * 2 * 4 * 8

Headers = dict[str, ArrayHeader]


@dataclass(frozen=True)
class GraphFile:
    """What a sound file holds, graph after graph; `splits` numbers graphs, or nodes of the one.

    `targets` are bool `[N, L]` for several labels at once, int64 `[N]` for one class; `splits` is
    empty where the file has none.
    """

    path: Path
    x: np.ndarray
    node_ptr: np.ndarray
    edge: np.ndarray
    edge_ptr: np.ndarray
    targets: np.ndarray
    label_names: tuple[str, ...]
    directed: bool
    transductive: bool
    splits: dict[str, np.ndarray]

    @property
    def multi_label(self) -> bool:
        """Whether a node can have several labels."""
        return self.targets.ndim == 2


def find_file(path: Path) -> Path:
    """The file itself, or the one `.npz` in a folder; DataError where there is none or many."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist: give an .npz file, or a folder with one")
    files = sorted(path.glob("*.npz"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files[:6]) or "none"
        raise DataError(f"{path} has to hold one .npz file (it has: {names}): name the file itself")
    return files[0]


def read_graph_file(path: Path) -> tuple[GraphFile | None, list[str]]:
    """The file's contents and what is wrong with it; no contents where something is."""
    try:
        headers = read_headers(path)
        problems = list(_header_problems(headers))
        if not problems:
            contents = _read(path, headers)
            problems = list(_value_problems(contents))
            if not problems:
                return _completed(contents), []
    except DataError as error:
        return None, [str(error)]
    return None, [f"{path}: {problem}" for problem in problems]


def _header_problems(headers: Headers) -> Iterator[str]:
    """What is wrong with the arrays' names, shapes and types, and with the size of all of them."""
    several = "node_ptr" in headers
    features = ("x",) if several or "x" in headers else ("feat_indptr", "feat_indices", "feat_dim")
    needed = ("node_ptr", "edge_ptr", "y") if several else ("label",)
    missing = [name for name in ("edge", *needed, *features) if name not in headers]
    if missing:
        there = ", ".join(headers) or "none"
        yield f"no array {missing[0]!r} (it has: {there}); " + (
            "several graphs need node_ptr, edge_ptr, edge, x and y"
            if several
            else "one graph needs edge, label and features (x, or feat_indptr and feat_indices)"
        )
        return
    for name, header in headers.items():
        if problem := header.problem():
            yield f"{name} {problem}"
    whole = ("edge", "node_ptr", "edge_ptr", "feat_indptr", "feat_indices", "feat_dim")
    for name in whole:
        if name in headers and headers[name].dtype.kind not in "iu":
            yield f"{name} is {headers[name].dtype}; write integers"
    for name in ("x", "feat_data"):
        if name in headers and headers[name].dtype.kind not in "fiub":
            yield f"{name} is {headers[name].dtype}; write numbers"
    shape = headers["edge"].shape
    if len(shape) != 2 or shape[1] != 2:
        yield f"edge has shape {list(shape)}; wanted is [edges, 2]"
    flat = ("node_ptr", "edge_ptr", "split", "label_names", "feat_indptr", "feat_indices", *SPLITS)
    for name in flat:
        if name in headers and len(headers[name].shape) != 1:
            yield f"{name} has shape {list(headers[name].shape)}; wanted is a plain list"
    yield from _row_problems(headers, several)
    yield from _size_problems(headers, several)


def _row_problems(headers: Headers, several: bool) -> Iterator[str]:
    """How the shapes of features, labels and names disagree."""
    name = "y" if several else "label"
    labels = headers[name]
    if labels.dtype.kind not in "iub" and not (labels.dtype.kind == "f" and len(labels.shape) == 2):
        yield f"{name} is {labels.dtype}; write integers"
    if len(labels.shape) not in (1, 2) or 0 in labels.shape:
        yield f"{name} has shape {list(labels.shape)}; wanted is [nodes] or [nodes, labels]"
        return
    if "x" in headers and (len(headers["x"].shape) != 2 or 0 in headers["x"].shape):
        yield f"x has shape {list(headers['x'].shape)}; wanted is [nodes, features]"
    elif "x" in headers and headers["x"].shape[0] != labels.shape[0]:
        yield f"x has {headers['x'].shape[0]} rows for {labels.shape[0]} nodes of {name}"
    if "feat_indptr" in headers and headers["feat_indptr"].shape != (labels.shape[0] + 1,):
        rows = headers["feat_indptr"].shape
        yield f"feat_indptr has shape {list(rows)} for {labels.shape[0]} nodes: one more than nodes"
    if "feat_data" in headers and headers["feat_data"].shape != headers["feat_indices"].shape:
        yield "feat_data and feat_indices differ in length: write one value for each index"
    names = headers.get("label_names")
    if names and names.dtype.kind not in "US":
        yield f"label_names are {names.dtype}; write a list of names as text"
    elif names and len(labels.shape) == 2 and names.shape != labels.shape[1:]:
        yield f"{name} is {labels.shape[1]} labels wide, label_names has {names.shape[0]} names"


def _size_problems(headers: Headers, several: bool) -> Iterator[str]:
    """Why the graphs do not fit into memory."""
    labels = headers["y" if several else "label"]
    features = headers["x"].shape if "x" in headers else ()
    num_edges = headers["edge"].shape[0] if headers["edge"].shape else 0
    kept = 4 * math.prod(features or (0,)) + num_edges * EDGE_BYTES
    wanted = kept + sum(header.nbytes for header in headers.values())
    free = available_memory()
    if wanted > free:
        size = f"{labels.shape[0]} nodes and {num_edges} edges"
        yield (
            f"{size} take {in_words(wanted)}, {in_words(free)} of memory are free: give fewer "
            "features or edges, or graphs of fewer nodes"
        )


def _read(path: Path, headers: Headers) -> GraphFile:
    """The arrays of a file whose headers are sound; the values may be anything."""
    several = "node_ptr" in headers
    edge = read_array(path, "edge")
    labels = read_array(path, "y" if several else "label")
    targets = labels if labels.ndim == 2 else labels.astype(np.int64)
    x = read_array(path, "x") if "x" in headers else _sparse_features(path, headers, len(labels))
    ends = {"node_ptr": len(labels), "edge_ptr": len(edge)}
    pointers = {
        name: read_array(path, name).astype(np.int64) if several else np.array([0, end])
        for name, end in ends.items()
    }
    if "label_names" in headers:
        names = tuple(as_names(read_array(path, "label_names")))
    else:
        # More classes than nodes cannot all have one: a huge number makes no list of names.
        highest = 0 if labels.ndim == 2 else min(int(labels.max()), len(labels))
        count = labels.shape[1] if labels.ndim == 2 else highest + 1
        names = tuple(str(number) for number in range(max(count, 0)))
    directed = bool(read_array(path, "directed").any()) if "directed" in headers else False
    splits = _read_splits(path, headers, several)
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    return GraphFile(
        path=path,
        x=x,
        edge=edge,
        targets=targets,
        label_names=names,
        directed=directed,
        transductive=not several,
        splits=splits,
        **pointers,
    )


def _read_splits(path: Path, headers: Headers, several: bool) -> dict[str, np.ndarray]:
    """Graph or node numbers by split; masks become numbers."""
    if several:
        if "split" not in headers:
            return {}
        words = np.array(as_names(read_array(path, "split")))
        if len(words) != headers["node_ptr"].shape[0] - 1:
            raise DataError(
                f"{path}: split has {len(words)} words for {headers['node_ptr'].shape[0] - 1} "
                "graphs: write one each"
            )
        if unknown := sorted(set(words.tolist()) - set(SPLITS)):
            raise DataError(f"{path}: split holds {unknown[0]!r}; write train, val or test")
        return {split: np.flatnonzero(words == split) for split in SPLITS}
    splits = {split: read_array(path, split) for split in SPLITS if split in headers}
    num_nodes = headers["label"].shape[0]
    for split, index in splits.items():
        if index.dtype.kind == "b" and len(index) != num_nodes:
            raise DataError(f"{path}: mask {split} has {len(index)} entries for {num_nodes} nodes")
        if index.dtype.kind not in "iub":
            raise DataError(f"{path}: {split} is {index.dtype}; write node numbers or a mask")
        splits[split] = np.flatnonzero(index) if index.dtype.kind == "b" else index.astype(np.int64)
    return splits


def _sparse_features(path: Path, headers: Headers, num_nodes: int) -> np.ndarray:
    """Features `[N, D]` of compressed rows; DataError where they are not sound or too large."""
    rows, columns = read_array(path, "feat_indptr"), read_array(path, "feat_indices")
    width = int(read_array(path, "feat_dim"))
    rows = rows.astype(np.int64)
    if rows[0] != 0 or rows[-1] != len(columns) or (np.diff(rows) < 0).any():
        raise DataError(
            f"{path}: feat_indptr has to rise from 0 to the {len(columns)} entries of feat_indices"
        )
    if width < 1 or (len(columns) and not 0 <= columns.min() <= columns.max() < width):
        raise DataError(f"{path}: feat_indices names a feature outside 0 to {width - 1}")
    wanted, free = num_nodes * width * 4, available_memory()
    if wanted > free:
        raise DataError(
            f"{path}: {num_nodes} nodes of {width} features take {in_words(wanted)}, "
            f"{in_words(free)} of memory are free: give fewer features"
        )
    x = np.zeros((num_nodes, width), np.float32)
    values = read_array(path, "feat_data") if "feat_data" in headers else 1.0
    x[np.repeat(np.arange(num_nodes), np.diff(rows)), columns.astype(np.int64)] = values
    return x


def _value_problems(file: GraphFile) -> Iterator[str]:
    """What is wrong with the values of the arrays."""
    pointers = (("node_ptr", file.node_ptr, len(file.targets), "nodes"),
                ("edge_ptr", file.edge_ptr, len(file.edge), "edges"))  # fmt: skip
    for name, pointer, end, what in pointers:
        if (
            len(pointer) < 2
            or pointer[0] != 0
            or pointer[-1] != end
            or (np.diff(pointer) < 0).any()
        ):
            yield f"{name} has to rise from 0 to the {end} {what}"
            return
    if len(file.node_ptr) != len(file.edge_ptr):
        graphs = (len(file.node_ptr) - 1, len(file.edge_ptr) - 1)
        yield f"node_ptr is of {graphs[0]} graphs, edge_ptr of {graphs[1]}: write the same graphs"
        return
    if bad := _first_row(~np.isfinite(file.x)):
        node, count = bad
        yield f"{count} nodes have NaN or infinite features, first node {node}: correct or remove"
    yield from _edge_problems(file)
    yield from _label_problems(file)
    yield from _split_problems(file)


def _first_row(wrong: np.ndarray) -> tuple[int, int] | None:
    """The first row `[..., K]` that holds a truth, and how many rows do; None where none does."""
    rows = np.flatnonzero(wrong.any(axis=1))
    return (int(rows[0]), len(rows)) if len(rows) else None


def _edge_problems(file: GraphFile) -> Iterator[str]:
    """Edges that join nodes which are not there, and edges that are stored twice."""
    sizes = np.diff(file.node_ptr)
    graph = np.repeat(np.arange(len(sizes)), np.diff(file.edge_ptr))
    edge = file.edge.astype(np.int64)
    if bad := _first_row((edge < 0) | (edge >= sizes[graph][:, None])):
        number, count = bad
        size = sizes[graph[number]]
        yield (
            f"{count} edges name nodes that are not there, first edge {number}: "
            f"{edge[number].tolist()} in graph {graph[number]}, which has the nodes 0 to {size - 1}"
        )
        return
    ends = edge + file.node_ptr[graph][:, None]
    total = int(file.node_ptr[-1])
    forward, backward = ends @ [total, 1], ends @ [1, total]
    apart = forward != backward
    if not file.directed and apart.any() and np.isin(forward[apart], backward[apart]).all():
        yield (
            "every edge is stored in both directions; store undirected edges once, or write "
            "directed=True to take them as they are"
        )


def _label_problems(file: GraphFile) -> Iterator[str]:
    """Labels that are no 0 or 1, or classes that count from something else than 0."""
    if file.multi_label:
        if bad := _first_row((file.targets != 0) & (file.targets != 1)):
            yield f"the labels of node {bad[0]} are not all 0 or 1 ({bad[1]} such nodes)"
        return
    wrong = np.flatnonzero((file.targets < -1) | (file.targets >= len(file.label_names)))
    if len(wrong):
        allowed = f"-1 (unknown) or 0 to {len(file.label_names) - 1}"
        yield f"node {wrong[0]} has class {file.targets[wrong[0]]}; allowed are {allowed}"
        return
    present = np.unique(file.targets[file.targets >= 0])
    if not len(present):
        yield "no node has a known class"
    elif len(present) < len(file.label_names):
        missing = int(np.setdiff1d(np.arange(len(file.label_names)), present)[0])
        last = len(file.label_names) - 1
        yield f"no node has class {missing} of 0 to {last}: number the classes without gaps"


def _split_problems(file: GraphFile) -> Iterator[str]:
    """Splits that are empty, overlap, repeat, or name what is not there or not labelled."""
    what = "node" if file.transductive else "graph"
    count = len(file.targets) if file.transductive else len(file.node_ptr) - 1
    if file.splits and not len(file.splits.get("train", ())):
        yield f"no {what} is in train: fill it, or leave out every split for a draw"
        return
    seen = np.full(count, -1)
    for number, (split, index) in enumerate(file.splits.items()):
        wrong = index[(index < 0) | (index >= count)]
        if len(wrong):
            yield f"{split} names {what} {wrong[0]}; there are the {what}s 0 to {count - 1}"
            continue
        taken = index[seen[index] >= 0]
        if len(taken):
            other = list(file.splits)[seen[taken[0]]]
            yield f"{what} {taken[0]} is in {other} and in {split} ({len(taken)} {what}s overlap)"
        if len(np.unique(index)) < len(index):
            yield f"{split} names a {what} twice"
        seen[index] = number
        if file.transductive and not file.multi_label and (file.targets[index] < 0).any():
            unknown = index[file.targets[index] < 0][0]
            yield f"node {unknown} of {split} has no known class: leave it out"
        if not file.transductive and (unasked := index[~asked_graphs(file)[index]]).size:
            yield f"no node of graph {unasked[0]} of {split} has a known class: leave it out"


def asked_graphs(file: GraphFile) -> np.ndarray:
    """Which graphs `[graphs]` have a node whose class is known, or many labels."""
    if file.multi_label:
        return np.ones(len(file.node_ptr) - 1, bool)
    known = np.concatenate([[0], np.cumsum(file.targets >= 0)])
    return known[file.node_ptr[1:]] > known[file.node_ptr[:-1]]


def _completed(file: GraphFile) -> GraphFile:
    """A sound file with labels of their final type."""
    if not file.multi_label:
        return file
    return GraphFile(**{**file.__dict__, "targets": file.targets > 0})
