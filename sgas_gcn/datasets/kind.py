"""Which kind of data a name or a path stands for, told from names alone: no numpy, no torch."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from sgas_gcn.datasets import DATASETS
from sgas_gcn.datasets.graphs import GRAPH_DATASETS

POINT, GRAPH = "point", "graph"


def kind_of(dataset: str) -> str:
    """`graph` for a graph data set, or a file or folder whose arrays hold edges; else `point`.

    What is no such data set is told by the loader.
    """
    if dataset in GRAPH_DATASETS:
        return GRAPH
    if dataset in DATASETS:
        return POINT
    path = Path(dataset).expanduser()
    if path.suffix == ".npz" and not path.is_dir():  # clouds are always in a folder
        return POINT if "points.npy" in _arrays(path) else GRAPH
    if path.name.endswith("_A.txt") or (path.is_dir() and any(path.glob("*_A.txt"))):
        return GRAPH
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    edges = {"edge.npy", "edge_index.npy"}
    return GRAPH if any(edges & set(_arrays(file)) for file in files) else POINT


def looks_like_path(dataset: str) -> bool:
    """Whether what is no name of a data set is meant as a path."""
    path = Path(dataset).expanduser()
    return os.sep in dataset or path.suffix == ".npz" or path.exists()


def labels_graphs(dataset: str) -> bool:
    """Whether own graphs have a label each, and not one a node, as far as headers tell."""
    path = Path(dataset).expanduser()
    if path.name.endswith("_A.txt") or (path.is_dir() and any(path.glob("*_A.txt"))):
        return True
    for file in sorted(path.glob("*.npz")) if path.is_dir() else [path]:
        names = {name.removesuffix(".npy") for name in _arrays(file)}
        label = next((name for name in ("label", "y") if name in names), None)
        if label and "node_ptr" in names:
            from sgas.own.npz import read_headers

            headers = read_headers(file)
            return headers[label].shape[:1] == (headers["node_ptr"].shape[0] - 1,)
    return False


def _arrays(path: Path) -> list[str]:
    """The names of the arrays in an `.npz` file; none where it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []
