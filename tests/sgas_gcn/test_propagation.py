"""What a graph with few labels asks of a network: logits that go on, norms that decay can bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sgas_gcn
from sgas.errors import ConfigError
from sgas_gcn.config import GraphModelConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.network import GraphNetwork
from sgas_gcn.propagation import Propagation
from sgas_gcn.published import load_published
from sgas_gcn.supernet import GraphSupernet

NODES, LABELS, STEPS, TELEPORT = 30, 4, 3, 0.2
CONFIG = GraphModelConfig(channels=4, norms="affine", propagation=STEPS, teleport=TELEPORT)


@pytest.fixture
def graph() -> GraphBatch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(NODES, 6, generator=generator)
    edges = torch.randint(NODES, (2, 80), generator=generator)
    return GraphBatch.of_graph(x, edges, asked=torch.tensor([7, 2, 2, 29]))


def propagated(logits: Tensor, graph: GraphBatch) -> Tensor:
    """By the matrix Â = D^-½ (A + I) D^-½, d the edges that enter a node."""
    sources, targets = graph.neighbors.with_self.ends
    matrix = torch.zeros(NODES, NODES, dtype=torch.float64)
    matrix.index_put_((targets, sources), torch.ones(len(sources)).double(), accumulate=True)
    root = matrix.sum(1).rsqrt()
    matrix, out = root[:, None] * matrix * root, logits
    for _ in range(STEPS):
        out = (1 - TELEPORT) * matrix @ out + TELEPORT * logits
    return out


def test_logits_go_on_to_neighbours_by_the_formula(graph: GraphBatch) -> None:
    logits = torch.randn(NODES, LABELS, dtype=torch.float64)
    found = Propagation(STEPS, TELEPORT)(logits, graph.neighbors)
    torch.testing.assert_close(found, propagated(logits, graph))


@pytest.mark.parametrize("searched", [False, True])
def test_networks_and_supernets_propagate_all_nodes_and_answer_those_asked(
    graph: GraphBatch, searched: bool
) -> None:
    cell = load_published("cri2-ppi-best")

    def made(config: GraphModelConfig) -> GraphNetwork | GraphSupernet:
        torch.manual_seed(0)
        return (
            GraphSupernet(config, 6, LABELS) if searched else GraphNetwork(cell, config, 6, LABELS)
        )

    before = made(replace(CONFIG, propagation=0))(replace(graph, asked=None))
    logits = made(CONFIG)(graph)
    wanted = propagated(before.double(), graph)[graph.asked]
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-4, atol=1e-5)


def test_affine_norms_take_no_statistics_and_depend_on_no_other_node(graph: GraphBatch) -> None:
    torch.manual_seed(0)
    network = GraphNetwork(load_published("cri2-ppi-best"), CONFIG, 6, LABELS).train()
    twice = GraphBatch.join([graph, replace(graph, x=graph.x + 5)])
    torch.testing.assert_close(network(twice)[: len(graph.asked_nodes)], network(graph))
    network(graph).sum().backward()
    statistics = [v for n, v in network.state_dict().items() if n.endswith("running_mean")]
    assert statistics and not any(mean.any() for mean in statistics)
    assert network.training and network.classifier.drop.training
    torch.testing.assert_close(network.eval()(graph), network.train()(graph))


def test_what_propagates_without_a_stem_is_exported_alike(tmp_path: Path) -> None:
    options = {"channels": 4, "num_cells": 2, "norms": "affine", "propagation": STEPS}
    options |= {"stem": "none", "row_normalize": True}
    trained = sgas_gcn.train(
        "cri2-ppi-best",
        dataset="tissues",
        preset="demo",
        epochs=1,
        out=tmp_path / "run",
        quiet=True,
        **options,
    )
    assert trained.export(tmp_path / "net").to_plain < 1e-5


def test_logits_of_whole_graphs_have_no_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"propagation is 3, but .* whole graphs.*give 0"):
        GraphSupernet(CONFIG, 6, LABELS, per_graph=True)
