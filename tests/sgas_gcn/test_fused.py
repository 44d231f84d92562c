"""Fused states equal the operations one by one, by autograd: outputs, gradients, statistics."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from node_operations import without_fused_forms
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from triton_runs import triton_kernels

from sgas.cells.edges import CellEdge, CellLayout
from sgas.native.backend import use_kernels
from sgas_gcn.cells import Cell, LinearNorm
from sgas_gcn.config import POINT_SPACE
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.fused.call import State
from sgas_gcn.kernels.cpu_operators import operators
from sgas_gcn.neighbors import knn
from sgas_gcn.ops.graph import GRAPH_OPERATIONS
from sgas_gcn.ops.operation import BatchNorm, Operation, runs_fused
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
    edges = tuple(CellEdge(e.source, e.step, tuple(table)) for e in TOPOLOGY.edges)
    layout = CellLayout(edges, 3, (1, 2, 3, 4))
    cell = Cell(table, (channels, channels), channels, layout).double()
    for module in cell.modules():
        if isinstance(module, BatchNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    cell.restrict(held)
    return cell


Found = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


def run(cell: Cell, space: str, channels: int, drop_path: Any = None) -> Found:
    """Output, gradients and statistics of a cell."""
    torch.manual_seed(1)
    s0, s1 = (torch.randn(NODES, channels, dtype=torch.float64) for _ in range(2))
    inputs = {"s0": s0.requires_grad_(), "s1": s1.requires_grad_()}
    weights = torch.rand(TOPOLOGY.num_edges, len(cell.operations), dtype=torch.float64)
    inputs["weights"] = weights.requires_grad_()
    out = cell(s0, s1, neighbors_of(space), weights, drop_path)
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
@pytest.mark.parametrize(
    ("kernels", "channels"),
    [("torch", 3), *(("cpu", channels) for channels in (1, 3, 8, 17, 32))],  # whole vectors or not
    indirect=["kernels"],
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("stage", STAGES)
def test_equals_the_operations_one_by_one(
    space: str, stage: str, training: bool, channels: int, kernels: str
) -> None:
    found = []
    for table in (TABLES[space], without_fused_forms(TABLES[space])):
        cell = make_cell(table, STAGES[stage], channels).train(training)
        found.append(run(cell, space, channels))
    check_equal(*found)


@on_both
def test_equals_the_operations_one_by_one_on_triton_s_kernels(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "NODES", 20)  # the interpreter takes long
    held = [NAMES if edge in (0, 3, 5) else [] for edge in range(TOPOLOGY.num_edges)]
    wanted = run(make_cell(without_fused_forms(TABLES[space]), held, 3), space, 3)
    with triton_kernels():
        found = run(make_cell(TABLES[space], held, 3), space, 3)
    check_equal(found, wanted)


@pytest.mark.usefixtures("kernels")
@on_both
def test_where_only_the_edges_weights_need_gradients_less_is_kept(space: str) -> None:
    kept: list[dict[int, int]] = []
    gradients = []
    cell = make_cell(TABLES[space], EVERY, 8)
    weights = torch.rand(TOPOLOGY.num_edges, len(NAMES), dtype=torch.float64, requires_grad=True)
    x = torch.randn(NODES, 8, dtype=torch.float64)
    edges, neighbors = cell.outgoing[0].fused, neighbors_of(space)
    assert edges is not None
    for frozen in (False, True):
        cell.requires_grad_(not frozen)
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        scale = weights.flatten()[: edges.num_weights]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = torch.stack(edges.outputs(x, neighbors, scale, training=True))
        gradients.append(torch.autograd.grad(out.square().sum(), weights)[0])
        kept.append(sizes)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-10)
    everything, alone = (sum(sizes.values()) for sizes in kept)
    assert alone < 0.75 * everything


@on_both
def test_where_only_the_edges_weights_need_gradients_no_other_is_computed(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(TABLES[space], EVERY, 8).requires_grad_(False)
    weights = torch.rand(TOPOLOGY.num_edges, len(NAMES), dtype=torch.float64, requires_grad=True)
    states: list[State] = []
    finish = State.finish

    def spy(state: State) -> None:
        finish(state)
        states.append(state)

    monkeypatch.setattr(State, "finish", spy)
    s0, s1 = (torch.randn(NODES, 8, dtype=torch.float64) for _ in range(2))
    cell(s0, s1, neighbors_of(space), weights).square().sum().backward()
    # Backward: the last state first. The cell's inputs depend on no weight of an edge.
    assert [state.full for state in states] == [True, True, False, False]
    assert not any(state.needs_weights for state in states)
    assert [state.grad_x is None for state in states] == [False, False, True, True]


class Doubled(Operation):
    """2 · BN(x · factor), an operation of a table of ours: without a fused form."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.factor = torch.nn.Parameter(torch.ones(channels))
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor, neighbors: Any) -> Tensor:
        return 2 * self.norm(x * self.factor)


def drop_some(x: Tensor) -> Tensor:
    """Every second edge is dropped, the first is not."""
    return x * (torch.arange(x.shape[1]) + 1).remainder(2).view(-1, 1)


@on_both
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("drop_path", [None, drop_some], ids=["", "drop path"])
@pytest.mark.parametrize("held", [[*NAMES, "doubled"], ["doubled"]], ids=["mixed", "alone"])
def test_an_operation_without_a_fused_form_joins_the_mixture(
    space: str, held: list[str], drop_path: Any, training: bool
) -> None:
    table = {**TABLES[space], "doubled": Doubled}
    results = []
    for operations in (table, without_fused_forms(table)):
        cell = make_cell(operations, [held] * TOPOLOGY.num_edges, 5).train(training)
        results.append(run(cell, space, 5, drop_path))
    check_equal(*results)
    assert results[0][1]["edges.0.doubled.factor"].any()
    moved = results[0][2]["edges.0.doubled.norm.running_mean"]
    fresh = make_cell(table, [held] * TOPOLOGY.num_edges, 5).edges[0]["doubled"].norm.running_mean
    assert torch.equal(moved, fresh) != training


def test_a_class_that_replaces_forward_alone_runs_by_it() -> None:
    class Halved(TABLES["point"]["gin"]):  # type: ignore[misc]
        def forward(self, x: Tensor, neighbors: Any) -> Tensor:
            return super().forward(x, neighbors) / 2

    names = ["gin"] * TOPOLOGY.num_edges
    cells = [make_cell({"gin": op}, [names[:1]] * 9, 3) for op in (TABLES["point"]["gin"], Halved)]
    assert not runs_fused(Halved) and not runs_fused(Doubled)
    state = torch.randn(NODES, 3, dtype=torch.float64)
    outputs = [
        cell.outgoing[0].outputs(state, neighbors_of("point"), None, True, [None] * 3)[0]
        for cell in cells
    ]
    torch.testing.assert_close(outputs[1], outputs[0] / 2)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("negative_slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_equals_its_formula(negative_slope: float, training: bool) -> None:
    torch.manual_seed(0)
    layer = LinearNorm(5, 19, negative_slope, bias=True).double().train(training)
    torch.nn.init.normal_(layer.norm.weight)
    x = torch.randn(50, 5, dtype=torch.float64, requires_grad=True)
    plain = copy.deepcopy(layer)
    h = torch.nn.functional.leaky_relu(plain.lin(x), negative_slope)
    statistics = (plain.norm.running_mean, plain.norm.running_var)
    wanted = torch.nn.functional.batch_norm(
        h, *statistics, plain.norm.weight, plain.norm.bias, training, 0.1, 1e-5
    )
    out = layer(x)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    g = torch.randn_like(out)
    ours = torch.autograd.grad(out, [x, *layer.parameters()], g)
    theirs = torch.autograd.grad(wanted, [x, *plain.parameters()], g)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    for mine, other in zip(layer.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.compiled
@on_both
def test_float32_agrees_over_the_backends(space: str) -> None:
    found = []
    for choice in ("torch", "cpu"):
        use_kernels(choice)
        cell = make_cell(TABLES[space], EVERY, 17).float()
        torch.manual_seed(3)
        s0, s1 = torch.randn(2, NODES, 17).unbind(0)
        weights = torch.rand(TOPOLOGY.num_edges, len(NAMES))
        found.append(cell(s0, s1, neighbors_of(space), weights))
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def flops_of_a_step(table: Mapping[str, type[Operation]], name: str) -> int:
    """FLOPs of a cell that holds one operation on all edges, forward and backward."""
    cell = make_cell(table, [[name]] * TOPOLOGY.num_edges, 8).train()
    states = [torch.randn(NODES, 8, dtype=torch.float64).requires_grad_() for _ in range(2)]
    weights = torch.rand(TOPOLOGY.num_edges, len(cell.operations), dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        cell(*states, neighbors_of("point"), weights.requires_grad_()).sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("conv_1x1", 3),
        ("mr_conv", 6),
        ("semi_gcn", 3),
        ("gin", 3),
        ("sage", 9),
        ("rel_sage", 9),
        ("edge_conv", 8),  # two of them once more on the way back
    ],
)
def test_compiled_steps_count_the_flops_of_their_products(name: str, products: int) -> None:
    """Forward one product of a map, a node and an edge of the cell, backward two."""
    use_kernels("cpu")
    operators()  # with their formulas, which a counter reads when it is made
    product, inputs = 2 * NODES * 8**2, 2 * 3
    flops = flops_of_a_step(TABLES["point"], name)
    assert flops == (products * TOPOLOGY.num_edges + inputs) * product
