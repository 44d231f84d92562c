"""What every supernet keeps to: what a decision frees, and what it leaves as it was."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from small_models import SPACES, SmallSpace
from torch import Tensor, nn

from sgas.cells.decisions import UNDECIDED, CellDecisions
from sgas.errors import ConfigError


def loss_of(net: nn.Module, batch: Any) -> Tensor:
    net.zero_grad()
    loss = net(batch).square().mean()
    loss.backward()
    return loss


def check_gradients(net: Any, decisions: dict[str, CellDecisions]) -> None:
    """The alphas of open edges have gradients, the others none."""
    for kind, cell in decisions.items():
        is_open = [edge in cell.undecided for edge in range(len(cell.states))]
        assert [bool(row.any()) for row in net.alphas[kind].grad] == is_open


def test_a_decision_frees_modules_and_keeps_the_parameters_of_what_stays(small: SmallSpace) -> None:
    net, batch, decisions = small.supernet(), small.batch(), small.stages[-1]
    before, places = dict(net.named_parameters()), small.places(net)
    net.apply_decisions(decisions)
    after = dict(net.named_parameters())
    assert all(before[name] is parameter for name, parameter in after.items())
    gone = before.keys() - after.keys()
    outputs = {name for name in gone if ".leaves." in name}  # of states that are no leaves now
    assert bool(outputs) == (small.space.num_outputs is None)
    assert gone and gone - outputs <= places.keys()
    for name, (kind, edge, op) in places.items():
        state = decisions[kind].states[edge]
        assert (name in gone) == (state != UNDECIDED and op != state.op)
    alphas = {id(alpha) for alpha in net.alphas.values()}
    assert {id(p) for p in net.weights()} == {id(p) for p in after.values()} - alphas
    loss_of(net, batch)
    check_gradients(net, decisions)


def test_applying_twice_step_by_step_or_at_once_is_the_same(small: SmallSpace) -> None:
    net, other, batch = small.supernet(), small.supernet(), small.batch()
    stages = small.stages
    for stage in (*stages, stages[-1]):
        net.apply_decisions(stage)
    other.apply_decisions(stages[-1])
    assert set(net.state_dict()) == set(other.state_dict())
    assert torch.equal(net.eval()(batch), other.eval()(batch))
    with pytest.raises(AssertionError, match="has lost"):
        net.apply_decisions(stages[0])


def test_a_path_runs_what_it_selects_alone_and_frees_nothing(small: SmallSpace) -> None:
    net, other, batch = small.supernet(), small.supernet(), small.batch()
    path, places = small.all_decided(small.decided_ops), small.places(net)
    other.apply_decisions(path)
    before = net.eval()(batch)
    net.select(path)
    assert torch.equal(net(batch), other.eval()(batch))
    net.zero_grad()
    net(batch).square().mean().backward()
    for name, parameter in net.named_parameters():
        if name in places:
            kind, edge, op = places[name]
            assert (parameter.grad is None) == (path[kind].states[edge].op != op)
    assert all(alpha.grad is None for alpha in net.alphas.values())
    net.select(None)
    assert torch.equal(net(batch), before)


def test_a_fresh_supernet_takes_the_shape_of_a_checkpoint(small: SmallSpace) -> None:
    net, batch = small.supernet(), small.batch()
    net.apply_decisions(small.stages[-1])
    loss_of(net, batch)
    fresh = small.supernet(seed=1)
    fresh.apply_decisions(small.stages[-1])
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(batch), fresh.eval()(batch))


def test_statistics_of_what_does_not_run_stay(small: SmallSpace) -> None:
    net, batch = small.supernet(), small.batch()
    loss_of(net, batch)
    before = dict(net.named_buffers())
    means = {name: value for name, value in before.items() if name.endswith("running_mean")}
    assert all(mean.any() for mean in means.values()), "an open candidate runs"
    net.apply_decisions(small.all_decided(small.decided_ops[:1]))
    gone = {name: before[name].clone() for name in before.keys() - dict(net.named_buffers()).keys()}
    assert len(gone) > 0 or not means
    loss_of(net, batch)
    assert all(torch.equal(before[name], value) for name, value in gone.items())


def test_memory_falls_with_each_decision(small: SmallSpace) -> None:
    figures = []
    for stage in (*small.stages[::4], small.all_decided(small.decided_ops[:1])):
        net = small.supernet()
        net.apply_decisions(stage)
        figures.append(memory(net, small.batch()))
    for larger, smaller in pairwise(figures):
        assert all(after < before for before, after in zip(larger, smaller, strict=True))


def memory(net: Any, batch: Any) -> tuple[int, int, int]:
    """Numbers kept in parameters, in optimiser state and for the backward pass."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(batch).square().mean()
    optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9)
    loss.backward()
    optimizer.step()
    momenta = [entry["momentum_buffer"] for entry in optimizer.state.values()]
    groups: tuple[list[Tensor], ...] = ([*net.parameters()], momenta, [*kept.values()])
    parameters, state, activations = (sum(t.numel() for t in group) for group in groups)
    return parameters, state, activations


def test_an_optimiser_goes_on_after_a_decision(small: SmallSpace) -> None:
    net, batch = small.supernet(), small.batch()
    optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9)
    loss_of(net, batch)
    optimizer.step()
    first = net.weights()[0]
    momentum = optimizer.state[first]["momentum_buffer"].clone()
    net.apply_decisions(small.stages[-1])
    assert torch.equal(optimizer.state[first]["momentum_buffer"], momentum)
    loss_of(net, batch)
    optimizer.step()
    assert not torch.equal(optimizer.state[first]["momentum_buffer"], momentum)


def test_the_alpha_step_needs_no_gradient_of_the_weights(small: SmallSpace) -> None:
    net, batch = small.supernet(), small.batch()
    loss_of(net, batch)
    alphas = list(net.alphas.values())
    wanted = [alpha.grad for alpha in alphas]
    for weight in net.weights():
        weight.requires_grad_(False)
    grads = torch.autograd.grad(net(batch).square().mean(), alphas)
    for grad, known in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, known)


# The dimensions of a data set, the parameters beside the alphas, the shape of the alphas.
PAPER = {
    "point": ({"in_channels": 3, "num_classes": 10}, 1_827_178, (9, 10)),
    "graph": ({"in_channels": 50, "num_outputs": 121}, 161_202, (9, 10)),
    "image": ({"in_channels": 3, "num_classes": 10, "image_size": 32}, 1_930_618, (14, 8)),
}


@pytest.mark.parametrize("name", PAPER)
def test_parameter_count_at_the_paper_s_setting(name: str) -> None:
    small, (dimensions, count, shape) = SPACES[name], PAPER[name]
    config = small.family.spaces[name].model_config()
    net = small.family.spaces[name].models(config, dimensions).build_supernet()
    assert sum(weight.numel() for weight in net.weights()) == count
    alphas = list(net.alphas.values())
    assert all(alpha.shape == shape and 0 < alpha.abs().max() < 0.01 for alpha in alphas)
    assert not any(torch.equal(one, other) for one, other in pairwise(alphas))


OTHERS = [(name, options) for name, small in SPACES.items() for options in small.others]


@pytest.mark.parametrize(("name", "options"), OTHERS, ids=str)
def test_other_sizes(name: str, options: dict[str, int]) -> None:
    net, batch = SPACES[name].supernet(**options), SPACES[name].batch()
    logits = net(batch)
    logits.sum().backward()
    assert logits.shape == SPACES[name].supernet()(batch).shape
    rows = [len(alphas) for alphas in net.alphas.values()]
    assert rows == [SPACES[name].space.topology(options["num_steps"]).num_edges] * len(rows)


# The size of an input, and the words of its refusal by the supernet and by the network.
TOO_SMALL = {
    "point": ((7, 3), r"cell 1 .*4 · 2 = 8 nearest points.* has 7; lower k"),
    "image": ((3, 7, 32), r"images have 7 × 32 pixels; stem cifar needs at least 8"),
    "nasbench201": ((3, 7, 8), r"7 × 8 pixels; space nasbench201 needs at least 8"),
}


@pytest.mark.parametrize("name", TOO_SMALL)
def test_samples_that_are_too_small_are_refused_before_anything_runs(name: str) -> None:
    shape, message = TOO_SMALL[name]
    for net in (SPACES[name].supernet(), SPACES[name].network()):
        with pytest.raises(ConfigError, match=message):
            net(torch.randn(2, *shape, dtype=torch.float64))


def test_norms_have_no_counter_of_batches(small: SmallSpace) -> None:
    assert not any("num_batches" in name for name in small.supernet().state_dict())
    assert all(isinstance(weight, nn.Parameter) for weight in small.supernet().weights())
