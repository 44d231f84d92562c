"""The graph supernet: parity with the published method, and what a decision frees."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas.cells.decisions import PRUNED, UNDECIDED, CellDecisions, Choice, decided
from sgas_gcn.config import GRAPH_SPACE, OPERATIONS, GraphModelConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.supernet import GraphSupernet

TOPOLOGY = GRAPH_SPACE.topology(3)
SMALL = GraphModelConfig(channels=4, num_cells=2)


def random_batch(nodes: int = 20, features: int = 6, seed: int = 0) -> GraphBatch:
    """One graph in float64, with an isolated node, a self-loop and edges that occur twice."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(nodes - 1, (2, 4 * nodes), generator=generator)
    x = torch.randn(nodes, features, generator=generator, dtype=torch.float64)
    return GraphBatch.of_graph(x, torch.cat([edges, edges[:, :5], torch.zeros(2, 1).long()], 1))


def small_supernet(seed: int = 0) -> GraphSupernet:
    torch.manual_seed(seed)
    return GraphSupernet(SMALL, 6, 3).double()


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item()
    )


def our_name(name: str) -> str:
    """`cell0.edge3.gat.att` as `cells.0.edges.3.gat.att`; the classifier has its layer inside."""
    name = re.sub(r"edge(\d+)\.", r"edges.\1.", re.sub(r"cell(\d+)\.", r"cells.\1.", name))
    return re.sub(r"^classifier\.(lin\.)?", "classifier.lin.", name)


def golden_supernet(arrays: dict[str, np.ndarray], state: str) -> GraphSupernet:
    net = GraphSupernet(GraphModelConfig(channels=4), 50, 121).double()
    weights = {
        our_name(key[2:]): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("w.")
    }
    parameters = dict(net.named_parameters())
    assert set(weights) == set(parameters) - {"alphas.normal"}
    weights["alphas.normal"] = torch.from_numpy(arrays["alpha"])
    for name, parameter in parameters.items():
        parameter.data.copy_(weights[name])
    words = {-1: UNDECIDED, 0: PRUNED}
    selected = [int(number) for number in arrays[f"{state}.selected"]]
    states = tuple(words.get(number) or decided(OPERATIONS[number]) for number in selected)
    net.apply_decisions({"normal": CellDecisions(TOPOLOGY, states)})
    return net


@pytest.mark.parametrize("state", ["undecided", "mixed"])
@pytest.mark.usefixtures("backend")
def test_agrees_with_the_published_method(state: str, golden: Path) -> None:
    with np.load(golden / "supernet_graph.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    net = golden_supernet(arrays, state)
    x = torch.from_numpy(arrays["input"]).double()
    batch = GraphBatch.of_graph(x, torch.from_numpy(arrays["edge_index"]))

    logits = net(batch)
    loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(arrays["target"]).double())
    loss.backward()

    close(logits, torch.from_numpy(arrays[f"{state}.logits"]))
    close(loss, torch.tensor(arrays[f"{state}.loss"].item(), dtype=torch.float64))
    close(net.alphas["normal"].grad, torch.from_numpy(arrays[f"{state}.grad_alpha"]))
    parameters = dict(net.named_parameters())
    norms, used = arrays[f"{state}.grad_norm"], arrays[f"{state}.grad_used"]
    for name, norm, takes_part in zip(arrays["grad_names"], norms, used, strict=True):
        assert (our_name(str(name)) in parameters) == takes_part
        if takes_part:
            parameter = parameters[our_name(str(name))]
            assert parameter.grad is not None
            close(parameter.grad.norm(), torch.tensor(norm))
            if f"{state}.grad_w.{name}" in arrays:
                close(parameter.grad, torch.from_numpy(arrays[f"{state}.grad_w.{name}"]))
    net.eval()
    close(net(batch), torch.from_numpy(arrays[f"{state}.logits_eval"]))


def test_parameter_count_at_the_paper_s_setting() -> None:
    net = GraphSupernet(GraphModelConfig(), 50, 121)
    assert sum(weight.numel() for weight in net.weights()) == 161_202
    assert net.alphas["normal"].shape == (9, 10)


def test_a_decision_frees_modules_and_keeps_the_parameters_of_what_stays() -> None:
    net, batch = small_supernet(), random_batch()
    before = dict(net.named_parameters())
    decisions = CellDecisions.none_yet(TOPOLOGY)
    for choice in (Choice(4, "gat"), Choice(2, "skip_connect"), Choice(0, "edge_conv")):
        decisions = decisions.decide(choice)
    net.apply_decisions({"normal": decisions})
    after = dict(net.named_parameters())
    assert len(after) < len(before)
    assert all(before[name] is parameter for name, parameter in after.items())
    net(batch).square().sum().backward()
    grad = net.alphas["normal"].grad
    assert grad is not None
    assert [bool(row.any()) for row in grad] == [e in decisions.undecided for e in range(9)]
    fresh = small_supernet(seed=1)
    fresh.apply_decisions(net.decisions)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(batch), fresh.eval()(batch))


def test_the_alpha_step_needs_no_gradient_of_the_weights() -> None:
    net, batch = small_supernet(), random_batch()
    net(batch).square().mean().backward()
    wanted = net.alphas["normal"].grad
    for weight in net.weights():
        weight.requires_grad_(False)
    (grad,) = torch.autograd.grad(net(batch).square().mean(), [net.alphas["normal"]])
    torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("num_cells", [1, 3])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_other_sizes(num_cells: int, num_steps: int) -> None:
    config = GraphModelConfig(channels=2, num_cells=num_cells, num_steps=num_steps, dropout=0.5)
    logits = GraphSupernet(config, 6, 5).double()(random_batch())
    logits.sum().backward()
    assert logits.shape == (20, 5)


def test_graphs_do_not_mix_in_evaluation_mode_and_permutations_permute() -> None:
    net = small_supernet()
    batches = [random_batch(seed=1), random_batch(nodes=9, seed=2), random_batch(seed=3)]
    net(GraphBatch.join(batches))
    net.eval()
    together = net(GraphBatch.join(batches))
    torch.testing.assert_close(together, torch.cat([net(batch) for batch in batches]))
    swapped = net(GraphBatch.join(batches[::-1]))
    torch.testing.assert_close(swapped.split([20, 9, 20])[0], together.split([20, 9, 20])[2])


def test_only_the_asked_nodes_are_answered() -> None:
    net, batch = small_supernet(), random_batch()
    asked = torch.tensor([7, 2, 19])
    every = net.eval()(batch)
    some = GraphBatch(batch.x, batch.neighbors, batch.sizes, asked)
    torch.testing.assert_close(net(some), every[asked])
    both = GraphBatch.join([batch, some])
    torch.testing.assert_close(net(both), torch.cat([every, every[asked]]))
    assert both.graph_of_node.tolist() == [0] * 20 + [1] * 20
