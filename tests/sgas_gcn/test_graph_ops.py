"""Candidate operations on graphs: the table's contract, fused forms, published figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from node_operations import (
    assert_fused_form_is_the_definition,
    assert_golden,
    fused,
    gradients,
    one_by_one,
    randomised,
)
from torch import Tensor

from sgas_gcn.config import OPERATIONS
from sgas_gcn.csr import GraphNeighbors
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


def random_state(channels: int) -> Tensor:
    return torch.randn(NODES, channels, dtype=torch.float64, requires_grad=True)


def read(edge_index: Tensor) -> GraphNeighbors:
    return GraphNeighbors.from_edges(edge_index, NODES)


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(GRAPH_OPERATIONS) == OPERATIONS


@ALL
@ON_ALL_GRAPHS
@pytest.mark.parametrize("channels", [1, 5])
def test_shape_and_finite_gradients(name: str, kind: str, channels: int) -> None:
    torch.manual_seed(0)
    x, (op,) = random_state(channels), randomised(GRAPH_OPERATIONS[name], channels)
    out = op(x, read(edges_of(kind)))
    assert out.shape == (NODES, channels) and out.dtype == x.dtype
    assert torch.isfinite(out).all()
    for grad in gradients(out, [x, *op.parameters()]):
        assert torch.isfinite(grad).all()
    assert all(torch.isfinite(buffer).all() for buffer in op.buffers())


@ALL
@ON_ALL_GRAPHS
@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.usefixtures("backend")
def test_the_fused_form_is_the_definition(
    name: str, kind: str, channels: int, training: bool
) -> None:
    for seed in range(2):
        torch.manual_seed(seed)
        operation, x = GRAPH_OPERATIONS[name], random_state(channels)
        assert_fused_form_is_the_definition(operation, x, read(edges_of(kind)), training)


@ALL
def test_permuting_the_nodes_permutes_the_output(name: str) -> None:
    torch.manual_seed(1)
    (op,) = randomised(GRAPH_OPERATIONS[name], 5)
    x, edge_index = random_state(5), edges_of(KINDS[1])
    order = torch.randperm(NODES)
    out = op(x, read(edge_index))
    place = order.argsort()  # where each node has gone
    moved = op(x[order], read(place[edge_index]))
    torch.testing.assert_close(moved, out[order])


@ALL
def test_the_order_of_the_edges_does_not_matter(name: str) -> None:
    torch.manual_seed(1)
    (op,) = randomised(GRAPH_OPERATIONS[name], 5)
    x, edge_index = random_state(5), edges_of(KINDS[1])
    out = op(x, read(edge_index))
    again = op(x, read(edge_index[:, torch.randperm(edge_index.shape[1])]))
    torch.testing.assert_close(again, out, rtol=1e-12, atol=1e-12)


@ALL
def test_evaluation_mode_uses_and_keeps_the_running_statistics(name: str) -> None:
    torch.manual_seed(0)
    (op,) = randomised(GRAPH_OPERATIONS[name], 5)
    x, edge_index = random_state(5), edges_of(KINDS[0])
    for _ in range(200):
        trained = op(x, read(edge_index))
    op.eval()
    before = [buffer.clone() for buffer in op.buffers()]
    out = op(x, read(edge_index))
    assert all(torch.equal(a, b) for a, b in zip(before, op.buffers(), strict=True))
    # The running variance is unbiased, so the two differ by a few percent of a deviation.
    torch.testing.assert_close(out, trained, rtol=0.1, atol=0.1)


@ALL
def test_one_node_can_be_evaluated(name: str) -> None:
    (op,) = randomised(GRAPH_OPERATIONS[name], 4)
    x = torch.randn(1, 4, dtype=torch.float64)
    for edge_index in (torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)):
        assert torch.isfinite(op.eval()(x, GraphNeighbors.from_edges(edge_index, 1))).all()


@pytest.mark.parametrize("name", [name for name in OPERATIONS[2:]])
@pytest.mark.parametrize("way", [fused, one_by_one])
@pytest.mark.usefixtures("backend")
def test_agrees_with_the_published_method(
    way: Callable[..., Tensor], name: str, golden: Path
) -> None:
    with np.load(golden / "graph_ops.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    x = arrays["x"].double().requires_grad_()
    neighbors = GraphNeighbors.from_edges(arrays["edge_index"], len(x))
    (op,) = randomised(GRAPH_OPERATIONS[name], x.shape[1])
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"{name}.w.{key}"])

    out = way([op], x, neighbors)[:, 0]
    (out * arrays[f"{name}.g"].double()).sum().backward()

    assert_golden(out, arrays[f"{name}.out"])
    assert_golden(x.grad, arrays[f"{name}.grad_x"])
    for key, parameter in op.named_parameters():
        assert_golden(parameter.grad, arrays[f"{name}.grad_w.{key}"])
    for key, buffer in op.named_buffers():
        assert_golden(buffer, arrays[f"{name}.after.{key}"])
    op.eval()
    assert_golden(way([op], x, neighbors)[:, 0], arrays[f"{name}.out_eval"])
