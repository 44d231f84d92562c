"""PPI: protein interactions in 24 human tissues, 20 to train, 2 to validate, 2 to test.

Source: Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017, read by
PyTorch Geometric's `PPI`, which drops self-loops. The archive is downloaded by us, because that
can be resumed.

    DATA_ROOT/ppi/ppi.zip   downloaded, or put there by hand
    DATA_ROOT/ppi/raw       its files
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sgas.errors import DataError
from sgas.own.download import download
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit

PARTS = ("train", "valid", "test")
FILES = ("feats.npy", "graph_id.npy", "graph.json", "labels.npy")


def load_ppi(split: str, data_root: Path) -> GraphSplit:
    """One split: graphs with 50 float32 features and 121 bool labels a node.

    The first call downloads the archive where it is missing and reads all of it. DataError where
    the download fails (it says which file to put where), and where the archive is damaged.
    """
    from torch_geometric.datasets import PPI

    folder = data_root / "ppi"
    _unpack(PPI.url, folder)
    try:
        graphs = list(PPI(str(folder), split=split))
    except Exception as error:  # PyG raises whatever a damaged file leads it to
        raise DataError(
            f"{folder} cannot be read ({type(error).__name__}: {error}): delete it to download "
            "PPI again"
        ) from error
    names = tuple(f"label {number}" for number in range(graphs[0].y.shape[1]))
    return GraphSplit(tuple(_arrays(graph) for graph in graphs), names, multi_label=True)


def _arrays(graph: Any) -> GraphArrays:
    return GraphArrays(
        graph.x.numpy().astype(np.float32),
        graph.edge_index.numpy().astype(np.int64),
        graph.y.numpy() > 0,
    )


def _unpack(url: str, folder: Path) -> None:
    """Puts the raw files where PyG looks for them."""
    raw = folder / "raw"
    wanted = [f"{part}_{file}" for part in PARTS for file in FILES]
    if all((raw / name).exists() for name in wanted):
        return
    archive = download(url, folder / "ppi.zip")
    raw.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as members:
            inside = {Path(name).name: name for name in members.namelist()}
            for name in wanted:
                (raw / name).write_bytes(members.read(inside[name]))
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{archive} is damaged ({error}): delete it to download it again, or put a whole one "
            "there"
        ) from error
