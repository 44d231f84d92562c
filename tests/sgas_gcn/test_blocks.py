"""One large graph in blocks: what steps hold, what is asked, and what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

import sgas_gcn
from sgas.cells.genotype import CellGene, EdgeGene
from sgas.errors import ConfigError
from sgas_gcn.blocks import Blocks, partition
from sgas_gcn.config import OPERATIONS, GraphModelConfig
from sgas_gcn.datasets.graph_arrays import GraphArrays
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import models
from sgas_gcn.parts import PartedNeighbors
from sgas_gcn.published import load_published


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


@pytest.mark.parametrize("of_edges", ["plain", "weights", "attributes"])
@pytest.mark.usefixtures("kernels")
def test_parts_of_a_graph_give_what_the_whole_does(of_edges: str) -> None:
    torch.manual_seed(0)
    _, edges = communities(90, 3)
    pairs = torch.from_numpy(np.concatenate([edges, np.full((2, 1), 7)], axis=1))
    weights = torch.rand(pairs.shape[1]) if of_edges == "weights" else None
    attributes = torch.randn(pairs.shape[1], 2) if of_edges == "attributes" else None
    batch = GraphBatch.of_graph(torch.randn(91, 5), pairs, None, weights, attributes)
    parted = replace(batch, neighbors=PartedNeighbors.of(batch.neighbors, np.arange(91) % 4))
    assert sum(part.count for part in parted.neighbors.parts) == 91
    sizes = {"in_channels": 5, "num_outputs": 3}
    sizes |= {"edge_channels": 2} if attributes is not None else {}
    made = models(GraphModelConfig(channels=4, num_cells=2, num_steps=2), sizes)
    nets = [made.build_network(load_published("cri2-ppi-best"), False)]
    for op in OPERATIONS:
        genes = tuple(EdgeGene(op, source) for source in (0, 1, 1, 2))
        cells = {"normal": CellGene(genes, (2, 3))}
        genotype = msgspec.structs.replace(load_published("cri2-ppi-best"), cells=cells)
        nets += [made.build_network(genotype, False)] if op != "none" else []
    for network in [*nets, made.build_supernet()]:
        network(batch)  # moves the running statistics
        with torch.no_grad():
            wanted, found = network.eval()(batch), network(parted)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
