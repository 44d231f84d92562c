"""Candidate operations on graphs: the table's contract, plain formulas, published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_gcn.config import OPERATIONS
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.ops.common import BatchNorm, Operation, SourceState
from sgas_gcn.ops.graph import GRAPH_OPERATIONS

ALL = pytest.mark.parametrize("name", GRAPH_OPERATIONS)
KINDS = ("isolated nodes", "self-loops and duplicates", "no edge")
ON_ALL_GRAPHS = pytest.mark.parametrize("kind", KINDS)
NODES = 24


def edges_of(kind: str) -> Tensor:
    """An edge index over NODES nodes."""
    generator = torch.Generator().manual_seed(0)
    if kind == "no edge":
        return torch.zeros(2, 0, dtype=torch.int64)
    edges = torch.randint(NODES - 4, (2, 60), generator=generator)
    if kind == "isolated nodes":  # the last four
        return edges[:, edges[0] != edges[1]]
    loops = torch.arange(0, NODES, 3).expand(2, -1)
    return torch.cat([edges, edges[:, :20], loops], dim=1)


def randomised(name: str, channels: int, count: int) -> list[Operation]:
    """Operations in float64 whose norms have weights of both signs."""
    ops = [GRAPH_OPERATIONS[name](channels).double() for _ in range(count)]
    for op in ops:
        for module in op.modules():
            if isinstance(module, BatchNorm):
                torch.nn.init.normal_(module.weight)
                torch.nn.init.normal_(module.bias)
    return ops


def random_state(channels: int) -> Tensor:
    return torch.randn(NODES, channels, dtype=torch.float64, requires_grad=True)


def evaluate(
    ops: list[Operation], x: Tensor, edge_index: Tensor, scale: Tensor | None = None
) -> Tensor:
    neighbors = GraphNeighbors.from_edges(edge_index, len(x))
    return type(ops[0]).evaluate(ops, SourceState(x, neighbors), scale)


def gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(99)
    if not out.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(out, inputs, torch.randn_like(out), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(GRAPH_OPERATIONS) == OPERATIONS


@ALL
@ON_ALL_GRAPHS
@pytest.mark.parametrize("channels", [1, 5])
def test_shape_and_finite_gradients(name: str, kind: str, channels: int) -> None:
    torch.manual_seed(0)
    x, ops = random_state(channels), randomised(name, channels, 2)
    out = evaluate(ops, x, edges_of(kind))
    assert out.shape == (NODES, 2, channels) and out.dtype == x.dtype
    assert torch.isfinite(out).all()
    for grad in gradients(out, [x, *[p for op in ops for p in op.parameters()]]):
        assert torch.isfinite(grad).all()
    for op in ops:
        assert all(torch.isfinite(buffer).all() for buffer in op.buffers())


@ALL
@ON_ALL_GRAPHS
def test_many_edges_at_once_equal_each_alone(name: str, kind: str) -> None:
    torch.manual_seed(0)
    x, ops, edge_index = random_state(5), randomised(name, 5, 3), edges_of(kind)
    scale = torch.tensor([0.3, 1.0, 0.05], dtype=torch.float64, requires_grad=True)
    buffers = [buffer for op in ops for buffer in op.buffers()]
    fresh = [buffer.clone() for buffer in buffers]
    together = evaluate(ops, x, edge_index, scale)
    statistics = [buffer.clone() for buffer in buffers]
    torch._foreach_copy_(buffers, fresh) if buffers else None
    alone = torch.cat([evaluate([op], x, edge_index) for op in ops], dim=1) * scale.view(-1, 1)
    torch.testing.assert_close(together, alone)
    inputs = [x, scale, *[p for op in ops for p in op.parameters()]]
    for ours, wanted in zip(gradients(together, inputs), gradients(alone, inputs), strict=True):
        torch.testing.assert_close(ours, wanted)
    for ours, wanted in zip(statistics, buffers, strict=True):
        torch.testing.assert_close(ours, wanted)


@ALL
def test_permuting_the_nodes_permutes_the_output(name: str) -> None:
    torch.manual_seed(1)
    x, (op,), edge_index = random_state(5), randomised(name, 5, 1), edges_of(KINDS[1])
    order = torch.randperm(NODES)
    out = evaluate([op], x, edge_index)
    place = order.argsort()  # where each node has gone
    moved = evaluate([op], x[order], place[edge_index])
    torch.testing.assert_close(moved, out[order])


@ALL
def test_the_order_of_the_edges_does_not_matter(name: str) -> None:
    torch.manual_seed(1)
    x, (op,), edge_index = random_state(5), randomised(name, 5, 1), edges_of(KINDS[1])
    out = evaluate([op], x, edge_index)
    again = evaluate([op], x, edge_index[:, torch.randperm(edge_index.shape[1])])
    torch.testing.assert_close(again, out, rtol=1e-12, atol=1e-12)


@ALL
def test_evaluation_mode_uses_and_keeps_the_running_statistics(name: str) -> None:
    torch.manual_seed(0)
    x, (op,), edge_index = random_state(5), randomised(name, 5, 1), edges_of(KINDS[0])
    for _ in range(200):
        trained = evaluate([op], x, edge_index)
    op.eval()
    before = [buffer.clone() for buffer in op.buffers()]
    out = evaluate([op], x, edge_index)
    assert all(torch.equal(a, b) for a, b in zip(before, op.buffers(), strict=True))
    # The running variance is unbiased, so the two differ by a few percent of a deviation.
    torch.testing.assert_close(out, trained, rtol=0.1, atol=0.1)


@ALL
def test_one_node_can_be_evaluated(name: str) -> None:
    (op,) = randomised(name, 4, 1)
    x = torch.randn(1, 4, dtype=torch.float64)
    for edge_index in (torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)):
        assert torch.isfinite(evaluate([op.eval()], x, edge_index)).all()


def norm(op: Operation, x: Tensor) -> Tensor:
    """Batch norm over rows, by its definition."""
    if not len(x):
        return x
    mean, var = x.mean(0), x.var(0, correction=0)
    return (x - mean) / torch.sqrt(var + 1e-5) * op.norm.weight + op.norm.bias


def l2(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def per_node(rows: Tensor, targets: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """`reduce` over the rows of each target; 0 where it has none."""
    groups = [rows[targets == node] for node in range(NODES)]
    zero = rows.new_zeros(rows.shape[1:])
    return torch.stack([reduce(group) if len(group) else zero for group in groups])


def largest(group: Tensor) -> Tensor:
    return group.max(0).values


def renewed(edge_index: Tensor) -> Tensor:
    """The edges without self-loops, then one for each node."""
    loops = torch.arange(NODES).expand(2, -1)
    return torch.cat([edge_index[:, edge_index[0] != edge_index[1]], loops], dim=1)


def plain_edge_conv(op: Operation, x: Tensor, edge_index: Tensor) -> Tensor:
    j, i = edge_index
    return per_node(norm(op, F.relu(op.lin(torch.cat([x[i], x[j] - x[i]], -1)))), i, largest)


def plain_mr_conv(op: Operation, x: Tensor, edge_index: Tensor) -> Tensor:
    j, i = edge_index
    return norm(op, F.relu(op.lin(torch.cat([x, per_node(x[j] - x[i], i, largest)], -1))))


def plain_gat(op: Operation, x: Tensor, edge_index: Tensor) -> Tensor:
    (j, i), h = renewed(edge_index), op.proj(x)
    scores = F.leaky_relu(torch.cat([h[i], h[j]], -1) @ op.att, 0.2)
    both = torch.cat([scores.unsqueeze(1), h[j]], 1)
    out = per_node(both, i, lambda rows: torch.softmax(rows[:, :1], 0).mul(rows).sum(0))[:, 1:]
    return norm(op, F.relu(out))


def plain_semi_gcn(op: Operation, x: Tensor, edge_index: Tensor) -> Tensor:
    j, i = renewed(edge_index)
    degree = torch.bincount(i).double()
    messages = op.proj(x)[j] / (degree[i] * degree[j]).sqrt().unsqueeze(1)
    return norm(op, F.relu(per_node(messages, i, lambda rows: rows.sum(0))))


def plain_gin(op: Operation, x: Tensor, edge_index: Tensor) -> Tensor:
    j, i = edge_index
    return norm(op, F.relu(op.lin(x + per_node(x[j], i, lambda rows: rows.sum(0)))))


def plain_sage(op: Operation, x: Tensor, edge_index: Tensor, relative: bool = False) -> Tensor:
    j, i = renewed(edge_index)
    messages = op.proj(x[j] - x[i] if relative else x[j])
    mean = per_node(messages, i, lambda rows: rows.mean(0))
    return l2(norm(op, F.relu(op.lin(torch.cat([x, mean], -1)))))


# The formulas over edges, of an operation, x and the edge index.
PLAIN: dict[str, Callable[[Operation, Tensor, Tensor], Tensor]] = {
    "none": lambda op, x, edge_index: torch.zeros_like(x),
    "skip_connect": lambda op, x, edge_index: x,
    "conv_1x1": lambda op, x, edge_index: norm(op, F.relu(op.lin(x))),
    "edge_conv": plain_edge_conv,
    "mr_conv": plain_mr_conv,
    "gat": plain_gat,
    "semi_gcn": plain_semi_gcn,
    "gin": plain_gin,
    "sage": plain_sage,
    "rel_sage": lambda op, x, edge_index: plain_sage(op, x, edge_index, relative=True),
}


@ALL
@ON_ALL_GRAPHS
@pytest.mark.usefixtures("backend")
def test_equals_the_plain_formula(name: str, kind: str) -> None:
    edge_index = edges_of(kind)
    for seed in range(3):
        torch.manual_seed(seed)
        x, (op,) = random_state(6), randomised(name, 6, 1)
        ours = evaluate([op], x, edge_index)[:, 0]
        plain = PLAIN[name](op, x, edge_index)
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)
        inputs = [x, *op.parameters()]
        for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in OPERATIONS[2:]])
@pytest.mark.usefixtures("backend")
def test_agrees_with_the_published_method(name: str, golden: Path) -> None:
    with np.load(golden / "graph_ops.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    edge_index = arrays["edge_index"]
    (op,) = randomised(name, arrays["x"].shape[1], 1)
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"{name}.w.{key}"])
    x = arrays["x"].double().requires_grad_()

    out = evaluate([op], x, edge_index)[:, 0]
    (out * arrays[f"{name}.g"].double()).sum().backward()

    close(out, arrays[f"{name}.out"])
    close(x.grad, arrays[f"{name}.grad_x"])
    for key, parameter in op.named_parameters():
        close(parameter.grad, arrays[f"{name}.grad_w.{key}"])
    for key, buffer in op.named_buffers():
        close(buffer, arrays[f"{name}.after.{key}"])
    op.eval()
    close(evaluate([op], x, edge_index)[:, 0], arrays[f"{name}.out_eval"])


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item()
    )
