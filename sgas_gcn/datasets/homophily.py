"""Homophily: whether neighbours share their class more often than chance has it."""

from __future__ import annotations

import numpy as np

from sgas_gcn.datasets.graph_arrays import GraphArrays

LEAST = 0.2  # of graphs on which averages over neighbours help: .6 to .8; of others, -.1 to .2
EDGES = 100  # fewer between training nodes tell nothing


def adjusted_homophily(graph: GraphArrays) -> tuple[float, int]:
    """How often neighbours share a class, 1 always, 0 as by chance; and the edges that it is of.

    Those between nodes with targets, which are one class each: h = (s − c) / (1 − c), s the share
    of edges within a class, c the sum of squares of the classes' shares of the ends of edges.
    Source: Platonov et al., "Characterizing Graph Datasets for Node Classification: Homophily-
    Heterophily Dichotomy and Beyond", NeurIPS 2023, equation 2. NaN without edges between classes.
    """
    labels = np.full(len(graph.x), -1)
    labels[slice(None) if graph.nodes is None else graph.nodes] = graph.targets
    ends = labels[graph.edges]
    ends = ends[:, (ends >= 0).all(0) & (graph.edges[0] != graph.edges[1])]
    count = ends.shape[1]
    if not count:
        return float("nan"), 0
    chance = float(np.square(np.bincount(ends.ravel()) / ends.size).sum())
    within = float((ends[0] == ends[1]).mean())
    return (within - chance) / (1 - chance) if chance < 1 else float("nan"), count


def homophily_warnings(graph: GraphArrays, propagation: int) -> list[str]:
    """What to do where logits go on to neighbours that are of other classes."""
    if not propagation or graph.targets.ndim > 1:
        return []
    homophily, count = adjusted_homophily(graph)
    if count < EDGES or not homophily < LEAST:
        return []
    return [
        f"neighbours seldom share a class (adjusted homophily {homophily:.2f} over {count:,} edges "
        f"between training nodes), and propagation {propagation} averages over them: 0 may do "
        "better"
    ]
