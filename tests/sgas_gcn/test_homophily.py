"""Homophily: the figure, and who is told that averages over neighbours may harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sgas.config import RunConfig
from sgas_gcn.config import GraphDataConfig, GraphModelConfig
from sgas_gcn.datasets.graph_arrays import GraphArrays
from sgas_gcn.datasets.homophily import adjusted_homophily
from sgas_gcn.graph_task import GraphTask

NODES = 120


def ring(classes: np.ndarray) -> GraphArrays:
    ahead = np.stack([np.arange(NODES), (np.arange(NODES) + 1) % NODES])
    x = np.ones((NODES, 2), np.float32)
    return GraphArrays(x, np.concatenate([ahead, ahead[::-1]], 1), classes)


def test_a_ring_by_hand() -> None:
    assert adjusted_homophily(ring(np.arange(NODES) % 2)) == (-1.0, 2 * NODES)  # never
    halves, count = adjusted_homophily(ring(np.arange(NODES) // (NODES // 2)))
    assert halves == pytest.approx(1 - 2 * 2 / NODES) and count == 2 * NODES  # twice in a ring
    thirds, _ = adjusted_homophily(ring(np.array([0, 0, 1] * (NODES // 3))))
    assert thirds == pytest.approx((1 / 3 - 5 / 9) / (4 / 9))
    assert np.isnan(adjusted_homophily(ring(np.zeros(NODES, int)))[0])
    part = GraphArrays(ring(np.arange(3)).x, ring(np.arange(3)).edges, np.array([0, 1, 1]))
    part = GraphArrays(part.x, part.edges, part.targets, nodes=np.array([5, 6, 9]))
    assert adjusted_homophily(part) == (-1.0, 2)  # 5 and 6 alone are neighbours


@pytest.mark.parametrize("alike", [False, True])
def test_a_task_tells_whose_neighbours_differ(tmp_path: Path, alike: bool) -> None:
    graph = ring(np.arange(NODES) // (NODES // 2) if alike else np.arange(NODES) % 2)
    path, nodes = tmp_path / "g.npz", np.arange(NODES)
    parts = {"train": nodes[:100], "val": nodes[100:110], "test": nodes[110:]}
    np.savez(path, x=graph.x, edge=graph.edges.T, label=graph.targets, **parts)
    task = GraphTask(str(path), GraphModelConfig(propagation=3), GraphDataConfig(), RunConfig())
    assert alike or "homophily -1.00 over 198 edges" in task.warnings[-1]
    assert sum("homophily" in warning for warning in task.warnings) == (not alike)
    without = GraphTask(str(path), GraphModelConfig(), GraphDataConfig(), RunConfig())
    assert not any("homophily" in warning for warning in without.warnings)
