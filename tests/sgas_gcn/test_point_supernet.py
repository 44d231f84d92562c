"""The point supernet: parity with the published method, and what a decision frees."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgas.cells.decisions import PRUNED, UNDECIDED, CellDecisions, Choice, decided
from sgas.errors import ConfigError
from sgas_gcn.config import OPERATIONS, POINT_SPACE, PointModelConfig
from sgas_gcn.ops.operation import runs_fused
from sgas_gcn.ops.point import POINT_OPERATIONS
from sgas_gcn.supernet import PointSupernet

TOPOLOGY = POINT_SPACE.topology(3)
SMALL = PointModelConfig(
    num_points=16, k=4, channels=4, num_cells=2, num_steps=3, emb_dims=8, dropout=0.0
)


def small_supernet(seed: int = 0) -> tuple[PointSupernet, Tensor, Tensor]:
    """A supernet in float64, and a batch for it."""
    torch.manual_seed(seed)
    net = PointSupernet(SMALL, 3, 5).double()
    return net, torch.randn(4, 16, 3, dtype=torch.float64), torch.randint(5, (4,))


def some_decisions() -> CellDecisions:
    """Three decisions, of which one fills a step and prunes the rest into it."""
    decisions = CellDecisions.none_yet(TOPOLOGY)
    for choice in (Choice(4, "gat"), Choice(2, "skip_connect"), Choice(0, "edge_conv")):
        decisions = decisions.decide(choice)
    return decisions


def all_decided() -> CellDecisions:
    decisions = CellDecisions.none_yet(TOPOLOGY)
    while decisions.undecided:
        decisions = decisions.decide(Choice(decisions.undecided[0], "mr_conv"))
    return decisions


def train_step(net: PointSupernet, x: Tensor, target: Tensor) -> Tensor:
    net.zero_grad()
    loss = F.cross_entropy(net(x), target)
    loss.backward()
    return loss


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item()
    )


def our_name(name: str) -> str:
    """`cell0.edge3.gat.att` as `cells.0.edges.3.gat.att`."""
    return re.sub(r"edge(\d+)\.", r"edges.\1.", re.sub(r"cell(\d+)\.", r"cells.\1.", name))


def golden_supernet(arrays: dict[str, np.ndarray], state: str) -> PointSupernet:
    config = PointModelConfig(
        num_points=32, k=5, channels=4, num_cells=2, num_steps=3, emb_dims=16, dropout=0.0
    )
    net = PointSupernet(config, 3, 10).double()
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
@pytest.mark.parametrize("search", [True, False], ids=["searched", "given"])
@pytest.mark.usefixtures("backend")
def test_agrees_with_the_published_method(state: str, search: bool, golden: Path) -> None:
    with np.load(golden / "supernet_point.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    net = golden_supernet(arrays, state)
    points = torch.from_numpy(arrays["input"]).double().transpose(1, 2)
    given = [torch.from_numpy(arrays[f"{state}.neighbors.cell{cell}"]) for cell in range(2)]

    logits = net(points, None if search else given)
    loss = F.cross_entropy(logits, torch.from_numpy(arrays["target"]))
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
    if search:  # in evaluation mode the features, and so the neighbours, are others
        net.eval()
        close(net(points), torch.from_numpy(arrays[f"{state}.logits_eval"]))


def test_rows_of_decided_and_pruned_edges_have_zero_gradients() -> None:
    net, x, target = small_supernet()
    decisions = some_decisions()
    net.apply_decisions({"normal": decisions})
    train_step(net, x, target)
    grad = net.alphas["normal"].grad
    assert grad is not None
    is_open = [edge in decisions.undecided for edge in range(TOPOLOGY.num_edges)]
    assert [bool(row.any()) for row in grad] == is_open


def test_a_decision_frees_modules_and_keeps_the_parameters_of_what_stays() -> None:
    net, x, target = small_supernet()
    before = dict(net.named_parameters())
    decisions = some_decisions()
    net.apply_decisions({"normal": decisions})
    after = dict(net.named_parameters())
    assert all(before[name] is parameter for name, parameter in after.items())
    gone = {name for name in before if name not in after}
    for edge, state in enumerate(decisions.states):
        names = {name for name in before if f".edges.{edge}." in name}
        if state == UNDECIDED:
            assert not names & gone
        else:
            assert names - gone == {name for name in names if f".{state.op}." in name}
    assert {id(p) for p in net.weights()} == {id(p) for p in after.values()} - {
        id(net.alphas["normal"])
    }
    assert net.decisions == {"normal": decisions}
    train_step(net, x, target)


def test_applying_twice_step_by_step_or_at_once_is_the_same() -> None:
    net, x, _ = small_supernet()
    other, _, _ = small_supernet()
    final = some_decisions()
    stages = [CellDecisions.none_yet(TOPOLOGY)]
    for edge, op in ((4, "gat"), (2, "skip_connect"), (0, "edge_conv")):
        stages.append(stages[-1].decide(Choice(edge, op)))
    for stage in (*stages, stages[-1]):
        net.apply_decisions({"normal": stage})
    other.apply_decisions({"normal": final})
    assert set(net.state_dict()) == set(other.state_dict())
    assert torch.equal(net.eval()(x), other.eval()(x))
    with pytest.raises(AssertionError, match="has lost"):
        net.apply_decisions({"normal": stages[0]})


def test_a_fresh_supernet_takes_the_shape_of_a_checkpoint() -> None:
    net, x, target = small_supernet()
    net.apply_decisions({"normal": some_decisions()})
    train_step(net, x, target)
    fresh, _, _ = small_supernet(seed=1)
    fresh.apply_decisions(net.decisions)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), fresh.eval()(x))


def test_pruned_operations_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, _ = small_supernet()
    decisions = all_decided()
    net.apply_decisions({"normal": decisions})
    evaluated: list[tuple[str, int]] = []
    for name, operation in POINT_OPERATIONS.items():
        assert runs_fused(operation)

        def spy(call, *, name=name, run=operation.fused_forward):  # type: ignore[no-untyped-def]
            evaluated.append((name, call.num_edges))
            return run(call)

        monkeypatch.setattr(operation, "fused_forward", spy)
    net(x)
    assert {name for name, _ in evaluated} == {"mr_conv"}
    assert sum(count for _, count in evaluated) == SMALL.num_cells * decisions.num_decided


def test_statistics_of_what_does_not_run_stay() -> None:
    net, x, target = small_supernet()
    train_step(net, x, target)
    for cell in net.cells:
        for held in cell.edges:
            for op in held.values():
                for name, buffer in op.named_buffers():
                    if name.endswith("running_mean"):
                        assert buffer.any(), "an open candidate runs and updates its statistics"
    gone = net.cells[0].edges[1]["gin"]
    net.apply_decisions({"normal": all_decided()})
    before = gone.norm.running_mean.clone()
    train_step(net, x, target)
    assert torch.equal(gone.norm.running_mean, before)


def test_memory_falls_with_each_decision() -> None:
    net, x, target = small_supernet()
    stages = [CellDecisions.none_yet(TOPOLOGY), some_decisions(), all_decided()]
    figures = []
    for stage in stages[:2]:
        net.apply_decisions({"normal": stage})
        figures.append(memory(net, x, target))
    net, x, target = small_supernet()
    net.apply_decisions({"normal": stages[2]})
    figures.append(memory(net, x, target))
    for larger, smaller in pairwise(figures):
        assert all(after < before for before, after in zip(larger, smaller, strict=True))


def memory(net: PointSupernet, x: Tensor, target: Tensor) -> tuple[int, int, int]:
    """Numbers kept in parameters, in optimiser state and for the backward pass."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = F.cross_entropy(net(x), target)
    optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9)
    loss.backward()
    optimizer.step()
    momenta = [entry["momentum_buffer"] for entry in optimizer.state.values()]
    groups: tuple[list[Tensor], ...] = ([*net.parameters()], momenta, [*kept.values()])
    parameters, state, activations = (sum(t.numel() for t in group) for group in groups)
    return parameters, state, activations


def test_an_optimiser_goes_on_after_a_decision() -> None:
    net, x, target = small_supernet()
    optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9)
    train_step(net, x, target)
    optimizer.step()
    momentum = optimizer.state[net.stem.lin.weight]["momentum_buffer"].clone()
    net.apply_decisions({"normal": some_decisions()})
    assert torch.equal(optimizer.state[net.stem.lin.weight]["momentum_buffer"], momentum)
    train_step(net, x, target)
    optimizer.step()


def test_the_alpha_step_needs_no_gradient_of_the_weights() -> None:
    net, x, target = small_supernet()
    train_step(net, x, target)
    wanted = net.alphas["normal"].grad
    for weight in net.weights():
        weight.requires_grad_(False)
    loss = F.cross_entropy(net(x), target)
    (grad,) = torch.autograd.grad(loss, [net.alphas["normal"]])
    torch.testing.assert_close(grad, wanted)


def test_parameter_count_at_the_paper_s_setting() -> None:
    net = PointSupernet(PointModelConfig(), 3, 10)
    assert sum(weight.numel() for weight in net.weights()) == 1_827_178
    assert net.alphas["normal"].shape == (9, 10)
    assert 0 < net.alphas["normal"].abs().max() < 0.01


@pytest.mark.parametrize("num_cells", [1, 3])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_other_sizes(num_cells: int, num_steps: int) -> None:
    config = PointModelConfig(
        num_points=16, k=3, channels=2, num_cells=num_cells, num_steps=num_steps, emb_dims=4
    )
    net = PointSupernet(config, 5, 3)
    logits = net(torch.randn(2, 16, 5))
    logits.sum().backward()
    assert logits.shape == (2, 3)


def test_clouds_do_not_mix_in_evaluation_mode() -> None:
    net, x, target = small_supernet()
    train_step(net, x, target)
    net.eval()
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]))


def test_clouds_that_are_too_small_are_refused_before_anything_runs() -> None:
    net, _, _ = small_supernet()
    with pytest.raises(ConfigError, match=r"cell 1 .*4 · 2 = 8 nearest points.* has 7; lower k"):
        net(torch.randn(2, 7, 3, dtype=torch.float64))


def test_norms_have_no_counter_of_batches() -> None:
    assert not any("num_batches" in name for name in small_supernet()[0].state_dict())
    assert all(isinstance(p, nn.Parameter) for p in small_supernet()[0].weights())
