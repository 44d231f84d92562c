"""What a step of a search keeps to in every family: precision, optimisers, no wait for a device."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from small_searches import SPACES, small_search, small_training, training_batches
from tape import FROM_PYTHON, WAITING, Calls
from triton_runs import run_alone

from sgas.running.loop import run_network

spaces = pytest.mark.parametrize("space", SPACES)
stages = pytest.mark.parametrize("decided", [0, 2], ids=["undecided", "half decided"])


def waits(calls: Calls) -> Counter[str]:
    """How often each operator ran that waits, or begins a tensor of numbers from Python."""
    return Counter(name for name, _ in calls.found if name in (*WAITING, FROM_PYTHON))


@spaces
def test_bf16_stays_close_and_keeps_alphas_weights_and_losses_float32(
    space: str, tmp_path: Path
) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        small = small_search(space, precision=precision, steps=2)
        for number in range(2):
            small.step(number)
        search = small.search
        losses[precision] = torch.stack([loss / 4 for loss in small.tally.loss])
        assert losses[precision].dtype == torch.float32
        tensors = {**dict(search.network.named_parameters()), **search.network.state_dict()}
        floating = {name: x for name, x in tensors.items() if x.is_floating_point()}
        assert {x.dtype for x in floating.values()} == {torch.float32}
        states = search.alpha_optimizer.adam.state.values()
        assert all(state["exp_avg"].dtype == torch.float32 for state in states)
        assert all(torch.isfinite(x).all() for x in floating.values())
    torch.testing.assert_close(losses["bf16"], losses["float32"], rtol=0.1, atol=0)
    assert not torch.equal(losses["bf16"], losses["float32"])  # the option does something


@spaces
def test_bf16_multiplies_in_bfloat16_and_hands_out_float32(space: str, tmp_path: Path) -> None:
    small = small_search(space, precision="bf16")
    inputs, _ = small.batches[0]
    with Calls() as calls:
        out = run_network(small.search.network, inputs, "bf16", torch.device("cpu"))
    assert out.dtype == torch.float32
    products = [args for name, args in calls.found if name in ("mm", "addmm", "convolution")]
    narrow = [args[-1 if len(args) == 2 else 1].dtype == torch.bfloat16 for args in products]
    # The first layers of the cells and the stem at least, beside the classifier.
    assert sum(narrow) > small.search.task.model.num_cells


@spaces
@stages
def test_no_step_waits_for_the_device(space: str, decided: int, tmp_path: Path) -> None:
    small = small_search(space, steps=3, decided=decided)
    small.step(0)  # what is made once, such as the state of the optimisers
    parts, generator = small.search.parts, small.search.random.augment
    with Calls() as calls:
        parts.weights.batch(torch.arange(3), generator)
        small.step(1)
        small.step(2)
    assert not waits(calls)


@spaces
def test_no_step_of_a_training_waits_for_the_device(space: str, tmp_path: Path) -> None:
    training = small_training(space)
    first, *others = training_batches(training, 3)
    training.train_step(*first)
    with Calls() as calls:
        for batch in others:
            training.train_step(*batch)
    # The sizes of the graphs of a batch go along, by a copy that nothing waits for.
    assert waits(calls) == ({FROM_PYTHON: len(others)} if space == "graph" else {})


def test_the_count_of_waits_counts() -> None:
    with Calls() as calls:
        torch.ones(1).item()
        torch.ones(2).nonzero()
        torch.ones(2)[[1]]
    assert waits(calls) == {"_local_scalar_dense": 1, "nonzero": 1, "lift_fresh": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@spaces
@stages
def test_no_step_waits_for_the_gpu(space: str, decided: int, tmp_path: Path) -> None:
    """In a process of its own, since Triton interprets in this one."""
    program = f"""
import sys
sys.path[:0] = ["tests"]
from pathlib import Path
import torch
from small_searches import small_search
from sgas.data import batches
small = small_search({space!r}, device="cuda", steps=4, decided={decided})
small.step(0)
search = small.search
order = search.weight_order.epoch(1, 4, 2)
torch.cuda.synchronize()
torch.cuda.set_sync_debug_mode("error")
for inputs, targets in batches(search.parts.weights, order, 1, search.random.augment):
    search.alpha_step(inputs, targets)
    search.weight_step(inputs, targets)
"""
    run_alone([sys.executable, "-c", program, os.fspath(tmp_path)], {})


def gradients_by_device(space: str, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Loss, logits and all gradients of a half decided supernet in float64: on the CPU, a GPU."""
    found = []
    state: dict[str, torch.Tensor] = {}
    given: Any = None
    for name in ("cpu", "cuda"):
        small = small_search(space, device=name, decided=2)
        supernet, device = small.search.network.double(), small.search.device
        state = state or {key: value.clone() for key, value in supernet.state_dict().items()}
        supernet.load_state_dict(state)
        given = given or small.batches[0]
        inputs, targets = (part.to(device) for part in given)
        is_tensor = isinstance(inputs, torch.Tensor)
        inputs = inputs.double() if is_tensor else inputs.with_features(inputs.x.double())
        with patch("torch.nn.functional.dropout", lambda x, *_: x):  # a GPU draws other numbers
            logits = supernet(inputs)
        loss = small.search.labels.loss(logits, targets)
        parameters = dict(supernet.named_parameters())
        grads = torch.autograd.grad(loss, [*parameters.values()], allow_unused=True)
        results = {"loss": loss, "logits": logits, **dict(zip(parameters, grads, strict=True))}
        results |= supernet.state_dict()  # running statistics
        found.append({key: x.detach().cpu() for key, x in results.items() if x is not None})
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@spaces
def test_a_gpu_computes_what_the_cpu_does(space: str, tmp_path: Path) -> None:
    """In a process of its own, since Triton interprets in this one."""
    program = f"""
import sys
sys.path[:0] = ["tests", "tests/sgas"]
from pathlib import Path
import torch
from test_steps import gradients_by_device
ours, theirs = gradients_by_device({space!r}, Path(sys.argv[1]))
assert ours.keys() == theirs.keys() and len(ours) > 20
for name, value in ours.items():
    largest = value.double().abs().max().item() + 1e-6
    error = (value.double() - theirs[name].double()).abs().max().item() / largest
    assert error < 1e-7, (name, error)
"""
    run_alone([sys.executable, "-c", program, os.fspath(tmp_path)], {"SGAS_TEST_COMPILED": "1"})
