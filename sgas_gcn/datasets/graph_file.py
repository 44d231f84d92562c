"""Reads and checks an `.npz` file of graphs of one's own, or TUDataset's text files.

Several graphs, one after the other:
    node_ptr, edge_ptr `[G + 1]`, edge `[E, 2]` numbered within its graph, features, y or label: of
    nodes `[N]` or `[N, L]`, or of graphs `[G]` or `[G, L]`; split `[G]` of "train", "val", "test"
One graph, whose nodes are split:
    edge `[E, 2]`, label or y of nodes, features, train, val, test (or train_mask, …): node numbers,
    masks `[N]`, or masks `[N, S]` of several splits, of which `split` takes one
Features are x `[N, D]`, or in compressed rows (feat_indptr, feat_indices, feat_dim and, if not all
1, feat_data), or node_attr `[N, D]` and node_label `[N]`, one-hot; without any, the
degree, one-hot.
`edge` may be `edge_index` `[2, E]`. Either may have `edge_weight` `[E]`, none below 0,
`edge_attr` `[E, A]` or `[E]`, `label_names`, a text array, and `directed`, a single truth: without
it edges are undirected, and one that is stored twice, or both ways, counts once. What labels may
be stands in `sgas.own.targets`; a class -1 is unknown. Without splits, they are drawn, always the
same.

Dimensions: G graphs, N nodes of all graphs, E edges of all graphs, D features, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sgas.config import UNKNOWN
from sgas.errors import DataError, option
from sgas.own.npz import (
    ArrayHeader,
    as_names,
    available_memory,
    in_words,
    read_array,
    read_headers,
)
from sgas.own.targets import Coding, header_problem, plain
from sgas_gcn.config import GraphDataConfig
from sgas_gcn.datasets.graph_arrays import attribute_rows

SPLITS = ("train", "val", "test")
# Two graphs (with and without self-loops) keep four numbers for each direction of an edge.
EDGE_BYTES = 2 * 2 * 4 * 8
WEIGHTS = "edge_weight counts in semi_gcn, sage, rel_sage, propagation, gcn, cheb, arma and graph"
ATTRIBUTES = "edge_attr counts in gat and gin of space graph"
MOST_EMPTY = 10_000  # features of a file for each entry that it stores of them
MOST_DEGREES = 64  # one-hot features of nodes without any; higher degrees are as this one
DEGREES = f"no features: the degree of a node, one-hot up to {MOST_DEGREES}, is taken"

Headers = dict[str, ArrayHeader]
Read = Callable[[str], np.ndarray]
ROWS = ("feat_indptr", "feat_indices", "feat_dim")


@dataclass(frozen=True)
class GraphFile:
    """What a sound file holds, graph after graph; `splits` numbers graphs, or nodes of the one.

    `weights` are those of edges, float32 `[E]`, none below 0 (None: all 1), `attributes` float32
    `[E, A]` (None: there are none). `targets`, of nodes or with `per_graph` of graphs, are bool
    `[N, L]` for several labels at once, float32 `[N, L]` for numbers, int64 `[N]` for one class.
    `splits` is empty where the file has none. `remarks` say what is not used or was changed.
    """

    path: Path
    x: np.ndarray
    node_ptr: np.ndarray
    edge: np.ndarray
    edge_ptr: np.ndarray
    targets: np.ndarray
    label_names: tuple[str, ...]
    directed: bool
    per_graph: bool
    transductive: bool
    splits: dict[str, np.ndarray]
    remarks: tuple[str, ...]
    weights: np.ndarray | None = None
    attributes: np.ndarray | None = None

    @property
    def one_class(self) -> bool:
        """Whether each has one class."""
        return self.targets.ndim == 1

    @property
    def num_graphs(self) -> int:
        """How many graphs there are (G)."""
        return len(self.node_ptr) - 1


def find_file(path: Path) -> Path:
    """The file itself, or the one `.npz` or `_A.txt` in a folder; DataError if none or many are."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist: give an .npz file, or a folder with one")
    files = sorted(path.glob("*.npz")) or sorted(path.glob("*_A.txt"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files[:6]) or "none"
        raise DataError(f"{path} has to hold one .npz file (it has: {names}): name the file itself")
    return files[0]


def read_graph_file(
    path: Path, options: GraphDataConfig, unlabelled: bool = False
) -> tuple[GraphFile | None, list[str]]:
    """The file's contents and what is wrong with it; no contents where something is.

    One that is `unlabelled` is read as if all its nodes were of one class.
    """
    try:
        headers, read = _opened(path)
        if unlabelled:
            headers, read = _with_labels(headers, read)
        problems = list(_header_problems(headers, options))
        if not problems:
            contents = _read(path, headers, read, options)
            problems = list(_value_problems(contents))
            if not problems:
                return _with_plain_edges(contents, options.directed), []
    except DataError as error:
        told = error.args[0]  # with its options as they are marked
        return None, [told if told.startswith(str(path)) else f"{path}: {told}"]
    except MemoryError as error:
        return None, [f"{path}: it does not fit into memory ({error}): give less"]
    return None, [f"{path}: {problem}" for problem in problems]


def _with_labels(headers: Headers, read: Read) -> tuple[Headers, Read]:
    """A file without labels as one that has some, as many as it has rows of features."""
    of_rows = next((name for name in ("x", "node_attr", "feat_indptr") if name in headers), None)
    if of_rows is None or not headers[of_rows].shape:
        raise DataError("no features x of the nodes: give them")
    labels = np.zeros(headers[of_rows].shape[0] - (of_rows == "feat_indptr"), np.int64)
    made = {"label": ArrayHeader(labels.shape, labels.dtype, labels.nbytes)}
    return headers | made, lambda name: labels if name == "label" else read(name)


def _opened(path: Path) -> tuple[Headers, Read]:
    """The headers of a file's arrays, and what reads one by its name."""
    if path.suffix != ".txt":
        return read_headers(path), lambda name: read_array(path, name)
    from sgas_gcn.datasets.tu_files import read_tu_files

    arrays = read_tu_files(path)
    headers = {
        n: ArrayHeader(array.shape, array.dtype, array.nbytes) for n, array in arrays.items()
    }
    return headers, arrays.__getitem__


def _used(headers: Headers) -> dict[str, str]:
    """The names of the arrays that are read, by what they are."""
    several = "node_ptr" in headers
    used = {"edge": "edge" if "edge" in headers else "edge_index"}
    used["label"] = next((n for n in ("label", "y") if n in headers), "y" if several else "label")
    if several:
        used |= {"node_ptr": "node_ptr", "edge_ptr": "edge_ptr", "split": "split"}
    else:
        masks = {name: f"{name}_mask" for name in SPLITS}
        used |= {n: n if n in headers or mask not in headers else mask for n, mask in masks.items()}
    if "x" in headers:
        used["x"] = "x"
    elif any(name in headers for name in ROWS):
        used |= {name: name for name in (*ROWS, "feat_data")}
    else:
        used |= {name: name for name in ("node_attr", "node_label", "num_node_labels")}
    more = ("edge_weight", "edge_attr", "label_names", "directed", "remarks")
    used |= {name: name for name in more}
    return {
        what: name for what, name in used.items() if name in headers or what in ("edge", "label")
    }


def _header_problems(headers: Headers, options: GraphDataConfig) -> Iterator[str]:
    """What is wrong with the arrays' names, shapes and types, and with the size of all of them."""
    several, used = "node_ptr" in headers, _used(headers)
    needed = [used["edge"], *(["node_ptr", "edge_ptr"] if several else []), used["label"]]
    needed += ROWS if "x" not in headers and any(name in headers for name in ROWS) else []
    if missing := [name for name in needed if name not in headers]:
        there = ", ".join(headers) or "none"
        name = missing[0].replace("edge_index", "edge")
        yield f"no array {name!r} (it has: {there}); " + (
            "several graphs need node_ptr, edge_ptr, edge and y"
            if several
            else "one graph needs edge and label"
        )
        return
    for name in used.values():
        if problem := headers[name].problem():
            yield f"{name} {problem}"
    for name in ("node_ptr", "edge_ptr", *ROWS, "node_label", used["edge"]):
        if name in headers and headers[name].dtype.kind not in "iu":
            yield f"{name} is {headers[name].dtype}; write integers"
    for name in ("x", "feat_data", "node_attr", "edge_weight", "edge_attr"):
        if name in headers and headers[name].dtype.kind not in "fiub":
            yield f"{name} is {headers[name].dtype}; write numbers"
    shape = headers[used["edge"]].shape
    if used["edge"] == "edge" and (len(shape) != 2 or shape[1] != 2):
        turned = len(shape) == 2 and shape[0] == 2
        advice = "; edges that are [2, edges] are called edge_index" if turned else ""
        yield f"edge has shape {list(shape)}; wanted is [edges, 2]{advice}"
    elif used["edge"] != "edge" and (len(shape) != 2 or shape[0] != 2):
        yield f"edge_index has shape {list(shape)}; wanted is [2, edges]"
    weights, count = headers.get("edge_weight"), shape[used["edge"] != "edge"] if shape else 0
    if weights and weights.shape not in ((count,), (count, 1)):
        yield f"edge_weight has shape {list(weights.shape)} for {count} edges: one each"
    attributes = headers.get("edge_attr")
    if attributes and (attributes.shape[:1] != (count,) or 0 in attributes.shape[1:]
                       or len(attributes.shape) > 2):  # fmt: skip
        yield f"edge_attr has shape {list(attributes.shape)} for {count} edges: a row each"
    for name in ("node_ptr", "edge_ptr", "split", "label_names", *ROWS[:2], "node_label"):
        if name in headers and len(headers[name].shape) != 1:
            yield f"{name} has shape {list(headers[name].shape)}; wanted is a plain list"
    yield from _row_problems(headers, used, options)
    yield from _size_problems(headers, used)


def _row_problems(
    headers: Headers, used: dict[str, str], options: GraphDataConfig
) -> Iterator[str]:
    """How the shapes of features, labels and names disagree."""
    name = used["label"]
    labels = headers[name]
    rank = 1 if labels.shape[1:] == (1,) else len(labels.shape)
    if problem := header_problem(name, labels.dtype.kind, labels.dtype, rank, options.target):
        yield problem
    if rank not in (1, 2) or 0 in labels.shape:
        yield f"{name} has shape {list(labels.shape)}; wanted is [nodes] or [nodes, labels]"
        return
    features = next((n for n in ("x", "node_attr", "node_label") if n in used), None)
    if (
        features
        and features != "node_label"
        and (len(headers[features].shape) != 2 or 0 in headers[features].shape)
    ):
        yield f"{features} has shape {list(headers[features].shape)}; wanted is [nodes, features]"
    graphs = headers["node_ptr"].shape[0] - 1 if "node_ptr" in headers else None
    of_nodes = labels.shape[0] != graphs
    if features and of_nodes and headers[features].shape[:1] != labels.shape[:1]:
        rows = headers[features].shape[:1]
        yield f"{features} has {rows[0] if rows else 0} rows for {labels.shape[0]} nodes of {name}"
    if "feat_indptr" in used and of_nodes:
        rows = headers["feat_indptr"].shape
        if rows != (labels.shape[0] + 1,):
            yield (
                f"feat_indptr has shape {list(rows)} for {labels.shape[0]} nodes: one more than "
                "nodes"
            )
    if "feat_data" in used and headers["feat_data"].shape != headers["feat_indices"].shape:
        yield "feat_data and feat_indices differ in length: write one value for each index"
    names = headers.get("label_names")
    if names and names.dtype.kind not in "US":
        yield f"label_names are {names.dtype}; write a list of names as text"
    elif names and rank == 2 and names.shape != labels.shape[1:]:
        yield f"{name} is {labels.shape[1]} labels wide, label_names has {names.shape[0]} names"


def _size_problems(headers: Headers, used: dict[str, str]) -> Iterator[str]:
    """Why the graphs do not fit into memory."""
    features = headers["x"].shape if "x" in headers else ()
    num_edges = math.prod(headers[used["edge"]].shape) // 2
    of_edges = headers["edge_attr"].shape if "edge_attr" in used else (0,)
    # Attributes stand with both directions of an edge, in both graphs, as float32.
    kept = 4 * math.prod(features or (0,)) + num_edges * EDGE_BYTES + 16 * math.prod(of_edges)
    wanted = kept + sum(headers[name].nbytes for name in used.values())
    free = available_memory()
    if wanted > free:
        size = f"{headers[used['label']].shape[0]} nodes and {num_edges} edges"
        yield (
            f"{size} take {in_words(wanted)}, {in_words(free)} of memory are free: give fewer "
            "features or edges, or graphs of fewer nodes"
        )


def _read(path: Path, headers: Headers, read: Read, options: GraphDataConfig) -> GraphFile:
    """The arrays of a file whose headers are sound; edges and splits may be anything."""
    several, used = "node_ptr" in headers, _used(headers)
    edge = read(used["edge"])
    edge = edge if used["edge"] == "edge" else np.ascontiguousarray(edge.T)
    raw = read(used["label"])
    ends = {"node_ptr": len(raw), "edge_ptr": len(edge)}
    pointers = {
        name: read(name).astype(np.int64) if several else np.array([0, end])
        for name, end in ends.items()
    }
    num_graphs = len(pointers["node_ptr"]) - 1
    num_nodes = int(pointers["node_ptr"][-1]) if num_graphs > 0 else 0
    per_graph = several and len(raw) == num_graphs != num_nodes
    one = "graph" if per_graph else "node"
    labels = plain(raw, options.target, one)
    names = None
    if "label_names" in headers:
        names = tuple(as_names(read("label_names")))
    coding = Coding.of([labels], names, options.target, unknown=True)
    x, told = _features(path, headers, read, used, len(raw) if not per_graph else num_nodes, edge,
                        pointers)  # fmt: skip
    unused, weights = [name for name in headers if name not in used.values()], None
    if "edge_weight" in used:
        weights = read("edge_weight").astype(np.float32).reshape(-1)
        if (weights < 0).any():
            weights = None
            unused.append("edge_weight, of which some are below 0")
        else:
            told = [*told, WEIGHTS]
    attributes = None
    if "edge_attr" in used and options.edge_attributes:
        with np.errstate(over="ignore"):
            attributes = attribute_rows(
                read("edge_attr").astype(np.float32), len(edge), "edge_attr"
            )
        told = [*told, ATTRIBUTES]
    elif "edge_attr" in used:
        unused.append("edge_attr")
    remarks = [f"not used: {', '.join(unused)}"] if unused else []
    if "remarks" in headers:
        remarks += as_names(read("remarks"))
    splits, of_splits = _read_splits(path, headers, read, used, len(raw), options.split)
    return GraphFile(
        path=path,
        x=x,
        edge=edge,
        targets=coding.code(labels),
        label_names=coding.names,
        directed=bool(read("directed").any()) if "directed" in headers else False,
        per_graph=per_graph,
        transductive=not several,
        splits=splits,
        remarks=(*remarks, *told, *of_splits),
        weights=weights,
        attributes=attributes,
        **pointers,
    )


def _read_splits(
    path: Path, headers: Headers, read: Read, used: dict[str, str], count: int, number: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Graph or node numbers by split, and what is to be said of them; masks become numbers."""
    if "node_ptr" in headers:
        if "split" not in headers:
            return {}, []
        words = np.array(as_names(read("split")))
        if len(words) != headers["node_ptr"].shape[0] - 1:
            raise DataError(
                f"{path}: split has {len(words)} words for {headers['node_ptr'].shape[0] - 1} "
                "graphs: write one each"
            )
        if unknown := sorted(set(words.tolist()) - set(SPLITS)):
            raise DataError(f"{path}: split holds {unknown[0]!r}; write train, val or test")
        return {split: np.flatnonzero(words == split) for split in SPLITS}, []
    splits, most = {}, 1
    for split in SPLITS:
        if split in used:
            index = read(used[split])
            if index.ndim == 2 and len(index) == count:
                most = max(most, index.shape[1])
                if number >= index.shape[1]:
                    raise DataError(
                        f"{path}: {used[split]} has {index.shape[1]} splits, numbered from 0: give "
                        "split one of them"
                    )
                index = index[:, number]
            splits[split] = _numbers(path, used[split], index, count)
    told = [f"split {number} of {most}"] if most > 1 else []
    if number and most == 1:
        raise DataError(f"{path}: there are no several splits: leave split out")
    return splits, told


def _one(array: np.ndarray) -> int:
    """The number that an array of one holds; DataError for another size."""
    if array.size != 1:
        raise DataError(f"an array of shape {list(array.shape)} stands where one number is wanted")
    return int(array.item())


def _numbers(path: Path, name: str, index: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the nodes of a split, which is a list of them or a mask, also of 0 and 1."""
    if index.dtype.kind == "b" and len(index) != count:
        raise DataError(f"{path}: mask {name} has {len(index)} entries for {count} nodes")
    if index.dtype.kind not in "iub" or index.ndim != 1:
        raise DataError(f"{path}: {name} is {index.dtype}; write node numbers or a mask")
    is_mask = index.dtype.kind == "b"
    if not is_mask and len(index) == count > 2:  # as numbers, it would name a node twice
        is_mask = bool(((index == 0) | (index == 1)).all())
    return np.flatnonzero(index) if is_mask else index.astype(np.int64)


def _features(
    path: Path,
    headers: Headers,
    read: Read,
    used: dict[str, str],
    num_nodes: int,
    edge: np.ndarray,
    pointers: dict[str, np.ndarray],
) -> tuple[np.ndarray, list[str]]:
    """Features float32 `[N, D]`, and what is to be said of them."""
    if "x" in used or "feat_indptr" in used:
        x = (
            read("x")
            if "x" in used
            else _sparse_features(path, read, "feat_data" in used, num_nodes)
        )
        with np.errstate(over="ignore"):
            return x.astype(np.float32), []
    parts = [read("node_attr").astype(np.float32)] if "node_attr" in used else []
    if "node_label" in used:
        labels = read("node_label").astype(np.int64)
        width = (
            _one(read("num_node_labels")) if "num_node_labels" in used else int(labels.max()) + 1
        )
        if width > 1:
            parts.append(_one_hot(labels, width, "node_label"))
    if parts:
        return np.concatenate(parts, axis=1), []
    first = np.repeat(pointers["node_ptr"][:-1], np.diff(pointers["edge_ptr"]))
    ends = edge.astype(np.int64) + first[:, None]
    inside = ends[((ends >= 0) & (ends < num_nodes)).all(axis=1)]  # others are told later
    return degree_features(inside, num_nodes), [DEGREES]


def degree_features(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """Features float32 `[N, MOST_DEGREES + 1]` of nodes without any: how many others are joined.

    `edges` `[E, 2]` count once, whichever way they lead; loops do not.
    """
    apart = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
    degrees = np.bincount(apart.ravel(), minlength=num_nodes)
    return _one_hot(np.minimum(degrees, MOST_DEGREES), MOST_DEGREES + 1, "degree")


def _one_hot(numbers: np.ndarray, width: int, name: str) -> np.ndarray:
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < width:
        raise DataError(
            f"{name} is from {numbers.min()} to {numbers.max()}; 0 to {width - 1} can be"
        )
    if width > MOST_EMPTY * max(len(numbers), 1) or len(numbers) * width * 4 > available_memory():
        raise DataError(f"{name} has {width} values, too many for a feature each: give x instead")
    x = np.zeros((len(numbers), width), np.float32)
    x[np.arange(len(numbers)), numbers] = 1
    return x


def _sparse_features(path: Path, read: Read, has_values: bool, num_nodes: int) -> np.ndarray:
    """Features `[N, D]` of compressed rows; DataError where they are not sound or too large."""
    rows, columns = read("feat_indptr"), read("feat_indices")
    width = _one(read("feat_dim"))
    rows = rows.astype(np.int64)
    if rows[0] != 0 or rows[-1] != len(columns) or (np.diff(rows) < 0).any():
        raise DataError(
            f"{path}: feat_indptr has to rise from 0 to the {len(columns)} entries of feat_indices"
        )
    if width < 1 or (len(columns) and not 0 <= columns.min() <= columns.max() < width):
        raise DataError(f"{path}: feat_indices names a feature outside 0 to {width - 1}")
    if width > MOST_EMPTY * max(len(columns), 1):
        raise DataError(
            f"{path}: feat_dim is {width} with {len(columns)} entries: give the columns in use"
        )
    wanted, free = num_nodes * width * 4, available_memory()
    if wanted > free:
        raise DataError(
            f"{path}: {num_nodes} nodes of {width} features take {in_words(wanted)}, "
            f"{in_words(free)} of memory are free: give fewer features"
        )
    x = np.zeros((num_nodes, width), np.float32)
    values = read("feat_data") if has_values else 1.0
    x[np.repeat(np.arange(num_nodes), np.diff(rows)), columns.astype(np.int64)] = values
    return x


def _value_problems(file: GraphFile) -> Iterator[str]:
    """What is wrong with the values of the arrays."""
    num_nodes = len(file.x) if file.per_graph else len(file.targets)
    pointers = (("node_ptr", file.node_ptr, num_nodes, "nodes"),
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
    if file.per_graph and (empty := np.flatnonzero(np.diff(file.node_ptr) == 0)).size:
        yield f"graph {empty[0]} has no nodes ({len(empty)} such graphs): leave it out"
    if bad := _first_row(~np.isfinite(file.x)):
        node, count = bad
        yield f"{count} nodes have NaN or infinite features, first node {node}: correct or remove"
    if file.weights is not None and (bad := _first_row(~np.isfinite(file.weights)[:, None])):
        yield f"{bad[1]} weights of edges are NaN or infinite, first edge {bad[0]}: correct them"
    if file.attributes is not None and (bad := _first_row(~np.isfinite(file.attributes))):
        yield f"{bad[1]} edges have NaN or infinite attributes, first edge {bad[0]}: correct them"
    yield from _edge_problems(file)
    yield from _label_problems(file)
    yield from _split_problems(file)


def _first_row(wrong: np.ndarray) -> tuple[int, int] | None:
    """The first row `[..., K]` that holds a truth, and how many rows do; None where none does."""
    rows = np.flatnonzero(wrong.any(axis=1))
    return (int(rows[0]), len(rows)) if len(rows) else None


def _edge_problems(file: GraphFile) -> Iterator[str]:
    """Edges that join nodes which are not there."""
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


def _with_plain_edges(file: GraphFile, directed: bool | None) -> GraphFile:
    """A sound file whose undirected edges are there once each; what else there is, is told."""
    directed = file.directed if directed is None else directed
    graph = np.repeat(np.arange(file.num_graphs), np.diff(file.edge_ptr))
    ends = file.edge.astype(np.int64) + file.node_ptr[graph][:, None]
    total = max(int(file.node_ptr[-1]), 1)
    if directed:
        keys = np.unique(ends @ [total, 1])
        twice, back = len(ends) - len(keys), np.unique(keys % total * total + keys // total)
        one_way = len(keys) - len(np.intersect1d(keys, back, assume_unique=True))
        told = [f"{twice} edges are there more than once and count as often"] if twice else []
        if one_way:
            told.append(f"{one_way} of {len(keys)} edges lead one way (directed false: both ways)")
        return replace(file, directed=True, remarks=(*file.remarks, *told))
    keys = np.sort(ends, axis=1) @ [total, 1]
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(ends):
        return replace(file, directed=False)
    kept, same = np.sort(first), first[place.reshape(-1)]
    of_edges = {"weight": file.weights, "attributes": file.attributes}
    for what, values in of_edges.items():
        if values is None:
            continue
        differ = np.flatnonzero((values != values[same]).reshape(len(ends), -1).any(axis=1))
        if len(differ):
            again, number = differ[0], same[differ[0]]
            raise DataError(
                f"edge {number} {file.edge[number].tolist()} has {what} {_told(values[number])}, "
                f"edge {again} {file.edge[again].tolist()} is the same with "
                f"{_told(values[again])}: give both the same, or {option('directed', True)}"
            )
        of_edges[what] = values[kept]
    twice = len(ends) - len(kept)
    told = [f"{twice} of {len(ends)} edges repeat another or lead back: each counts once"]
    pointer = np.concatenate([[0], np.cumsum(np.bincount(graph[kept], minlength=file.num_graphs))])
    remarks = (*file.remarks, *told)
    return replace(
        file,
        directed=False,
        edge=file.edge[kept],
        edge_ptr=pointer,
        remarks=remarks,
        weights=of_edges["weight"],
        attributes=of_edges["attributes"],
    )


def _told(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in np.atleast_1d(values))


def _label_problems(file: GraphFile) -> Iterator[str]:
    """Classes that are not there, or have no node."""
    if not file.one_class:
        return
    one = "graph" if file.per_graph else "node"
    wrong = np.flatnonzero((file.targets < UNKNOWN) | (file.targets >= len(file.label_names)))
    if len(wrong):
        allowed = f"-1 (unknown) or 0 to {len(file.label_names) - 1}"
        yield f"{one} {wrong[0]} has class {file.targets[wrong[0]]}; allowed are {allowed}"
        return
    present = np.unique(file.targets[file.targets >= 0])
    if not len(present):
        yield f"no {one} has a known class"
    elif len(present) < len(file.label_names):
        missing = int(np.setdiff1d(np.arange(len(file.label_names)), present)[0])
        last = len(file.label_names) - 1
        yield f"no {one} has class {missing} of 0 to {last}: number the classes without gaps"


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
        if file.transductive and file.one_class and (file.targets[index] < 0).any():
            unknown = index[file.targets[index] < 0][0]
            yield f"node {unknown} of {split} has no known class: leave it out"
        if not file.transductive and (unasked := index[~asked_graphs(file)[index]]).size:
            none = "the label of" if file.per_graph else "no node of"
            ends = "is unknown" if file.per_graph else "has a known class"
            yield f"{none} graph {unasked[0]} of {split} {ends}: leave it out"


def asked_graphs(file: GraphFile) -> np.ndarray:
    """Which graphs `[G]` have a known class, or a node of one; of labels and numbers, all."""
    if not file.one_class:
        return np.ones(file.num_graphs, bool)
    if file.per_graph:
        return file.targets >= 0
    known = np.concatenate([[0], np.cumsum(file.targets >= 0)])
    return known[file.node_ptr[1:]] > known[file.node_ptr[:-1]]
