"""Graphs of one's own: loads and describes an `.npz` file, whose format `graph_file.py` states.

Dimensions: G graphs, N nodes, E edges, D features, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sgas.config import AUTO
from sgas.data import stratified_parts
from sgas.errors import DataError
from sgas.own import has_test_part
from sgas.own.folders import NO_TEST, drawn_in_words
from sgas_gcn.config import GraphDataConfig
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit
from sgas_gcn.datasets.graph_file import (
    SPLITS,
    GraphFile,
    asked_graphs,
    find_file,
    read_graph_file,
)
from sgas_gcn.datasets.moments import Moments, edge_warnings

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
# A split that follows the run's seed would let the search of one seed see the test of another.
SPLIT_SEED = 0
_TASKS = {True: "transductive", False: "inductive"}


def load_graph_file(path: Path, split: str, options: GraphDataConfig) -> GraphSplit:
    """One split of a file, or of the one file in a folder; DataError with the first problem."""
    path = find_file(path)
    file, problems = read_graph_file(path, options)
    if file is None:
        more = f" (and {len(problems) - 1} more: sgas-gcn check {path})"
        raise DataError(problems[0] + (more if len(problems) > 1 else ""))
    file, told = with_splits(file, options.test_fraction), _splits_in_words(file, options)
    index = file.splits.get(split, np.empty(0, np.int64))
    if not file.transductive:
        graphs = tuple(_graph(file, int(number)) for number in index)
    elif len(index):
        graphs = (replace(_graph(file, 0), targets=file.targets[index], nodes=index),)
    else:
        graphs = ()
    return GraphSplit(
        graphs,
        file.label_names,
        file.targets.dtype == bool,
        file.transductive,
        file.per_graph,
        (*file.remarks, *told),
    )


def load_unlabelled(path: Path) -> list[GraphArrays]:
    """The graphs of an `.npz` file without labels; DataError with the first problem."""
    file, problems = read_graph_file(path, GraphDataConfig(), unlabelled=True)
    if file is None:
        raise DataError(problems[0])
    return [_graph(file, number) for number in range(file.num_graphs)]


def _splits_in_words(file: GraphFile, options: GraphDataConfig) -> list[str]:
    """What is to be said of the splits of a file: which are drawn, and whether test is missing."""
    if options.test_fraction:
        return [drawn_in_words(options.test_fraction)]
    if not file.splits:
        shares = ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
        return [f"splits drawn: {shares}"]
    return [] if len(file.splits.get("test", ())) else [NO_TEST]


def with_splits(file: GraphFile, test_fraction: float = 0.0) -> GraphFile:
    """The file as it is, or with a split drawn where it has none: 60 % train, 20 % val, 20 % test.

    With `test_fraction`, a test part is drawn of what is in training, or of all. What has a class
    is drawn within each; nodes and graphs without a known class are in no split. DataError where
    there are too few graphs, or nodes of a class, for every split to get one; ConfigError where
    there is a test part already.
    """
    if len(file.splits.get("test", ())) and test_fraction:
        raise has_test_part(file.path)
    if file.splits and not test_fraction:
        return file
    shares = {"train": 1 - test_fraction, "test": test_fraction} if test_fraction else SHARES
    if file.splits:
        known = file.splits["train"]
    elif file.transductive:
        known = np.flatnonzero(file.targets >= 0) if file.one_class else np.arange(len(file.x))
    else:
        known = np.flatnonzero(asked_graphs(file))
    strata = np.zeros(len(known), np.int64)
    if file.one_class and (file.transductive or file.per_graph):
        strata = file.targets[known]
    if len(known) < len(shares):
        one = "nodes" if file.transductive else "graphs"
        raise DataError(
            f"{file.path} has {len(known)} {one} and no split; a draw needs {len(shares)}"
        )
    drawn = stratified_parts(strata, tuple(shares.values()), SPLIT_SEED)
    parts = {split: known[part] for split, part in zip(shares, drawn, strict=True)}
    return replace(file, splits={**file.splits, **parts})


def _graph(file: GraphFile, number: int) -> GraphArrays:
    """One graph of a file; nodes without a known class are not asked."""
    nodes = slice(*file.node_ptr[number : number + 2])
    own = slice(*file.edge_ptr[number : number + 2])
    edges = file.edge[own].astype(np.int64).T
    again = (edges[0] != edges[1]) & (not file.directed)  # what leads back, too

    def both(of_edges: np.ndarray | None) -> np.ndarray | None:
        return None if of_edges is None else np.concatenate([of_edges[own], of_edges[own][again]])

    more = both(file.weights), both(file.attributes)
    edges = edges if file.directed else both_ways(edges)
    targets = file.targets[[number]] if file.per_graph else file.targets[nodes]
    if file.per_graph or not file.one_class or (targets >= 0).all():
        return GraphArrays(file.x[nodes], edges, targets, None, *more)
    known = np.flatnonzero(targets >= 0)
    return GraphArrays(file.x[nodes], edges, targets[known], known, *more)


def both_ways(edges: np.ndarray) -> np.ndarray:
    """Edges `[2, E]` and after them those that lead back, of self-loops none."""
    return np.concatenate([edges, edges[::-1, edges[0] != edges[1]]], axis=1)


def describe_graph_file(path: str | Path, target: str = AUTO) -> dict[str, Any]:
    """A file's contents as JSON values; raises for nothing that it may hold.

    Keys: `path`; `task`, transductive or inductive, or graphs where these are asked; `graphs`,
    `nodes`, `edges`, `features`, `mean_degree`; `isolated_nodes`, `self_loops`; `labels`, each with
    `name` and `nodes` (or `graphs`), or of numbers with `mean`, `std`, `lowest` and `highest`;
    `multi_label`; `splits`, how many graphs or nodes by split; `remarks`, what is not used or was
    changed; `problems`, which keep the file from being used; `warnings`, which do not. What cannot
    be read is missing.
    """
    try:
        array_file = find_file(Path(path))
        file, problems = read_graph_file(array_file, GraphDataConfig(target=target))
        if file is not None:
            told = _splits_in_words(file, GraphDataConfig())
            return {"path": str(array_file), **_describe(with_splits(file), told)}
    except DataError as error:
        problems = [error.args[0]]
    told = [DataError(problem).for_command() for problem in problems]
    return {"path": str(path), "problems": told, "warnings": []}


def _describe(file: GraphFile, of_splits: Sequence[str]) -> dict[str, Any]:
    graph = np.repeat(np.arange(len(file.node_ptr) - 1), np.diff(file.edge_ptr))
    ends = file.edge.astype(np.int64) + file.node_ptr[graph][:, None]
    num_nodes, num_edges = len(file.x), len(file.edge)
    one, count_all = ("graph", file.num_graphs) if file.per_graph else ("node", num_nodes)
    touched = np.unique(ends[:, 1] if file.directed else ends)
    loops = int((ends[:, 0] == ends[:, 1]).sum())
    labels, warnings = _labels(file, f"{one}s"), []
    if file.targets.dtype.kind != "f":
        warnings = [
            f"label {label['name']} is on for {'every' if label[f'{one}s'] else 'no'} {one}"
            for label in labels
            if label[f"{one}s"] in (0, count_all)
        ]
    if loops:
        warnings.append(f"{loops} edges join a node to itself and count as they are")
    warnings += Moments.of([file.x]).warnings()
    warnings += [] if file.attributes is None else edge_warnings([file.attributes])
    return {
        "task": "graphs" if file.per_graph else _TASKS[file.transductive],
        "graphs": len(file.node_ptr) - 1,
        "nodes": num_nodes,
        "edges": num_edges,
        "features": int(file.x.shape[1]),
        "mean_degree": (1 if file.directed else 2) * num_edges / num_nodes,
        "isolated_nodes": num_nodes - len(touched),
        "self_loops": loops,
        "multi_label": file.targets.dtype == bool,
        "labels": labels,
        "splits": {split: len(file.splits.get(split, ())) for split in SPLITS},
        "remarks": [*file.remarks, *of_splits],
        "problems": [],
        "warnings": warnings,
    }


def _labels(file: GraphFile, counted: str) -> list[dict[str, Any]]:
    """What is to be predicted: how many have each label, or how numbers are spread."""
    if file.targets.dtype.kind == "f":
        return [
            {
                "name": name,
                "mean": float(values.mean(dtype=np.float64)),
                "std": float(values.std(dtype=np.float64)),
                "lowest": float(values.min()),
                "highest": float(values.max()),
            }
            for name, values in zip(file.label_names, file.targets.T, strict=True)
        ]
    if file.one_class:
        counts = np.bincount(file.targets[file.targets >= 0], minlength=len(file.label_names))
    else:
        counts = file.targets.sum(0)
    return [
        {"name": name, counted: int(count)}
        for name, count in zip(file.label_names, counts, strict=True)
    ]
