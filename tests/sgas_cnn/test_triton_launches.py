"""How many kernels the primitives of images launch by Triton, and torch beside it.

On a GPU the number of launches is the time of a step of small tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from image_kernels import SMALL, bank
from tape import Calls
from triton_images import backward_of, cell, mixing, moved, some_of
from triton_runs import DEVICE

from sgas_cnn.kernels.backend import backend_named
from sgas_cnn.kernels.protocol import Pool, PoolBackward, Projection, ProjectionBackward, Separable

pytestmark = pytest.mark.usefixtures("triton")
SEPARABLE = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]


# No launches: views, empty tensors, and tables that are sent to the device once.
FREE = {
    "_unsafe_view", "alias", "as_strided", "detach", "empty", "empty_like", "expand", "lift_fresh",
    "new_empty", "permute", "select", "slice", "split_with_sizes", "t", "transpose", "unbind",
    "unsqueeze", "view",
}  # fmt: skip


def launches(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, int]:
    """What comes back, and how many kernels were launched; Triton's are counted, not run."""
    from sgas_cnn.kernels import cuda_backend
    from sgas_cnn.kernels.triton.sums import _added_kernel

    kernels: list[str] = []

    def count(kernel: Any, *args: Any, **named: Any) -> None:
        kernels.append(kernel.fn.__name__)

    with monkeypatch.context() as patched, Calls() as calls:
        patched.setattr(type(_added_kernel), "run", count)
        patched.setattr(cuda_backend, "is_looked_at", lambda *_: False)
        back = run()
    return back, len(kernels) + sum(name not in FREE for name, _ in calls.found)


@pytest.mark.parametrize("num_edges", [2, 4])
def test_launches_do_not_grow_with_the_edges(
    num_edges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a state with four separable operations an edge, where all gradients are wanted.

    Four edges take 316 and 591 by torch_backend. Here it may be fewer, never more: on a GPU the
    number of launches is the time of a step.
    """
    edges = cell(num_edges, SEPARABLE, 4, 1)
    x = torch.randn(2, 4, 4, 4, device=DEVICE, requires_grad=True)
    weights = torch.randn(num_edges, len(SEPARABLE), device=DEVICE, requires_grad=True)
    states, forward = launches(lambda: edges([x], weights), monkeypatch)
    leaves, ones = [x, weights, *edges.parameters()], [torch.ones_like(s) for s in states[1:]]
    _, backward = launches(lambda: torch.autograd.grad(states[1:], leaves, ones), monkeypatch)
    assert forward <= 19 and backward <= 29


@pytest.mark.parametrize("num", [1, 8])
def test_launches_of_a_call(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_named("cuda")
    convolutions = some_of(bank(SMALL, torch.float32, 1, False), [0] * num)
    convolutions = moved(convolutions, DEVICE, torch.float32)
    call = Separable(convolutions, True)
    (outputs, *_), forward = launches(lambda: backend.separable(call), monkeypatch)
    of_call = backward_of(convolutions, outputs, True, [True] * num, [True] * num)
    of_call = moved(of_call, DEVICE, torch.float32)
    _, backward = launches(lambda: backend.separable_backward(of_call), monkeypatch)
    assert forward <= 5 and backward <= 9
    x, rows = convolutions.inputs[0], torch.randn(2, SMALL[0], device=DEVICE)
    weight, row = torch.randn(4, SMALL[0], 1, 1, device=DEVICE), torch.randn(1, 4, device=DEVICE)
    forward_mixing, backward_mixing = (
        moved(a, DEVICE, torch.float32) for a in mixing(SMALL, torch.float32, 3)
    )
    output = torch.randn(*x.shape[:3], 4, device=DEVICE)
    of_pool = PoolBackward(x, x, x, x, x, rows, rows, x, 1)
    of_projection = ProjectionBackward(output, row, output, row, row, x, weight, True, True)
    calls: list[tuple[int, Callable[[], Any]]] = [
        (3, lambda: backend.pool(Pool(x, 1, True, True))),
        (2, lambda: backend.pool_backward(of_pool)),
        (1, lambda: backend.mixture(forward_mixing)),
        (3, lambda: backend.mixture_backward(backward_mixing)),
        (4, lambda: backend.projection(Projection(x, weight, None, True))),
        (5, lambda: backend.projection_backward(of_projection)),
    ]
    for number, (most, run) in enumerate(calls):
        assert launches(run, monkeypatch)[1] <= most, number
