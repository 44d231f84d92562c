"""Cora, CiteSeer and PubMed: papers that cite each other, one graph, with the public split.

Source: Yang et al., "Revisiting Semi-Supervised Learning with Graph Embeddings", ICML 2016, read by
PyTorch Geometric's `Planetoid`. The files are downloaded by us, because that can be resumed.

    DATA_ROOT/Cora/raw/ind.cora.x, …   downloaded, or put there by hand
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sgas.errors import DataError
from sgas.own.download import download
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit

FILES = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def load_planetoid(name: str, split: str, data_root: Path) -> GraphSplit:
    """One split of `name` as PyG spells it: the graph, with the classes of the split's nodes.

    DataError where the download fails (it says which file to put where), and where a file is
    damaged.
    """
    from torch_geometric.datasets import Planetoid

    folder = data_root / name
    for file in FILES:
        raw = f"ind.{name.lower()}.{file}"
        download(f"{Planetoid.url}/{raw}", folder / "raw" / raw)
    try:
        graph = Planetoid(str(data_root), name)[0]
    except Exception as error:  # PyG raises whatever a damaged file leads it to
        raise DataError(
            f"{folder} cannot be read ({type(error).__name__}: {error}): delete it to download "
            f"{name} again"
        ) from error
    nodes = graph[f"{split}_mask"].nonzero().flatten().numpy()
    classes = tuple(f"class {number}" for number in range(int(graph.y.max()) + 1))
    arrays = GraphArrays(
        graph.x.numpy().astype(np.float32),
        graph.edge_index.numpy().astype(np.int64),
        graph.y.numpy()[nodes].astype(np.int64),
        nodes,
    )
    return GraphSplit((arrays,), classes, multi_label=False, transductive=True)
