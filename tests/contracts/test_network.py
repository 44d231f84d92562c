"""What every derived network keeps to: the supernet's weights, drop path, the auxiliary head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import PLACE, SPACES, SmallSpace
from torch import nn

from sgas.cells.decisions import genotype_of
from sgas.cells.genotype import CellGene, EdgeGene, Genotype
from sgas.errors import GenotypeError
from sgas_cnn.edges import drop_images
from sgas_gcn.cells import drop_clouds, drop_graphs

GENOTYPES = [(name, i) for name, small in SPACES.items() for i in range(len(small.genotypes))]


def num_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_fully_decided_supernet_is_the_derived_network(small: SmallSpace, training: bool) -> None:
    """Up to norms that only a derived network scales: their weights and biases are 1 and 0."""
    supernet, batch = small.supernet(), small.batch()
    decisions = small.all_decided(small.decided_ops)
    places = small.places(supernet)
    kinds = {PLACE.search(name)["cell"]: kind for name, (kind, *_) in places.items()}  # type: ignore[index]
    supernet.apply_decisions(decisions)
    network = small.network(genotype_of(small.space, decisions))
    kept = {
        kind: [edge for edge, state in enumerate(cell.states) if state.op is not None]
        for kind, cell in decisions.items()
    }
    weights = {}
    for name, value in supernet.state_dict().items():
        if match := PLACE.search(name):
            cell, edge = match["cell"], int(match["edge"])
            place = kept[kinds[cell]].index(edge)
            # Networks of the toy family number the cells that its supernet names by kind.
            cell = str(list(kept).index(cell)) if cell in kept else cell
            name = "".join(
                [
                    name[: match.start("cell")],
                    cell,
                    name[match.end("cell") : match.start("edge")],
                    str(place),
                    name[match.end("edge") :],
                ]
            )
        if not name.startswith("alphas."):
            weights[name] = value
    ours = network.state_dict()
    assert weights.keys() <= ours.keys()
    for name in ours.keys() - weights.keys():
        assert name.endswith(("weight", "bias")) and set(ours[name].tolist()) <= {0.0, 1.0}, name
    network.load_state_dict({**ours, **weights})
    torch.testing.assert_close(network.train(training)(batch), supernet.train(training)(batch))


@pytest.mark.parametrize(("name", "number"), GENOTYPES)
def test_known_cells_run_and_learn(name: str, number: int) -> None:
    small = SPACES[name]
    net = small.network(small.genotype(number))
    logits = net(small.batch())
    assert logits.shape == small.supernet()(small.batch()).shape
    logits.square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name


def test_a_genotype_of_another_space_is_refused(small: SmallSpace) -> None:
    other = next(space for space in SPACES.values() if space.name != small.name)
    with pytest.raises(GenotypeError, match=f"of space '{other.name}'"):
        small.network(other.genotype(0))


def test_samples_do_not_mix_in_evaluation_mode(small: SmallSpace) -> None:
    samples = small.samples(4)
    for net in (small.network(), small.supernet()):
        net(small.joined(samples)).sum().backward()
        net.eval()
        for order in (samples, samples[::-1]):
            one_by_one = torch.cat([net(sample) for sample in order])
            torch.testing.assert_close(net(small.joined(order)), one_by_one)


ONES = torch.ones(400, 5, 2, 3)  # samples, rows of each, edges, channels
DROPPED: dict[str, Any] = {
    "clouds": lambda: drop_clouds(ONES.flatten(0, 1), 0.25, 400).view_as(ONES),
    "graphs": lambda: drop_graphs(
        ONES.flatten(0, 1), 0.25, torch.arange(400).repeat_interleave(5), 400
    ).view_as(ONES),
    "images": lambda: drop_images(ONES.flatten(1, 2).unsqueeze(-1), 0.25).view_as(ONES),
}


def test_drop_path_of_graphs_can_be_drawn_for_each_node() -> None:
    small = SPACES["graph"]
    network, batch = small.network(), small.batch()
    seen = []

    def spied(x: torch.Tensor, probability: float, num_clouds: int) -> torch.Tensor:
        seen.append(drop_clouds(torch.ones_like(x), probability, num_clouds))
        return x

    network.config = replace(network.config, drop_path_by="node")
    network.drop_path = 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgas_gcn.network.drop_clouds", spied)
        network(batch)
    assert seen and all(len(set(kept[:, 0, 0].tolist())) == 2 for kept in seen)
    assert all(len(kept) == len(batch.x) for kept in seen)


@pytest.mark.parametrize("samples", DROPPED)
def test_drop_path_zeroes_edges_of_whole_samples_and_keeps_the_mean(samples: str) -> None:
    torch.manual_seed(0)
    out = DROPPED[samples]()
    edges = out[:, :1, :, :1]
    assert torch.equal(out, edges.expand_as(out))
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # Images are dropped one edge a call.
    assert torch.equal(edges[:, :, 0], edges[:, :, 1]) == (samples == "images")
    assert abs(out.mean().item() - 1) < 0.1


with_drop_path = pytest.mark.parametrize("name", [name for name in SPACES if name != "toy"])


@with_drop_path
def test_drop_path_acts_in_training_alone_and_can_be_set(name: str) -> None:
    net, x = SPACES[name].network(), SPACES[name].batch()
    whole = net(x)
    net.drop_path = 0.5
    assert not torch.equal(net(x), whole)
    net.drop_path = 0.0
    assert torch.equal(net(x), whole)
    net.eval()
    wanted = net(x)
    net.drop_path = 0.5
    assert torch.equal(net(x), wanted)


@pytest.mark.parametrize("name", ["point", "graph", "nasbench201", "nasbenchgraph"])
def test_drop_path_leaves_skips_alone(name: str) -> None:
    """In cells that make images smaller no edge is a mere skip: see test_image_network."""
    space = SPACES[name].space
    topology = space.topology(1)
    (skip,) = (op for op in space.operations if op.startswith("skip"))
    edges = [EdgeGene(skip, edge.source) for edge in topology.edges]
    gene = CellGene(tuple(edges), topology.concat)
    net = SPACES[name].network(Genotype(1, name, {"normal": gene}))
    net.drop_path = 0.9
    x = SPACES[name].batch()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("name", [name for name in SPACES if not name.startswith("nasbench")])
def test_the_auxiliary_head_speaks_in_training_alone(name: str) -> None:
    small = SPACES[name]
    net, x = small.network(auxiliary=True), small.batch()
    logits, auxiliary = net(x)
    assert logits.shape == auxiliary.shape
    (logits.sum() + auxiliary.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.eval()(x).shape == logits.shape
    assert num_parameters(net) - num_parameters(small.network()) == num_parameters(net.auxiliary)
