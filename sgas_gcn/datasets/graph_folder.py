"""Graphs of one's own: loads and describes an `.npz` file, whose format `graph_file.py` states.

Dimensions: G graphs, N nodes, E edges, D features, L labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sgas.data import stratified_parts
from sgas.errors import DataError
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit
from sgas_gcn.datasets.graph_file import (
    SPLITS,
    GraphFile,
    asked_graphs,
    find_file,
    read_graph_file,
)
from sgas_gcn.datasets.moments import Moments

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
# A split that follows the run's seed would let the search of one seed see the test of another.
SPLIT_SEED = 0


def load_graph_file(path: Path, split: str) -> GraphSplit:
    """One split of a file, or of the one file in a folder; DataError with the first problem."""
    path = find_file(path)
    file, problems = read_graph_file(path)
    if file is None:
        more = f" (and {len(problems) - 1} more: sgas-gcn check {path})"
        raise DataError(problems[0] + (more if len(problems) > 1 else ""))
    file = with_splits(file)
    index = file.splits.get(split, np.empty(0, np.int64))
    if not file.transductive:
        graphs = tuple(_graph(file, int(number)) for number in index)
    elif len(index):
        graphs = (replace(_graph(file, 0), targets=file.targets[index], nodes=index),)
    else:
        graphs = ()
    return GraphSplit(graphs, file.label_names, file.multi_label, file.transductive)


def with_splits(file: GraphFile) -> GraphFile:
    """The file as it is, or with a split drawn where it has none: 60 % train, 20 % val, 20 % test.

    Nodes are drawn within each class; nodes without a known class are in no split, nor are graphs
    of such nodes alone. DataError where there are too few graphs, or nodes of a class, for every
    split to get one.
    """
    if file.splits:
        return file
    shares = tuple(SHARES.values())
    if file.transductive:
        known = np.arange(len(file.targets))
        strata = np.zeros(len(known), np.int64)
        if not file.multi_label:
            known = np.flatnonzero(file.targets >= 0)
            strata = file.targets[known]
        parts = [known[part] for part in stratified_parts(strata, shares, SPLIT_SEED)]
    else:
        asked = np.flatnonzero(asked_graphs(file))
        if len(asked) < len(shares):
            raise DataError(
                f"{file.path} has {len(asked)} graphs and no split; a draw needs {len(shares)}"
            )
        drawn = stratified_parts(np.zeros(len(asked), np.int64), shares, SPLIT_SEED)
        parts = [asked[part] for part in drawn]
    return replace(file, splits=dict(zip(SHARES, parts, strict=True)))


def _graph(file: GraphFile, number: int) -> GraphArrays:
    """One graph of a file; nodes without a known class are not asked."""
    nodes = slice(*file.node_ptr[number : number + 2])
    edges = file.edge[slice(*file.edge_ptr[number : number + 2])].astype(np.int64).T
    edges = edges if file.directed else both_ways(edges)
    targets = file.targets[nodes]
    if file.multi_label or (targets >= 0).all():
        return GraphArrays(file.x[nodes], edges, targets)
    known = np.flatnonzero(targets >= 0)
    return GraphArrays(file.x[nodes], edges, targets[known], known)


def both_ways(edges: np.ndarray) -> np.ndarray:
    """Edges `[2, E]` and after them those that lead back, of self-loops none."""
    return np.concatenate([edges, edges[::-1, edges[0] != edges[1]]], axis=1)


def describe_graph_file(path: str | Path) -> dict[str, Any]:
    """A file's contents as JSON values; raises for nothing that it may hold.

    Keys: `path`; `task`, transductive or inductive; `graphs`, `nodes`, `edges`, `features`,
    `mean_degree`; `isolated_nodes`, `self_loops`; `labels`, each with `name` and `nodes`;
    `multi_label`; `splits`, how many graphs or nodes by split; `problems`, which keep the file from
    being used; `warnings`, which do not. What cannot be read is missing.
    """
    try:
        array_file = find_file(Path(path))
        file, problems = read_graph_file(array_file)
        if file is not None:
            return {"path": str(array_file), **_describe(with_splits(file), bool(file.splits))}
    except DataError as error:
        problems = [str(error)]
    return {"path": str(path), "problems": problems, "warnings": []}


def _describe(file: GraphFile, has_splits: bool) -> dict[str, Any]:
    graph = np.repeat(np.arange(len(file.node_ptr) - 1), np.diff(file.edge_ptr))
    ends = file.edge.astype(np.int64) + file.node_ptr[graph][:, None]
    num_nodes, num_edges = len(file.targets), len(file.edge)
    touched = np.unique(ends[:, 1] if file.directed else ends)
    loops = int((ends[:, 0] == ends[:, 1]).sum())
    if file.multi_label:
        counts = file.targets.sum(0)
    else:
        counts = np.bincount(file.targets[file.targets >= 0], minlength=len(file.label_names))
    warnings = [
        f"label {name} is on for {'no' if not count else 'every'} node"
        for name, count in zip(file.label_names, counts, strict=True)
        if count in (0, num_nodes)
    ]
    if not has_splits:
        warnings.append("there are no splits: 60 % train, 20 % val and 20 % test are drawn")
    if loops:
        warnings.append(f"{loops} edges join a node to itself and count as they are")
    warnings += Moments.of([file.x]).warnings()
    return {
        "task": "transductive" if file.transductive else "inductive",
        "graphs": len(file.node_ptr) - 1,
        "nodes": num_nodes,
        "edges": num_edges,
        "features": int(file.x.shape[1]),
        "mean_degree": (1 if file.directed else 2) * num_edges / num_nodes,
        "isolated_nodes": num_nodes - len(touched),
        "self_loops": loops,
        "multi_label": file.multi_label,
        "labels": [
            {"name": name, "nodes": int(count)}
            for name, count in zip(file.label_names, counts, strict=True)
        ],
        "splits": {split: len(file.splits.get(split, ())) for split in SPLITS},
        "problems": [],
        "warnings": warnings,
    }
