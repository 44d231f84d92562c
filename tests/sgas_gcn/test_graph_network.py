"""Derived graph networks: published sizes, agreement with the supernet, drop path, auxiliary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice, genotype_of
from sgas.cells.genotype import Genotype
from sgas.errors import GenotypeError
from sgas_gcn.cells import drop_graphs
from sgas_gcn.config import GRAPH_SPACE, GraphModelConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.network import GraphNetwork, PointNetwork
from sgas_gcn.published import load_published, published_names
from sgas_gcn.supernet import GraphSupernet

SMALL = GraphModelConfig(channels=4, num_cells=3)
SETTINGS = {
    "ppi_l5_c512": GraphModelConfig(channels=512, num_cells=5),
    "ppi_l5_c64": GraphModelConfig(channels=64, num_cells=5),
}


def small_network(name: str = "cri2-ppi-best", **options: object) -> GraphNetwork:
    torch.manual_seed(0)
    return GraphNetwork(load_published(name), SMALL, 6, 5, **options)  # type: ignore[arg-type]


def graphs(count: int = 3) -> GraphBatch:
    """Small graphs of different sizes, each with an isolated node."""
    torch.manual_seed(1)
    batches = []
    for nodes in range(8, 8 + count):
        edges = torch.randint(nodes - 1, (2, 3 * nodes))
        batches.append(GraphBatch.of_graph(torch.randn(nodes, 6), edges))
    return GraphBatch.join(batches)


def num_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_published_genotypes_and_sizes(golden: Path) -> None:
    file = json.loads((golden / "networks.json").read_text())
    wanted = {n["name"]: n for n in file["networks"] if n["family"] == "graph"}
    names = {name.lower().replace("_", "-"): name for name in wanted}
    aliases = {
        alias.lower().replace("_", "-"): name
        for alias, name in file["aliases"].items()
        if name in wanted
    }
    assert {name for name in published_names() if "ppi" in name} == {*names, *aliases}
    for alias, name in aliases.items():
        assert load_published(alias) == load_published(name.replace("_", "-"))
    for own, name in names.items():
        genotype = load_published(own)
        cell = genotype.validate(GRAPH_SPACE).cells["normal"]
        assert [[edge.op, edge.source] for edge in cell.edges] == wanted[name]["normal"]
        assert list(cell.concat) == wanted[name]["normal_concat"]
        for setting, count in wanted[name]["counts"].items():
            with torch.device("meta"):
                net = GraphNetwork(genotype, SETTINGS[setting], 50, 121)
            assert num_parameters(net) == count["params"], (name, setting)


@pytest.mark.parametrize("training", [True, False])
def test_a_fully_decided_supernet_is_the_derived_network(training: bool) -> None:
    torch.manual_seed(0)
    supernet = GraphSupernet(SMALL, 6, 5).double().train(training)
    decisions = CellDecisions.none_yet(GRAPH_SPACE.topology(3))
    ops = iter(["gat", "edge_conv", "skip_connect", "gin", "rel_sage", "semi_gcn"])
    while decisions.undecided:
        decisions = decisions.decide(Choice(decisions.undecided[-1], next(ops)))
    supernet.apply_decisions({"normal": decisions})
    genotype = genotype_of(GRAPH_SPACE, {"normal": decisions})
    network = GraphNetwork(genotype, SMALL, 6, 5).double().train(training)
    kept = [edge for edge, state in enumerate(decisions.states) if state.op is not None]
    names = {f".edges.{edge}.": f".edges.{place}." for place, edge in enumerate(kept)}
    weights = {}
    for name, value in supernet.state_dict().items():
        old = next((part for part in names if part in name), None)
        weights[name.replace(old, names[old]) if old else name] = value
    weights.pop("alphas.normal")
    network.load_state_dict(weights)
    batch = graphs()
    batch = batch.with_features(batch.x.double())
    torch.testing.assert_close(network(batch), supernet(batch))


@pytest.mark.parametrize("name", ["cri1-ppi-10", "random-ppi-1", "random-ppi-8"])
def test_published_cells_run_and_learn(name: str) -> None:
    net, batch = small_network(name), graphs()
    logits = net(batch)
    assert isinstance(logits, Tensor) and logits.shape == (27, 5)
    logits.square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name


def test_genotypes_of_points_and_graphs_do_not_mix() -> None:
    point = load_published("cri2-modelnet-best")
    with pytest.raises(GenotypeError, match="of space 'point'"):
        GraphNetwork(point, SMALL, 6, 5)
    with pytest.raises(GenotypeError, match="of space 'graph'"):
        PointNetwork(load_published("cri2-ppi-best"), SMALL, 6, 5)  # type: ignore[arg-type]


def test_drop_path_zeroes_edges_of_whole_graphs_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    sizes = torch.randint(1, 6, (400,))
    graph_of_node = torch.arange(400).repeat_interleave(sizes)
    out = drop_graphs(torch.ones(len(graph_of_node), 2, 3), 0.25, graph_of_node, 400)
    firsts = sizes.cumsum(0) - sizes
    assert torch.equal(out, out[firsts][graph_of_node])
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert not torch.equal(out[:, 0], out[:, 1])
    assert abs(out.mean().item() - 1) < 0.1


def test_drop_path_acts_in_training_alone_and_leaves_skips_alone() -> None:
    net, batch = small_network(drop_path=0.5), graphs()
    dropped = net(batch)
    net.drop_path = 0.0
    assert not torch.equal(dropped, net(batch))
    net.eval()
    wanted = net(batch)
    net.drop_path = 0.5
    assert torch.equal(net(batch), wanted)
    skips = [("skip_connect", 0), ("skip_connect", 1)]
    text = f"Genotype(normal={skips}, normal_concat=[2])"
    only_skips = GraphNetwork(Genotype.from_text(text, "graph"), SMALL, 6, 5, drop_path=0.9)
    assert torch.equal(only_skips(batch), only_skips(batch))


def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    net, batch = small_network(auxiliary=True), graphs()
    some = GraphBatch(batch.x, batch.neighbors, batch.sizes, torch.tensor([0, 9]))
    logits, auxiliary = net(some)
    assert logits.shape == auxiliary.shape == (2, 5)
    (logits.sum() + auxiliary.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.eval()(batch).shape == (27, 5)
    assert num_parameters(net) - num_parameters(small_network()) == num_parameters(net.auxiliary)
