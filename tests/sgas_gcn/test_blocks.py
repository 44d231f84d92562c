"""One large graph in blocks: what steps hold, what is asked, and what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sgas_gcn
from sgas.errors import ConfigError
from sgas_gcn.blocks import Blocks, partition
from sgas_gcn.datasets.graph_arrays import GraphArrays


def communities(nodes: int = 600, number: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """The community of each node, and edges both ways, nine in ten within one."""
    draw = np.random.default_rng(0)
    member = draw.integers(0, number, nodes)
    pairs = draw.integers(0, nodes, (2, 60 * nodes))
    near = member[pairs[0]] == member[pairs[1]]
    pairs = pairs[:, near | (draw.random(pairs.shape[1]) < 0.022)]
    return member, np.concatenate([pairs, pairs[::-1]], axis=1)


def test_a_partition_keeps_what_is_joined_together_within_its_bound() -> None:
    member, edges = communities()
    block_of = partition(edges, len(member), 6)
    assert np.bincount(block_of, minlength=6).max() <= 100
    left_out = (block_of[edges[0]] != block_of[edges[1]]).mean()
    assert left_out < 5 / 6 / 2  # half of what chance leaves out


def test_blocks_have_each_node_once_and_its_edges_there() -> None:
    _, edges = communities(90, 3)
    x = np.arange(90, dtype=np.float32)[:, None]
    of_edges = edges.sum(0).astype(np.float32), edges.T.astype(np.float32)
    blocks = Blocks.of(GraphArrays(x, edges, x, None, *of_edges), 40)
    together = torch.cat([batch.x for batch in blocks.batches])[:, 0]
    assert sorted(together.tolist()) == list(range(90))
    joined = []
    for batch in blocks.batches:
        graph = batch.neighbors.edges
        ends = torch.stack([batch.x[graph.sources, 0], batch.x[graph.targets, 0]], 1)
        joined += [tuple(map(int, pair)) for pair in ends.tolist()]
        assert graph.weights is not None and torch.equal(ends.sum(1), graph.weights)
        assert graph.attributes is not None and torch.equal(ends, graph.attributes)
    within = blocks.block_of[edges[0]] == blocks.block_of[edges[1]]
    assert sorted(joined) == sorted(map(tuple, edges[:, within].T.tolist()))
    assert blocks.left_out == pytest.approx(1 - within.mean())
    nodes, targets = np.array([80, 3, 41, 7]), torch.tensor([80, 3, 41, 7])
    batches, parts = blocks.asking(nodes, targets, torch.device("cpu"))
    asked = [batch.answers(batch.x)[:, 0] for batch in batches]
    assert all(torch.equal(a.long(), b) for a, b in zip(asked, parts, strict=True))
    assert sorted(torch.cat(parts).tolist()) == sorted(nodes.tolist())


def test_steps_hold_blocks_and_figures_are_of_the_whole_graph(here: Path) -> None:
    member, edges = communities()
    x = np.eye(6, dtype=np.float32)[member] + np.random.default_rng(1).normal(0, 1, (600, 6))
    order = np.random.default_rng(2).permutation(600)
    split = {"train": order[:300], "val": order[300:400], "test": order[400:]}
    half = edges[:, edges[0] < edges[1]].T
    np.savez("graph.npz", x=x.astype(np.float32), edge=half, label=member, **split)
    quick = {"threads": 1, "quiet": True, "preset": "demo"}
    searched = sgas_gcn.search(
        "graph.npz",
        **quick,
        batch_nodes=100,
        num_steps=1,
        warmup_epochs=0,
        decision_interval=1,
        final_epochs=0,
    )
    assert "6 blocks of at most 100 nodes" in (searched.folder / "log.txt").read_text()
    trained = sgas_gcn.train(searched, **quick, epochs=15, num_cells=1, channels=8)
    assert trained.config["data"]["batch_nodes"] == 100
    truth = member[split["test"]]
    assert (trained.predict("graph.npz") == truth).mean() == pytest.approx(
        trained.evaluate()["accuracy"]
    )
    assert trained.evaluate()["accuracy"] > 0.4  # chance: a sixth


def test_several_graphs_are_not_cut() -> None:
    with pytest.raises(ConfigError, match="batch_nodes is 50, but tissues has several graphs"):
        sgas_gcn.search("tissues", batch_nodes=50, quiet=True)
