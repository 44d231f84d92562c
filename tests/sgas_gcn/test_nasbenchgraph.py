"""The NAS-Bench-Graph space: keys of the tables, sizes of the benchmark, the mixture, the layers.

What it has in common with every other space is in tests/contracts.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import SPACES
from torch import nn

import sgas_gcn
from sgas.cells.decisions import CellDecisions, Choice
from sgas.cells.genotype import Genotype
from sgas.errors import ConfigError, GenotypeError
from sgas_gcn.config import NASBENCHGRAPH_OPERATIONS, NASBENCHGRAPH_SPACE, NasBenchGraphConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.nasbenchgraph import NasBenchGraphNetwork
from sgas_gcn.nasbenchgraph_text import (
    NAMES,
    architecture_of,
    canonical,
    from_nasbenchgraph,
    key_of,
    to_nasbenchgraph,
)
from sgas_gcn.ops.nasbenchgraph import NASBENCHGRAPH_TABLE
from sgas_gcn.sparse import SparseRows, drop

SMALL = SPACES["nasbenchgraph"]
ALL_LINKS = list(itertools.product(range(1), range(2), range(3), range(4)))


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(NASBENCHGRAPH_TABLE) == NASBENCHGRAPH_OPERATIONS == NASBENCHGRAPH_SPACE.operations


def test_architectures_go_both_ways() -> None:
    genotype = from_nasbenchgraph([0, 1, 2, 1], ["gcn", "gin", "fc", "cheb"])
    assert to_nasbenchgraph(genotype) == ((0, 1, 2, 1), ("gcn", "gin", "fc", "cheb"))
    assert genotype.cells["normal"].concat == (3, 4)
    assert Genotype.from_text(genotype.to_text(), "nasbenchgraph") == genotype
    link, ops = architecture_of(61342)
    assert (link, ops) == ((0, 1, 1, 2), ("gcn", "cheb", "sage", "gin"))
    assert key_of(link, ops) == 61342


SAME = [
    # The order of the nodes does not count.
    (([0, 1, 2, 1], "gcn gin fc cheb"), ([0, 1, 1, 3], "gcn cheb gin fc")),
    # A skip that is read, alone after its input, or of the features, goes before all others.
    (([0, 1, 2, 2], "gcn skip fc gat"), ([0, 1, 2, 2], "skip gcn gat fc")),
    (([0, 1, 0, 3], "gcn skip fc gat"), ([0, 1, 1, 3], "skip gcn fc gat")),
    (([0, 0, 0, 1], "gcn skip skip gat"), ([0, 1, 2, 3], "skip skip gcn gat")),
    # One that stands beside another node is an output of its own.
    (([0, 1, 1, 0], "gcn skip fc gat"), ([0, 0, 2, 2], "gat gcn fc skip")),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_architectures_that_compute_the_same_have_one_key(
    one: tuple[list[int], str], other: tuple[list[int], str]
) -> None:
    keys = [key_of(link, ops.split()) for link, ops in (one, other)]
    assert keys[0] == keys[1]


def test_keys_are_those_of_the_tables(data: Path) -> None:
    keys = np.load(data / "nas" / "nasbench_graph_cora.npz")["hash"].tolist()
    assert len(keys) == 26206
    for key in keys[::20]:
        assert canonical(*architecture_of(key)) == architecture_of(key)
    draw, known = random.Random(0), {*keys, 88888}  # of skips alone there is no entry
    for _ in range(1000):
        link, ops = draw.choice(ALL_LINKS), draw.choices(NAMES, k=4)
        assert key_of(link, ops) in known, (link, ops)
    assert key_of([0, 0, 1, 2], ["skip"] * 4) == 88888 and 88888 not in keys


@pytest.mark.parametrize(
    ("link", "ops", "message"),
    [
        ([0, 1], ["gcn"], "give one input and one operation"),
        ([], [], "give one input and one operation"),
        ([0, 2], ["gcn", "gcn"], "node 2 reads node 2; it can read 0 to 1"),
        ([0, 1], ["gcn", "sagee"], r"did you mean sage\?"),
        ([0, 1], ["gcn", "none"], "operation 'none'"),
    ],
)
def test_a_wrong_architecture_is_refused(link: list[int], ops: list[str], message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        from_nasbenchgraph(link, ops)


def test_what_the_tables_do_not_have_is_refused() -> None:
    with pytest.raises(GenotypeError, match="the cell has 1 computing nodes"):
        key_of([0], ["gcn"])
    for key in (99999, 9, -1):
        with pytest.raises(GenotypeError, match="no key of NAS-Bench-Graph"):
            architecture_of(key)
    text = "Genotype(normal=[('gcn', 0), ('fc', 1)], normal_concat=[1, 2])"
    with pytest.raises(GenotypeError, match=r"concat is \[1, 2\]; .* give \[2\]"):
        to_nasbenchgraph(Genotype.from_text(text, "nasbenchgraph"))
    with pytest.raises(ConfigError, match="multiple of 4"):
        NasBenchGraphConfig(channels=6)


# Channels, layers before and after, features and classes of the benchmark's networks.
SIZES = {
    "cora": (256, 0, 1, 1433, 7),
    "citeseer": (256, 0, 1, 3703, 6),
    "photo": (128, 0, 0, 745, 8),
}


@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_benchmark_s_sizes(data: Path, name: str) -> None:
    """But for norms of features and ARMA's later layers, which the benchmark has and never runs."""
    channels, before, after, in_channels, num_outputs = SIZES[name]
    config = NasBenchGraphConfig(channels=channels, pre_layers=before, post_layers=after)
    table = np.load(data / "nas" / f"nasbench_graph_{name}.npz")
    for key, size in list(zip(table["hash"], table["params_m"], strict=True))[::1600]:
        genotype = from_nasbenchgraph(*architecture_of(key))
        with torch.device("meta"):
            net = NasBenchGraphNetwork(genotype, config, in_channels, num_outputs)
        params = sum(parameter.numel() for parameter in net.parameters())
        norms = sum(
            module.norm is None for edge in net.body.cells[0].edges for module in edge.values()
        )
        ops = architecture_of(key)[1]
        unused = 2 * channels * norms + channels**2 * ops.count("arma")
        assert (params + unused) / 1e6 == pytest.approx(size, abs=1e-6), key


def test_a_network_reads_chains_of_skips_from_the_features_as_they_are() -> None:
    torch.manual_seed(0)
    genotype = from_nasbenchgraph([0, 1, 2, 0], ["skip", "gcn", "fc", "sage"])
    config = NasBenchGraphConfig(channels=4, pre_layers=0, dropout=0.0)
    net = NasBenchGraphNetwork(genotype, config, 6, 5).double()
    (batch,) = SMALL.samples(1)
    edges, graph = net.body.cells[0].edges, batch.neighbors
    second = edges[1]["gcn"].operation(batch.x, graph)
    mean, var = second.mean(0), second.var(0, correction=0)
    third = edges[2]["fc"].operation(F.relu((second - mean) / torch.sqrt(var + 1e-5)), graph)
    fourth = edges[3]["sage"].operation(batch.x, graph)
    parts, bias = net.body.leaves.parts, net.body.leaves.bias
    joined = torch.cat([parts["3"].weight, parts["4"].weight], 1)
    leaves = F.linear(F.relu(torch.cat([third, fourth], 1)), joined, bias)
    torch.testing.assert_close(net(batch), net.body.post(leaves))


def test_the_leaves_are_the_head_of_a_network_without_another(here: Path) -> None:
    cell = Path("cell.json")
    cell.write_text(from_nasbenchgraph([0, 0, 1, 2], ["gcn", "skip", "gat", "fc"]).to_json())
    options: dict[str, Any] = {"space": "nasbenchgraph", "preset": "demo", "quiet": True}
    options |= {"epochs": 1, "post_layers": 0, "learning_rate": 1e-9, "learning_rate_min": 0.0}
    runs = []
    for classes in (3, 4):
        draw = np.random.default_rng(0)
        arrays = {"x": draw.normal(size=(60, 5)), "edge": draw.integers(0, 60, (90, 2))}
        label = np.arange(60) % classes
        split = {"train": np.arange(40), "val": np.arange(40, 50), "test": np.arange(50, 60)}
        np.savez(f"{classes}.npz", **arrays, label=label, **split)
        start = {"weights": runs[0].folder} if runs else {}
        runs.append(sgas_gcn.train(cell, f"{classes}.npz", **start, **options))
    first, second = (run.network.body for run in runs)
    assert len(second.leaves.bias) == 4
    cells = zip(first.cells.parameters(), second.cells.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in cells)


ORACLES = [op for op in NAMES if op not in ("fc", "skip")]


WEIGHTED = ("gcn", "cheb", "arma", "graph")  # operators that take weights of edges


@pytest.mark.parametrize("has_weights", [False, True])
@pytest.mark.parametrize("op", ORACLES)
def test_operators_compute_what_pyg_s_do(op: str, has_weights: bool) -> None:
    """On a directed graph with loops, edges twice and nodes without edges."""
    torch.manual_seed(0)
    edges = torch.cat([torch.randint(25, (2, 70)), torch.tensor([[3, 3, 4], [3, 3, 5]])], 1)
    own = torch.rand(73, dtype=torch.float64).where(edges[0] != edges[1], 0.4)
    x = torch.randn(30, 6, dtype=torch.float64)
    batch = GraphBatch.of_graph(x, edges, weights=own if has_weights else None)
    of_edges = (batch.neighbors.edges.weights,) if op in WEIGHTED else ()
    operation: Any = NASBENCHGRAPH_TABLE[op](6, 8).double()
    weights = list(operation.parameters())
    grad = torch.randn(30, 8, dtype=torch.float64)
    found = []
    index = batch.neighbors.edges.edge_index
    for run in (operation, lambda x, _: operation.conv(x, index, *of_edges)):
        x = batch.x.clone().requires_grad_()
        out = run(x, batch.neighbors)
        found.append([out, *torch.autograd.grad(out, [x, *weights], grad)])
    torch.testing.assert_close(*found)


def test_sparse_features_give_what_dense_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 30, dtype=torch.float64) * (torch.rand(40, 30) < 0.05)
    x[:, 7] = 0
    batch = GraphBatch.of_graph(x, torch.randint(40, (2, 90)), torch.arange(0, 40, 3))
    found = []
    for most in (0.1, 0.0):
        monkeypatch.setattr("sgas_gcn.sparse.SPARSE", most)
        fresh = batch.with_features(x)
        assert isinstance(fresh.features, SparseRows) == bool(most)
        results = []
        for before, ops in [(0, ["gat", "skip", "cheb", "skip"]), (1, ["fc", "gcn", "arma", "fc"])]:
            config = NasBenchGraphConfig(channels=8, pre_layers=before, dropout=0.0)
            torch.manual_seed(1)
            net: Any = NasBenchGraphNetwork(from_nasbenchgraph([0] * 4, ops), config, 30, 5)
            out = net.double()(fresh)
            results += [out, *torch.autograd.grad(out.square().sum(), list(net.parameters()))]
        found.append(results)
    torch.testing.assert_close(*found)


def test_dropout_keeps_the_mean_and_nothing_but_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(300, 300)
    dropped = drop(x, nn.Dropout(0.7))
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(1.0) / (1 - 0.7))}
    assert dropped.mean() == pytest.approx(1, abs=0.03)
    assert drop(x, nn.Dropout(0.7).eval()) is x


def test_the_features_may_be_a_leaf() -> None:
    genotype = from_nasbenchgraph([0, 0], ["skip", "gcn"])
    net = NasBenchGraphNetwork(genotype, NasBenchGraphConfig(channels=4, pre_layers=0), 6, 5)
    (batch,) = SMALL.samples(1)
    assert net.double()(batch).shape == (len(batch.x), 5)


def test_the_mixture_is_weighted_and_so_are_its_leaves() -> None:
    net, batch = SMALL.supernet(), SMALL.batch()
    torch.nn.init.normal_(net.alphas["normal"])
    topology = NASBENCHGRAPH_SPACE.topology(4)
    decided = topology.edge_between(1, 2).index
    cell = CellDecisions.none_yet(topology).decide(Choice(decided, "fc"))
    net.apply_decisions({"normal": cell})
    probs = torch.softmax(net.alphas["normal"], -1)
    edges, states = net.body.cells[0].edges, [net.body.pre(batch.x)]
    chosen = torch.zeros(topology.num_edges, dtype=torch.float64)
    chosen[decided] = 1
    for step in range(4):
        into = [edge for edge in topology.edges_into(step) if edge.index in cell.undecided]
        total = sum(1 - probs[edge.index, 0] for edge in into)
        for edge in into:
            chosen[edge.index] = (1 - probs[edge.index, 0]) / total
        parts = [
            (probs[edge, NASBENCHGRAPH_OPERATIONS.index(op)] if edge != decided else 1)
            * module(states[source], batch.neighbors)
            for edge, (source, target, _) in enumerate(
                (edge.source, edge.step, edge.index) for edge in topology.edges
            )
            if target == step
            for op, module in edges[edge].items()
        ]
        states.append(sum(parts))
    out = net.body.leaves.bias
    for state in (2, 3, 4):  # an edge that is decided leaves state 1
        leaving = [edge.index for edge in topology.edges if edge.source == state]
        share = torch.stack([1 - chosen[edge] for edge in leaving]).prod() if leaving else 1
        out = out + share * net.body.leaves.parts[str(state)](F.relu(states[state]))
    assert set(net.body.leaves.parts) == {"2", "3", "4"}
    torch.testing.assert_close(net(batch), net.body.post(out))
