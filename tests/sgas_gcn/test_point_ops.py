"""Every candidate operation: the table's contract, the plain formula, the published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_gcn.config import OPERATIONS
from sgas_gcn.neighbors import Neighbors, knn
from sgas_gcn.ops.common import BatchNorm, Operation, SourceState
from sgas_gcn.ops.point import POINT_OPERATIONS

SIZES = [  # channels, clouds, points, k, dilation
    (1, 2, 6, 2, 1),
    (3, 1, 8, 8, 1),
    (5, 3, 12, 4, 3),
    (32, 2, 20, 9, 2),
    (40, 2, 300, 5, 1),  # more columns and points than go through the compiled steps at a time
]
ALL = pytest.mark.parametrize("name", POINT_OPERATIONS)
AT_ALL_SIZES = pytest.mark.parametrize("size", SIZES, ids=str)


def randomised(name: str, channels: int, count: int) -> list[Operation]:
    """Operations in float64 whose norms have weights of both signs."""
    ops = [POINT_OPERATIONS[name](channels).double() for _ in range(count)]
    for op in ops:
        for module in op.modules():
            if isinstance(module, BatchNorm):
                torch.nn.init.normal_(module.weight)
                torch.nn.init.normal_(module.bias)
    return ops


def random_state(size: tuple[int, int, int, int, int], seed: int = 0) -> tuple[Tensor, Neighbors]:
    channels, clouds, points, k, dilation = size
    torch.manual_seed(seed)
    x = torch.randn(clouds * points, channels, dtype=torch.float64, requires_grad=True)
    return x, knn(torch.randn(clouds, points, 3), k, dilation)


def evaluate(
    ops: list[Operation], x: Tensor, neighbors: Neighbors, scale: Tensor | None = None
) -> Tensor:
    return type(ops[0]).evaluate(ops, SourceState(x, neighbors), scale)


def gradients(out: Tensor, inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    torch.manual_seed(99)
    if not out.requires_grad:
        return (None,) * len(inputs)
    return torch.autograd.grad(out, inputs, torch.randn_like(out), allow_unused=True)


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(POINT_OPERATIONS) == OPERATIONS


@ALL
@AT_ALL_SIZES
def test_shape_and_finite_gradients(name: str, size: tuple[int, int, int, int, int]) -> None:
    x, neighbors = random_state(size)
    ops = randomised(name, size[0], 2)
    out = evaluate(ops, x, neighbors)
    assert out.shape == (len(x), 2, size[0]) and out.dtype == x.dtype
    assert torch.isfinite(out).all()
    parameters = [p for op in ops for p in op.parameters()]
    for grad in gradients(out, [x, *parameters]):
        assert torch.isfinite(grad).all() if grad is not None else name == "none"


@ALL
@AT_ALL_SIZES
def test_many_edges_at_once_equal_each_alone(
    name: str, size: tuple[int, int, int, int, int]
) -> None:
    x, neighbors = random_state(size)
    ops = randomised(name, size[0], 3)
    scale = torch.tensor([0.3, 1.0, 0.05], dtype=torch.float64, requires_grad=True)
    buffers = [buffer for op in ops for buffer in op.buffers()]
    fresh = [buffer.clone() for buffer in buffers]
    together = evaluate(ops, x, neighbors, scale)
    statistics = [buffer.clone() for buffer in buffers]
    torch._foreach_copy_(buffers, fresh) if buffers else None
    alone = torch.cat([evaluate([op], x, neighbors) for op in ops], dim=1) * scale.view(-1, 1)
    torch.testing.assert_close(together, alone)
    inputs = [x, scale, *[p for op in ops for p in op.parameters()]]
    pairs = zip(gradients(together, inputs), gradients(alone, inputs), strict=True)
    for ours, wanted in pairs:
        zeros = torch.zeros_like(wanted) if wanted is not None else None
        torch.testing.assert_close(zeros if ours is None else ours, wanted)
    for ours, wanted in zip(statistics, buffers, strict=True):
        torch.testing.assert_close(ours, wanted)


@ALL
def test_reordering_the_points_of_a_cloud_reorders_the_output(name: str) -> None:
    torch.manual_seed(1)
    clouds, features = torch.randn(2, 16, 3), torch.randn(2, 16, 5, dtype=torch.float64)
    order = torch.stack([torch.randperm(16) for _ in range(2)]).unsqueeze(-1)
    (op,) = randomised(name, 5, 1)
    out = evaluate([op], features.flatten(0, 1), knn(clouds, 4)).view(2, 16, 5)
    moved = evaluate(
        [op],
        features.gather(1, order.expand(-1, -1, 5)).flatten(0, 1),
        knn(clouds.gather(1, order.expand(-1, -1, 3)), 4),
    )
    torch.testing.assert_close(moved.view(2, 16, 5), out.gather(1, order.expand(-1, -1, 5)))


@ALL
def test_evaluation_mode_uses_and_keeps_the_running_statistics(name: str) -> None:
    x, neighbors = random_state(SIZES[2])
    (op,) = randomised(name, 5, 1)
    for _ in range(200):
        trained = evaluate([op], x, neighbors)
    op.eval()
    before = [buffer.clone() for buffer in op.buffers()]
    out = evaluate([op], x, neighbors)
    assert all(torch.equal(a, b) for a, b in zip(before, op.buffers(), strict=True))
    # The running variance is unbiased, so the two differ by a few percent of a deviation.
    torch.testing.assert_close(out, trained, rtol=0.1, atol=0.1)


@ALL
def test_duplicate_points_give_equal_outputs_and_finite_gradients(name: str) -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 4, dtype=torch.float64).repeat(4, 1).requires_grad_()
    neighbors = knn(torch.ones(1, 20, 3), 20)  # all points at one place: everyone's neighbour
    out = evaluate(randomised(name, 4, 1), x, neighbors)
    torch.testing.assert_close(out.view(4, 5, 4), out.view(4, 5, 4)[:1].expand(4, -1, -1))
    (grad,) = gradients(out, [x])
    assert grad is None or torch.isfinite(grad).all()


def norm(op: Operation, x: Tensor) -> Tensor:
    """Batch norm over all but the last dimension, by its definition."""
    rows = x.flatten(0, -2)
    mean, var = rows.mean(0), rows.var(0, correction=0)
    return (x - mean) / torch.sqrt(var + 1e-5) * op.norm.weight + op.norm.bias


def l2(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def plain_gat(op: Operation, x: Tensor, every: Tensor, others: Tensor) -> Tensor:
    h = norm(op, F.relu(op.lin(x)))
    pairs = torch.cat([h.unsqueeze(1).expand_as(h[every]), h[every]], -1)
    weights = torch.softmax(F.leaky_relu(pairs @ op.att, 0.2), dim=1)
    return (weights.unsqueeze(-1) * h[every]).sum(1)


def plain_sage(op: Operation, x: Tensor, messages: Tensor) -> Tensor:
    m = F.relu(op.pre(messages)).max(1).values
    return l2(F.relu(op.lin(torch.cat([x, m], -1))))


def edges(x: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """x_i and x_j - x_i of every edge, `[N, k, C]`."""
    x_i = x.unsqueeze(1).expand_as(x[others])
    return x_i, x[others] - x_i


# The formulas over edges, of an operation, x, and the neighbours with and without the point itself.
PLAIN: dict[str, Callable[[Operation, Tensor, Tensor, Tensor], Tensor]] = {
    "none": lambda op, x, every, others: torch.zeros_like(x),
    "skip_connect": lambda op, x, every, others: x,
    "conv_1x1": lambda op, x, every, others: norm(op, F.relu(op.lin(x))),
    "edge_conv": lambda op, x, every, others: (
        norm(op, F.relu(op.lin(torch.cat(edges(x, others), -1)))).max(1).values
    ),
    "mr_conv": lambda op, x, every, others: norm(
        op, F.relu(op.lin(torch.cat([x, edges(x, others)[1].max(1).values], -1)))
    ),
    "gat": plain_gat,
    "semi_gcn": lambda op, x, every, others: norm(op, F.relu(op.lin(x)))[every].mean(1),
    "gin": lambda op, x, every, others: norm(op, F.relu(op.lin(x + x[others].sum(1)))),
    "sage": lambda op, x, every, others: plain_sage(op, x, x[every]),
    "rel_sage": lambda op, x, every, others: plain_sage(op, x, edges(x, every)[1]),
}


@ALL
@AT_ALL_SIZES
@pytest.mark.usefixtures("backend")
def test_equals_the_plain_formula(name: str, size: tuple[int, int, int, int, int]) -> None:
    for seed in range(3):
        x, neighbors = random_state(size, seed)
        (op,) = randomised(name, size[0], 1)
        ours = evaluate([op], x, neighbors)[:, 0]
        every, others = neighbors.with_self.sources, neighbors.without_self.sources
        plain = PLAIN[name](op, x, every, others)
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)
        inputs = [x, *op.parameters()]
        for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in OPERATIONS[2:]])
@pytest.mark.usefixtures("backend")
def test_agrees_with_the_published_method(name: str, golden: Path) -> None:
    with np.load(golden / "point_ops.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    neighbors = Neighbors.from_local(arrays["neighbors"])
    (op,) = randomised(name, arrays["x"].shape[1], 1)
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"{name}.w.{key}"])
    x = nodes(arrays["x"]).requires_grad_()

    out = evaluate([op], x, neighbors)[:, 0]
    (out * nodes(arrays[f"{name}.g"])).sum().backward()

    close(out, nodes(arrays[f"{name}.out"]))
    close(x.grad, nodes(arrays[f"{name}.grad_x"]))
    for key, parameter in op.named_parameters():
        close(parameter.grad, arrays[f"{name}.grad_w.{key}"])
    for key, buffer in op.named_buffers():
        close(buffer, arrays[f"{name}.after.{key}"])
    op.eval()
    close(evaluate([op], x, neighbors)[:, 0], nodes(arrays[f"{name}.out_eval"]))


def nodes(array: Tensor) -> Tensor:
    """Points of all clouds as rows: `[B, C, P]` to `[B·P, C]`, float64."""
    return array.double().transpose(1, 2).flatten(0, 1)


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item()
    )
