"""What a step of a search keeps to in every family: precision, optimisers, no wait for a device."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import SPACES, small_search
from torch.utils._python_dispatch import TorchDispatchMode
from triton_runs import run_alone

from sgas.loop import run_network, whole_steps

spaces = pytest.mark.parametrize("space", SPACES)

# On a GPU each of them makes the host wait until all that was launched before is done.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")


class Counting(TorchDispatchMode):
    """Counts the operators of WAITING that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


@spaces
def test_bf16_stays_close_and_keeps_alphas_weights_and_losses_float32(
    space: str, tmp_path: Path
) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        small = small_search(tmp_path, space, precision=precision, steps=2)
        for number in range(2):
            small.step(number)
        search = small.search
        losses[precision] = torch.stack([loss / 4 for loss in search.tally.loss])
        assert losses[precision].dtype == torch.float32
        tensors = {**dict(search.supernet.named_parameters()), **search.supernet.state_dict()}
        floating = {name: x for name, x in tensors.items() if x.is_floating_point()}
        assert {x.dtype for x in floating.values()} == {torch.float32}
        states = search.alpha_optimizer.adam.state.values()
        assert all(state["exp_avg"].dtype == torch.float32 for state in states)
        assert all(torch.isfinite(x).all() for x in floating.values())
    torch.testing.assert_close(losses["bf16"], losses["float32"], rtol=0.1, atol=0)
    assert not torch.equal(losses["bf16"], losses["float32"])  # the option does something


@spaces
def test_bf16_multiplies_in_bfloat16_and_hands_out_float32(space: str, tmp_path: Path) -> None:
    small = small_search(tmp_path, space, precision="bf16")
    seen: set[torch.dtype] = set()
    for module in small.search.supernet.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(lambda m, inputs, out: seen.add(out.dtype))
    inputs, _ = small.batches[0]
    out = run_network(small.search.supernet, inputs, "bf16", torch.device("cpu"))
    assert out.dtype == torch.float32
    assert seen == {torch.bfloat16}


@spaces
def test_a_fused_step_is_the_plain_one(space: str, tmp_path: Path) -> None:
    """A fused step goes through memory in order: gradients have to lie as their parameters do."""
    search = (small := small_search(tmp_path, space)).search
    inputs, targets = small.batches[0]
    search.task.labels.loss(search._logits(inputs), targets).backward()
    weights = search.supernet.weights()
    for weight in weights:
        if weight.grad is not None:
            in_order = weight.grad.as_strided(weight.shape, weight.stride())
            assert torch.equal(in_order, weight.grad)
    config = search.config
    wanted = []
    for weight in weights:
        assert weight.grad is None or weight.grad.dtype == weight.dtype
        grad = 0 if weight.grad is None else weight.grad + config.weight_decay * weight.detach()
        wanted.append(weight.detach() - config.learning_rate * grad)
    search.weight_optimizer.step()
    torch.testing.assert_close([weight.detach() for weight in weights], wanted)
    assert search.weight_optimizer.param_groups[0]["fused"] is True


def test_elsewhere_optimisers_are_not_fused() -> None:
    assert whole_steps(torch.device("mps")) == {"foreach": True}
    assert whole_steps(torch.device("cuda")) == whole_steps(torch.device("cpu"))


@spaces
def test_no_step_waits_for_the_device(space: str, tmp_path: Path) -> None:
    small = small_search(tmp_path, space, steps=3)
    small.step(0)  # what is made once, such as the state of the optimisers
    parts, generator = small.search.parts, small.search.random.augment
    with Counting() as counting:
        parts.weights.batch(torch.arange(3), generator)
        small.step(1)
        small.step(2)
    assert not counting.waits


def test_the_count_of_waits_counts() -> None:
    with Counting() as counting:
        torch.ones(1).item()
        torch.ones(2).nonzero()
    assert counting.waits == {"_local_scalar_dense": 1, "nonzero": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@spaces
def test_no_step_waits_for_the_gpu(space: str, tmp_path: Path) -> None:
    """In a process of its own, since Triton interprets in this one."""
    program = f"""
import sys
sys.path[:0] = ["tests"]
from pathlib import Path
import torch
from small_searches import small_search
from sgas.data import batches
small = small_search(Path(sys.argv[1]), {space!r}, device="cuda", steps=4)
small.step(0)
search = small.search
order = search.weight_order.epoch(1, 4, 2)
torch.cuda.synchronize()
torch.cuda.set_sync_debug_mode("error")
for inputs, targets in batches(search.parts.weights, order, 1, search.random.augment):
    search._alpha_step(inputs, targets)
    search._weight_step(inputs, targets)
"""
    run_alone([sys.executable, "-c", program, os.fspath(tmp_path)], {})
