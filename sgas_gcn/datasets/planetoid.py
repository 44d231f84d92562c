"""Cora, CiteSeer and PubMed: papers that cite each other, one graph, with the public split.

Source: Yang et al., "Revisiting Semi-Supervised Learning with Graph Embeddings", ICML 2016. The
graph is the one that PyTorch Geometric's `Planetoid` makes of the same files.

    DATA_ROOT/Cora/raw/ind.cora.x, …   downloaded, or put there by hand

The files are pickles of strangers, which could run any program: they are read by an unpickler that
knows arrays, lists and dictionaries alone. No checksum of them is published; what they hold has to
be of the published sizes.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sgas.errors import DataError
from sgas.own.download import FirstSeen, download
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit

URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
FILES = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
# Nodes, directed edges, features and classes.
SIZES = {
    "Cora": (2708, 10556, 1433, 7),
    "CiteSeer": (3327, 9104, 3703, 6),
    "PubMed": (19717, 88648, 500, 3),
}
NUM_VALIDATION = 500  # nodes after those of the training part


def load_planetoid(name: str, split: str, data_root: Path) -> GraphSplit:
    """One split of a data set of `SIZES`: the graph, with the classes of the split's nodes.

    DataError where the download fails (it says which file to put where), and where a file is
    damaged.
    """
    folder = data_root / name / "raw"
    paths = {file: folder / f"ind.{name.lower()}.{file}" for file in FILES}
    for path in paths.values():
        download(f"{URL}/{path.name}", path, FirstSeen())
    try:
        x, labels, edges, nodes = _read(paths, SIZES[name])
    except Exception as error:  # whatever a damaged file leads NumPy and SciPy to
        raise DataError(
            f"{folder} cannot be read ({type(error).__name__}: {error}): delete it to download "
            f"{name} again"
        ) from error
    classes = tuple(f"class {number}" for number in range(SIZES[name][-1]))
    arrays = GraphArrays(x, edges, labels[nodes[split]], nodes[split])
    return GraphSplit((arrays,), classes, multi_label=False, transductive=True)


def _read(
    paths: dict[str, Path], sizes: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Features `[N, F]`, classes `[N]`, edges `[2, E]` and the nodes of each split."""
    num_nodes, _, num_features, num_classes = sizes
    held = {name: _unpickled(path) for name, path in paths.items() if name != "test.index"}
    test = np.loadtxt(paths["test.index"], dtype=np.int64, ndmin=1)
    x, labels = (
        _in_place(held[known], held[tested], test, num_nodes, width)
        for known, tested, width in (("allx", "tx", num_features), ("ally", "ty", num_classes))
    )
    pairs = [(a, b) for a, others in held["graph"].items() for b in others if a != b]
    edges = np.unique(np.array([(b, a) for a, b in pairs], np.int64), axis=0).T[::-1]
    found = len(x), edges.shape[1], x.shape[1], labels.shape[1]
    if found != sizes or edges.min() < 0 or edges.max() >= num_nodes:
        raise ValueError(f"it has {found} nodes, edges, features and classes, wanted are {sizes}")
    num_training = len(_dense(held["y"], num_classes))
    nodes = {
        "train": np.arange(num_training),
        "val": np.arange(num_training, num_training + NUM_VALIDATION),
        "test": np.sort(test),
    }
    return x, labels.argmax(1), np.ascontiguousarray(edges), nodes


def _in_place(known: Any, tested: Any, test: np.ndarray, num_nodes: int, width: int) -> np.ndarray:
    """Rows `[N, width]` of all nodes: those known, then those to be tested, each at its number.

    CiteSeer has numbers in between that no file describes: papers without text, rows of zeros.
    """
    rows = np.zeros((num_nodes, width), np.float32)
    rows[: len(_dense(known, width))] = _dense(known, width)
    rows[test] = _dense(tested, width)
    return rows


def _dense(array: Any, width: int) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"an array has shape {list(array.shape)}, wanted are {width} columns")
    if hasattr(array, "check_format"):
        array.check_format(full_check=True)  # SciPy writes where the indices say
        array = array.toarray()
    dense: np.ndarray = array
    return dense


def _unpickled(path: Path) -> Any:
    with open(path, "rb") as file:
        return _ArraysAlone(file, encoding="latin1").load()


class _ArraysAlone(pickle.Unpickler):
    """Reads NumPy's and SciPy's arrays, lists and dictionaries, and calls nothing else."""

    NAMES = frozenset(
        {
            *(("numpy", name) for name in ("ndarray", "dtype")),
            *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
            *((f"scipy.sparse.{csr}", "csr_matrix") for csr in ("csr", "_csr")),
            *((f"{python}", "list") for python in ("__builtin__", "builtins")),
            *((f"{python}", "object") for python in ("__builtin__", "builtins")),
            *((copy, "_reconstructor") for copy in ("copy_reg", "copyreg")),
            ("collections", "defaultdict"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of a name that arrays need; UnpicklingError for any other."""
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module.replace("scipy.sparse.csr", "scipy.sparse"), name)
