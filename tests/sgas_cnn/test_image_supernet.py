"""The image supernet: parity with the published method, and what a decision frees."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas.cells.decisions import PRUNED, UNDECIDED, CellDecisions, Choice, decided
from sgas.errors import ConfigError
from sgas_cnn.config import IMAGE_SPACE, OPERATIONS, ImageModelConfig
from sgas_cnn.ops.operation import Operation
from sgas_cnn.ops.zero import Zero
from sgas_cnn.supernet import ImageSupernet

TOPOLOGY = IMAGE_SPACE.topology(4)
SMALL = ImageModelConfig(channels=2, num_cells=3)
KINDS = IMAGE_SPACE.cell_kinds


def small_supernet(seed: int = 0) -> tuple[ImageSupernet, Tensor, Tensor]:
    """A supernet in float64, and a batch for it."""
    torch.manual_seed(seed)
    net = ImageSupernet(SMALL, 3, 5).double()
    return net, torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(5, (4,))


def some_decisions() -> dict[str, CellDecisions]:
    """Three decisions on normal cells, of which one fills a step, and one on reducing cells."""
    normal = reduce = CellDecisions.none_yet(TOPOLOGY)
    for choice in (Choice(4, "max_pool_3x3"), Choice(2, "skip_connect"), Choice(0, "sep_conv_3x3")):
        normal = normal.decide(choice)
    return {"normal": normal, "reduce": reduce.decide(Choice(1, "dil_conv_5x5"))}


def all_decided(op: str = "sep_conv_3x3") -> dict[str, CellDecisions]:
    decisions = CellDecisions.none_yet(TOPOLOGY)
    while decisions.undecided:
        decisions = decisions.decide(Choice(decisions.undecided[0], op))
    return dict.fromkeys(KINDS, decisions)


def train_step(net: ImageSupernet, x: Tensor, target: Tensor) -> Tensor:
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
    """`cell0.edge3.dil_conv_3x3.dw` as `cells.0.edges.3.dil_conv_3x3.dw`."""
    return re.sub(r"edge(\d+)\.", r"edges.\1.", re.sub(r"cell(\d+)\.", r"cells.\1.", name))


def golden_supernet(arrays: dict[str, np.ndarray], state: str) -> ImageSupernet:
    net = ImageSupernet(ImageModelConfig(channels=4, num_cells=4), 3, 10).double()
    weights = {
        our_name(key[2:]): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("w.")
    }
    weights.update({f"alphas.{kind}": torch.from_numpy(arrays[f"alpha_{kind}"]) for kind in KINDS})
    parameters = dict(net.named_parameters())
    assert set(weights) == set(parameters)
    for name, parameter in parameters.items():
        parameter.data.copy_(weights[name].view_as(parameter))
    words = {-1: UNDECIDED, 0: PRUNED}
    decisions = {}
    for kind in KINDS:
        selected = [int(number) for number in arrays[f"{state}.selected_{kind}"]]
        states = tuple(words.get(number) or decided(OPERATIONS[number]) for number in selected)
        decisions[kind] = CellDecisions(IMAGE_SPACE.topology(4), states)
    net.apply_decisions(decisions)
    return net


@pytest.mark.parametrize("state", ["undecided", "mixed"])
def test_agrees_with_the_published_method(state: str, golden: Path) -> None:
    with np.load(golden / "supernet_cnn.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    net = golden_supernet(arrays, state)
    images = torch.from_numpy(arrays["input"]).double()
    assert [cell.kind == "reduce" for cell in net.cells] == arrays["is_reduction"].tolist()

    logits = net(images)
    loss = F.cross_entropy(logits, torch.from_numpy(arrays["target"]))
    loss.backward()

    close(logits, torch.from_numpy(arrays[f"{state}.logits"]))
    close(loss, torch.tensor(arrays[f"{state}.loss"].item(), dtype=torch.float64))
    for kind in KINDS:
        close(net.alphas[kind].grad, torch.from_numpy(arrays[f"{state}.grad_alpha_{kind}"]))
    parameters = dict(net.named_parameters())
    norms, used = arrays[f"{state}.grad_norm"], arrays[f"{state}.grad_used"]
    compared = 0
    for name, norm, takes_part in zip(arrays["grad_names"], norms, used, strict=True):
        assert (our_name(str(name)) in parameters) == takes_part
        if takes_part:
            parameter = parameters[our_name(str(name))]
            assert parameter.grad is not None
            close(parameter.grad.norm(), torch.tensor(norm))
            key = f"{state}.grad_w.{name}"
            if key in arrays:
                close(parameter.grad, torch.from_numpy(arrays[key]).view_as(parameter))
                compared += 1
    assert compared > 10
    net.eval()
    close(net(images), torch.from_numpy(arrays[f"{state}.logits_eval"]))


def test_rows_of_decided_and_pruned_edges_have_zero_gradients() -> None:
    net, x, target = small_supernet()
    decisions = some_decisions()
    net.apply_decisions(decisions)
    train_step(net, x, target)
    for kind in KINDS:
        grad = net.alphas[kind].grad
        assert grad is not None
        is_open = [edge in decisions[kind].undecided for edge in range(TOPOLOGY.num_edges)]
        assert [bool(row.any()) for row in grad] == is_open


def test_a_decision_frees_modules_and_keeps_the_parameters_of_what_stays() -> None:
    net, x, target = small_supernet()
    before = dict(net.named_parameters())
    decisions = some_decisions()
    net.apply_decisions(decisions)
    after = dict(net.named_parameters())
    assert all(before[name] is parameter for name, parameter in after.items())
    gone = {name for name in before if name not in after}
    for number, cell in enumerate(net.cells):
        for edge, state in enumerate(decisions[cell.kind].states):
            names = {name for name in before if name.startswith(f"cells.{number}.edges.{edge}.")}
            if state == UNDECIDED:
                assert not names & gone
            else:
                assert names - gone == {name for name in names if f".{state.op}." in name}
    alphas = {id(alpha) for alpha in net.alphas.values()}
    assert {id(p) for p in net.weights()} == {id(p) for p in after.values()} - alphas
    assert net.decisions == decisions
    train_step(net, x, target)


def test_applying_twice_step_by_step_or_at_once_is_the_same() -> None:
    net, x, _ = small_supernet()
    other, _, _ = small_supernet()
    final = some_decisions()
    fresh = dict.fromkeys(KINDS, CellDecisions.none_yet(TOPOLOGY))
    for stage in (fresh, {**fresh, "reduce": final["reduce"]}, final, final):
        net.apply_decisions(stage)
    other.apply_decisions(final)
    assert set(net.state_dict()) == set(other.state_dict())
    assert torch.equal(net.eval()(x), other.eval()(x))
    with pytest.raises(AssertionError, match="has lost"):
        net.apply_decisions(fresh)


def test_a_fresh_supernet_takes_the_shape_of_a_checkpoint() -> None:
    net, x, target = small_supernet()
    net.apply_decisions(some_decisions())
    train_step(net, x, target)
    fresh, _, _ = small_supernet(seed=1)
    fresh.apply_decisions(net.decisions)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), fresh.eval()(x))


def test_what_is_decided_or_none_runs_alone_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("none was computed")

    monkeypatch.setattr(Zero, "forward", fail)
    net, x, _ = small_supernet()
    net(x)
    net.apply_decisions(all_decided())
    held = [
        name.rsplit(".", 1)[1]
        for name, module in net.named_modules()
        if isinstance(module, Operation) and ".edges." in name
    ]
    assert set(held) == {"sep_conv_3x3"}
    assert len(held) == SMALL.num_cells * TOPOLOGY.num_decisions
    net(x)


def test_memory_falls_with_each_decision() -> None:
    figures = []
    fresh = dict.fromkeys(KINDS, CellDecisions.none_yet(TOPOLOGY))
    for stage in (fresh, some_decisions(), all_decided()):
        net, x, target = small_supernet()
        net.apply_decisions(stage)
        figures.append(memory(net, x, target))
    for larger, smaller in pairwise(figures):
        assert all(after < before for before, after in zip(larger, smaller, strict=True))


def memory(net: ImageSupernet, x: Tensor, target: Tensor) -> tuple[int, int, int]:
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


def test_the_alpha_step_needs_no_gradient_of_the_weights() -> None:
    net, x, target = small_supernet()
    train_step(net, x, target)
    wanted = [net.alphas[kind].grad for kind in KINDS]
    for weight in net.weights():
        weight.requires_grad_(False)
    loss = F.cross_entropy(net(x), target)
    grads = torch.autograd.grad(loss, [net.alphas[kind] for kind in KINDS])
    for grad, known in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, known)


def test_parameter_count_at_the_paper_s_setting() -> None:
    net = ImageSupernet(ImageModelConfig(), 3, 10)
    assert sum(weight.numel() for weight in net.weights()) == 1_930_618
    for kind in KINDS:
        assert net.alphas[kind].shape == (14, 8)
        assert 0 < net.alphas[kind].abs().max() < 0.01
    assert not torch.equal(net.alphas["normal"], net.alphas["reduce"])


@pytest.mark.parametrize("num_cells", [1, 2, 5])
@pytest.mark.parametrize("num_steps", [4, 5])
def test_other_sizes(num_cells: int, num_steps: int) -> None:
    net = ImageSupernet(ImageModelConfig(1, num_cells, num_steps), 1, 3)
    logits = net(torch.randn(2, 1, 9, 14))
    logits.sum().backward()
    assert logits.shape == (2, 3)


def test_the_imagenet_stem() -> None:
    net = ImageSupernet(ImageModelConfig(2, 3, stem="imagenet"), 3, 3)
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in net.weights())


def test_images_do_not_mix_in_evaluation_mode() -> None:
    net, x, target = small_supernet()
    train_step(net, x, target)
    net.eval()
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]))


def test_images_that_are_too_small_are_refused_before_anything_runs() -> None:
    net, _, _ = small_supernet()
    with pytest.raises(
        ConfigError, match=r"images have 7 × 32 pixels; stem cifar needs at least 8"
    ):
        net(torch.randn(2, 3, 7, 32, dtype=torch.float64))


def test_the_imagenet_stem_needs_even_channels() -> None:
    with pytest.raises(ConfigError, match="channels is 3; stem imagenet halves them"):
        ImageModelConfig(channels=3, stem="imagenet")


def test_norms_have_no_counter_of_batches() -> None:
    assert not any("num_batches" in name for name in small_supernet()[0].state_dict())
