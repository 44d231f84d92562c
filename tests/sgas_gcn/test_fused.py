"""Fused states equal the operations one by one, by autograd: outputs, gradients, statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sgas_gcn.cells import Cell, CellEdge
from sgas_gcn.config import POINT_SPACE
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.neighbors import knn
from sgas_gcn.ops.common import BatchNorm, Operation
from sgas_gcn.ops.graph import GRAPH_OPERATIONS
from sgas_gcn.ops.point import POINT_OPERATIONS

TOPOLOGY = POINT_SPACE.topology(3)
TABLES: dict[str, Mapping[str, type[Operation]]] = {
    "point": POINT_OPERATIONS,
    "graph": GRAPH_OPERATIONS,
}
NAMES = list(POINT_OPERATIONS)
EVERY = [NAMES] * TOPOLOGY.num_edges
# What the edges hold, by stage of decision: all, some decided and one pruned, one operation each.
STAGES: dict[str, list[list[str]]] = {
    "undecided": EVERY,
    "half decided": [["gat"], NAMES, [], ["sage"], NAMES, ["edge_conv"], NAMES, NAMES, ["gat"]],
    "all decided": [[name] for name in [*NAMES[1:], "none"]][:9],
    "one edge each step": [["rel_sage"], [], ["gin"], [], [], ["semi_gcn"], [], [], []],
}
NODES = 40

on_both = pytest.mark.parametrize("space", TABLES)


def without_forms(table: Mapping[str, type[Operation]]) -> dict[str, type[Operation]]:
    """The operations as they are without a fused form: by `evaluate` and autograd."""
    return {name: type(cls.__name__, (cls,), {"form": None}) for name, cls in table.items()}


def neighbors_of(space: str) -> Any:
    torch.manual_seed(5)
    if space == "point":
        return knn(torch.randn(2, NODES // 2, 3), 5, 2)
    edges = torch.randint(NODES - 3, (2, 150))  # three isolated nodes, self-loops, duplicates
    return GraphNeighbors.from_edges(edges, NODES)


def make_cell(
    table: Mapping[str, type[Operation]], held: Sequence[Sequence[str]], channels: int
) -> Cell:
    """A cell in float64 whose norms have weights of both signs, decided down to `held`."""
    torch.manual_seed(0)
    edges = [CellEdge(e.source, e.step, tuple(table)) for e in TOPOLOGY.edges]
    cell = Cell(table, (channels, channels), channels, edges, 3, (1, 2, 3, 4)).double()
    for module in cell.modules():
        if isinstance(module, BatchNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    cell.restrict(held)
    return cell


Found = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


def run(cell: Cell, space: str, channels: int) -> Found:
    """Output, gradients and statistics of a cell."""
    torch.manual_seed(1)
    s0, s1 = (torch.randn(NODES, channels, dtype=torch.float64) for _ in range(2))
    inputs = {"s0": s0.requires_grad_(), "s1": s1.requires_grad_()}
    weights = torch.rand(TOPOLOGY.num_edges, len(cell.operations), dtype=torch.float64)
    inputs["weights"] = weights.requires_grad_()
    out = cell(s0, s1, neighbors_of(space), weights)
    inputs |= dict(cell.named_parameters())
    grads = torch.autograd.grad(out, inputs.values(), torch.randn_like(out), allow_unused=True)
    found = {
        name: torch.zeros_like(x) if grad is None else grad
        for (name, x), grad in zip(inputs.items(), grads, strict=True)
    }
    return out, found, {name: buffer.clone() for name, buffer in cell.named_buffers()}


def check_equal(ours: Found, wanted: Found) -> None:
    tolerance = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(ours[0], wanted[0], **tolerance)
    for mine, theirs in zip(ours[1:], wanted[1:], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, msg=lambda m, n=name: n + m, **tolerance)


@on_both
@pytest.mark.parametrize("channels", [3, 8, 17, 32])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("stage", STAGES)
def test_equals_the_operations_one_by_one(
    space: str, stage: str, training: bool, channels: int, backend: torch.device
) -> None:
    found = []
    for table in (TABLES[space], without_forms(TABLES[space])):
        cell = make_cell(table, STAGES[stage], channels).train(training)
        found.append(run(cell, space, channels))
    check_equal(*found)
