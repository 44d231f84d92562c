"""Generated tissues: several graphs over genes whose labels ask for two steps in the graph.

Features x are noise, each node's own. A label l of a node i is on where many of its neighbours
answer, in turn, to the mean of their neighbours: with u_l and w_l two directions of the label,

    h_l(j) = ReLU(u_l · mean of x_k over the neighbours k of j, in deviations, less 1)
    label l of i is on where (mean of h_l(j) over the neighbours j of i) + w_l · x_i / 20 is large.

Own features alone say little, one step hardly more, and means over two steps not all, for want of
the ReLU between them. Tissues differ in edges and features; what a label means is the same in all.

Dimensions: N nodes, D features, L labels.
"""

from __future__ import annotations

import numpy as np

from sgas.data import stream_seed
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit

COUNTS = {"train": 20, "val": 2, "test": 2}  # graphs, as many as PPI has
SIZES = (200, 400)  # nodes, from and to
MEAN_DEGREE = 10
NUM_FEATURES = 8
NUM_LABELS = 12
OWN_WEIGHT = 0.05
BUSY = 0.5  # spread of how many edges a node has, as the deviation of a logarithm
BEND = 1.0  # where the ReLU begins, in deviations of its input
RATES = (0.1, 0.3)  # how often a label is on, from the first label to the last
NOISE = 0.02  # labels that are turned over
REFERENCE_GRAPHS = 8  # graphs that settle how large "large" is; in no split


def load_tissues(split: str, seed: int) -> GraphSplit:
    """One split: graphs with float32 features `[N, 8]` and bool labels `[N, 12]`.

    The graphs depend on the arguments alone, and different splits are of different random numbers.
    """
    rule = _Rule(seed)
    graphs = tuple(
        rule.graph(np.random.default_rng(stream_seed(seed, "tissues", split, number)))
        for number in range(COUNTS[split])
    )
    names = tuple(f"function {number}" for number in range(NUM_LABELS))
    return GraphSplit(graphs, names, multi_label=True)


class _Rule:
    """What the labels mean, the same in all tissues of a seed."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(stream_seed(seed, "tissues", "rule"))
        self.inner = _directions(generator)
        self.own = _directions(generator)
        scores = [self._tissue(generator)[2] for _ in range(REFERENCE_GRAPHS)]
        rates = np.linspace(*RATES, NUM_LABELS)
        self.thresholds = np.array(
            [
                np.quantile(column, 1 - rate)
                for column, rate in zip(np.concatenate(scores).T, rates, strict=True)
            ]
        )

    def graph(self, generator: np.random.Generator) -> GraphArrays:
        """A new tissue."""
        x, edges, scores = self._tissue(generator)
        labels = scores > self.thresholds
        labels ^= generator.random(labels.shape) < NOISE
        return GraphArrays(x.astype(np.float32), edges, labels)

    def _tissue(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features `[N, D]`, edges `[2, E]` in both directions, scores of the labels `[N, L]`."""
        num_nodes = int(generator.integers(*SIZES, endpoint=True))
        x = generator.standard_normal((num_nodes, NUM_FEATURES))
        edges = _random_edges(num_nodes, generator)
        around = _neighbor_mean(x, edges) @ self.inner.T * MEAN_DEGREE**0.5
        hidden = np.maximum(around - BEND, 0)
        return x, edges, _neighbor_mean(hidden, edges) + OWN_WEIGHT * (x @ self.own.T)


def _directions(generator: np.random.Generator) -> np.ndarray:
    """Unit vectors `[L, D]`."""
    rows = generator.standard_normal((NUM_LABELS, NUM_FEATURES))
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _random_edges(num_nodes: int, generator: np.random.Generator) -> np.ndarray:
    """Undirected edges in both directions `[2, E]`, some nodes busier than others."""
    weight = generator.lognormal(sigma=BUSY, size=num_nodes)
    wanted = num_nodes * MEAN_DEGREE // 2
    draws = generator.choice(num_nodes, size=(2 * wanted, 2), p=weight / weight.sum())
    kept = draws[draws[:, 0] != draws[:, 1]]
    pairs = np.unique(np.sort(kept, axis=1), axis=0)
    chosen = generator.permutation(pairs)[:wanted]
    return np.concatenate([chosen, chosen[:, ::-1]]).T.astype(np.int64)


def _neighbor_mean(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of `x` `[N, D]` over the neighbours; 0 for a node without any."""
    total = np.zeros_like(x)
    np.add.at(total, edges[1], x[edges[0]])
    degree = np.bincount(edges[1], minlength=len(x))[:, None]
    mean: np.ndarray = total / np.maximum(degree, 1)
    return mean
