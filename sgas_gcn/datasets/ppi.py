"""PPI: protein interactions in 24 human tissues, 20 to train, 2 to validate, 2 to test.

Source: Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017. The
graphs are those that PyTorch Geometric's `PPI` makes of the same files, without self-loops.

    DATA_ROOT/ppi/ppi.zip   downloaded, or put there by hand
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from sgas.errors import DataError
from sgas.files import decode
from sgas.own.download import Sha256, download
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit

URL = "https://data.dgl.ai/dataset/ppi.zip"
# As several projects publish it.
CHECKSUM = Sha256("1f5b2b09ac0f897fa6aa1338c64ab75a5473674cbba89380120bede8cddb2a6a")
PARTS = {"train": "train", "val": "valid", "test": "test"}
FILES = ("feats.npy", "labels.npy", "graph_id.npy", "graph.json")
# Graphs and nodes of each split; features and labels of a node.
SIZES = {"train": (20, 44906), "val": (2, 6514), "test": (2, 5524)}
NUM_FEATURES, NUM_LABELS = 50, 121


class _Link(msgspec.Struct):
    source: int
    target: int


class _Links(msgspec.Struct):
    links: list[_Link]


def load_ppi(split: str, data_root: Path) -> GraphSplit:
    """One split: graphs with 50 float32 features and 121 bool labels a node.

    The first call downloads the archive where it is missing. DataError where the download fails (it
    says which file to put where), and where the archive is damaged.
    """
    folder = data_root / "ppi"
    try:
        graphs = tuple(_graphs(_read(folder, PARTS[split]), split))
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{folder / 'ppi.zip'} is damaged ({error}): delete it to download it again, or put a "
            "whole one there"
        ) from error
    names = tuple(f"label {number}" for number in range(NUM_LABELS))
    return GraphSplit(graphs, names, multi_label=True)


def _read(folder: Path, part: str) -> list[bytes]:
    """The contents of a part's files in the archive."""
    names = [f"{part}_{file}" for file in FILES]
    with zipfile.ZipFile(download(URL, folder / "ppi.zip", CHECKSUM)) as members:
        inside = {Path(name).name: name for name in members.namelist()}
        return [members.read(inside[name]) for name in names]


def _graphs(contents: list[bytes], split: str) -> Iterator[GraphArrays]:
    """The graphs of a part, whose nodes stand one graph after the other."""
    x, labels, graph = (np.load(io.BytesIO(c), allow_pickle=False) for c in contents[:3])
    links = decode(contents[3], _Links).links
    ends = np.array([(link.source, link.target) for link in links], np.int64).reshape(-1, 2)
    firsts = np.flatnonzero(np.diff(graph, prepend=graph[:1] - 1))
    found = (len(firsts), len(x)), x.shape[1:], labels.shape, graph.shape
    wanted = SIZES[split], (NUM_FEATURES,), (len(x), NUM_LABELS), (len(x),)
    if found != wanted or ends.min() < 0 or ends.max() >= len(x):
        raise ValueError(f"its {split} part has other sizes than published: {found}")
    ends = ends[ends[:, 0] != ends[:, 1]]
    both = np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)
    if (graph[both[:, 0]] != graph[both[:, 1]]).any():
        raise ValueError("an edge goes from one graph to another")
    for first, last in zip(firsts, [*firsts[1:], len(x)], strict=True):
        edges = both[(both[:, 0] >= first) & (both[:, 0] < last)].T - first
        yield GraphArrays(
            x[first:last].astype(np.float32), np.ascontiguousarray(edges), labels[first:last] > 0
        )
