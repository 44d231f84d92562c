"""Cora, CiteSeer and PubMed: papers that cite each other, one graph, with the public split.

Source: Yang et al., "Revisiting Semi-Supervised Learning with Graph Embeddings", ICML 2016. The
graph is the one that PyTorch Geometric's `Planetoid` makes of the same files.

    DATA_ROOT/Cora/raw/ind.cora.x, …   downloaded, or put there by hand

The files are pickles of strangers, which could run any program: each has to have its published
checksum, and they are read by an unpickler that knows arrays, lists and dictionaries alone.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sgas.errors import DataError
from sgas.own.download import Sha256, download
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit

URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
FILES = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
# Of the files in the order of FILES, as several projects publish them.
# fmt: off
CHECKSUMS = {
    "Cora": (
        "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
        "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
        "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
        "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
        "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
        "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
        "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
        "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
    ),
    "CiteSeer": (
        "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
        "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
        "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
        "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
        "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
        "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
        "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
        "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
    ),
    "PubMed": (
        "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33",
        "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d",
        "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e",
        "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3",
        "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd",
        "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e",
        "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9",
        "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5",
    ),
}
# fmt: on
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
    for path, digits in zip(paths.values(), CHECKSUMS[name], strict=True):
        download(f"{URL}/{path.name}", path, Sha256(digits))
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


class _Numbers:
    """The type of an array as pickles have it; NumPy's own takes states that end the process."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch("[biuf][1248]", code):
            raise pickle.UnpicklingError(f"an array is of type {code!r}, which no number has")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """The second of a type's state is the order of bytes; plain numbers need no more."""
        self.code = {"<": "<", ">": ">"}.get(state[1], "|") + self.code


class _Array(np.ndarray):
    """An array as pickles have it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Version, shape, type, order and bytes; AttributeError where the type is another's."""
        version, shape, numbers, *rest = state
        super().__setstate__((version, shape, np.dtype(numbers.code), *rest))


class _ArraysAlone(pickle.Unpickler):
    """Reads NumPy's and SciPy's arrays, lists and dictionaries, and calls nothing else."""

    OURS: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy", "dtype"): _Numbers,
        ("numpy", "ndarray"): _Array,
    }
    NAMES = frozenset(
        {
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
        if (module, name) in self.OURS:
            return self.OURS[module, name]
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module.replace("scipy.sparse.csr", "scipy.sparse"), name)
