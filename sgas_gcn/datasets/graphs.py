"""Data sets of graphs: what a split is, a table of names, and files of one's own.

Inductive sets have several graphs, each in one split. Transductive sets have one graph, whose nodes
are split. A new data set is a loader in a file of this folder and a line in `GRAPH_DATASETS`.
Loaders import what they need when they are called: the command line reads this module for the
names. Dimensions: N nodes of a graph, D features, E edges, R labelled nodes, L labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sgas.errors import DataError, unknown_name
from sgas.own import refuse_options
from sgas_gcn.config import GraphDataConfig

if TYPE_CHECKING:
    from sgas_gcn.datasets.graph_arrays import GraphSplit

SPLITS = ("train", "val", "test")


Load = Callable[[str, Path, int], "GraphSplit"]


@dataclass(frozen=True)
class GraphEntry:
    """A data set with a name: `load(split, data_root, seed)` gives one split of it."""

    name: str
    help: str
    load: Load


def _load_tissues(split: str, data_root: Path, seed: int) -> GraphSplit:
    from sgas_gcn.datasets.tissues import load_tissues

    return load_tissues(split, seed)


def _load_ppi(split: str, data_root: Path, seed: int) -> GraphSplit:
    from sgas_gcn.datasets.ppi import load_ppi

    return load_ppi(split, data_root)


def _load_planetoid(name: str, split: str, data_root: Path, seed: int) -> GraphSplit:
    from sgas_gcn.datasets.planetoid import load_planetoid

    return load_planetoid(name, split, data_root)


_ENTRIES = (
    GraphEntry("tissues", "generated graphs, 12 labels a node; no download", _load_tissues),
    GraphEntry("ppi", "protein interactions, 121 labels a node; downloads 30 MB", _load_ppi),
    GraphEntry("cora", "citations, 7 classes; downloads 0.2 MB", partial(_load_planetoid, "Cora")),
    GraphEntry(
        "citeseer", "citations, 6 classes; downloads 0.3 MB", partial(_load_planetoid, "CiteSeer")
    ),
    GraphEntry(
        "pubmed", "citations, 3 classes; downloads 6 MB", partial(_load_planetoid, "PubMed")
    ),
)

GRAPH_DATASETS: dict[str, GraphEntry] = {entry.name: entry for entry in _ENTRIES}


def load_graphs(
    dataset: str,
    split: str,
    data_root: str | Path,
    seed: int,
    options: GraphDataConfig | None = None,
) -> GraphSplit:
    """One split, "train", "val" or "test", of a data set of `GRAPH_DATASETS` or of an own file.

    `dataset` is taken for an `.npz` file, or a folder with one, where it is no name of the table
    and contains a path separator, ends in .npz or exists (`graph_file.py` states the format).
    `data_root` is where downloads lie; `seed` governs generated sets; `options` say what own data
    is. DataError where the name is unknown or the data cannot be used, ConfigError for options that
    it does not have.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, DataError)
    options = options or GraphDataConfig()
    if dataset in GRAPH_DATASETS:
        refuse_options(dataset, options)
        return GRAPH_DATASETS[dataset].load(split, Path(data_root), seed)
    path = Path(dataset).expanduser()
    if os.sep in dataset or path.suffix == ".npz" or path.exists():
        from sgas_gcn.datasets.graph_folder import load_graph_file

        return load_graph_file(path, split, options)
    known = unknown_name("data set", dataset, GRAPH_DATASETS, DataError)
    raise DataError(f"{known}, or give the path of an .npz file with graphs")
