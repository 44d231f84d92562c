"""What holds of the compiled operators alone: torch's checks, index types, threads, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sgas.errors import InputError
from sgas.native.backend import use_kernels
from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.cpu_operators import GRADIENTS, OPERATORS, operators
from sgas_gcn.kernels.indices import transpose
from sgas_gcn.rows import Rows, index_dtype, rows_of_constant_degree

NODES, HEADS, CHANNELS = 40, 2, 17
of_messages = pytest.mark.parametrize("operator", ["sage_backward", "edge_conv_backward"])
SIGNS = (("edge_relu_stats", 2), ("pool_activation", 1), ("linear_pool", 2))  # by argument


pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.parametrize("kernels", ["cpu"], indirect=True),
]


def random_rows(num_nodes: int = NODES, num_edges: int = 160, seed: int = 0) -> Rows:
    edges = torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(seed))
    return CsrGraph.from_edges(edges, num_nodes).rows


def in_type(rows: Rows, dtype: torch.dtype) -> Rows:
    """The same rows with other integers."""
    return Rows(*(tensor.to(dtype) for tensor in rows[:5]), rows.degree)


def side_by_side(count: int, num_nodes: int, num_edges: int) -> Rows:
    """The rows of random graphs that have no edge with each other."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(num_nodes, (count, 2, num_edges), generator=generator)
    edges += num_nodes * torch.arange(count).view(-1, 1, 1)
    return CsrGraph.from_edges(edges.transpose(0, 1).flatten(1), count * num_nodes).rows


@dataclass
class Arguments:
    """Arguments of all operators for a graph."""

    rows: Rows
    num_nodes: int = NODES
    channels: int = CHANNELS
    dtype: torch.dtype = torch.float64

    def matrix(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(sum(shape))
        sizes = shape or (self.num_nodes, self.channels)
        return torch.randn(sizes, generator=generator, dtype=self.dtype)

    def of(self, operator: str) -> tuple[Any, ...]:
        """The arguments of one operator, with what it needs of another's results."""
        ops, rows = operators(), self.rows
        x, heads = self.matrix(), self.matrix(self.num_nodes, HEADS)
        values = self.matrix(self.num_nodes, HEADS, self.channels)
        sign = torch.ones(self.channels, dtype=self.dtype)
        sums = torch.arange(self.channels, dtype=torch.float64)
        if operator.startswith("linear_pool"):
            return self.of_linear_pool(operator)
        if operator.startswith(("sage", "edge_conv")):
            return self.of_messages(operator)
        if operator == "pool_activation_backward":
            extremum, points, total, squares = ops.pool_activation(x, sign, 5, 0.2)
            return (extremum, total, squares, x, points, 0.2)
        if operator == "edge_relu_stats_backward":
            found = ops.edge_relu_stats(x, x.flip(0), sign, *rows)
            return (x, sums, sums, x, x.flip(0), *found[:2], *rows)
        if operator == "attention_sum_backward":
            weights = ops.attention_sum(values, heads, heads, *rows, 0.2)[1]
            vectors = self.matrix(2, HEADS * self.channels)
            return (values, values, heads, heads, weights, *rows, 0.2, vectors[0], vectors)
        if operator == "neighbor_max_backward":
            return (x, ops.neighbor_max(x, *rows, True)[1], *rows, True)
        return {
            "pool_activation": (x, sign, 5, 0.2),
            "nearest": (self.matrix(2, self.num_nodes, 3), 3),
            "smallest": (self.matrix(2, self.num_nodes, 3), 3),
            "transpose": rows[:2],
            "neighbor_sum": (x, *rows),
            "neighbor_sum_backward": (x, *rows),
            "neighbor_max": (x, *rows, True),
            "edge_relu_stats": (x, x.flip(0), sign, *rows),
            "attention_sum": (values, heads, heads.flip(0), *rows, 0.2),
        }[operator]

    def of_linear_pool(self, operator: str) -> tuple[Any, ...]:
        """The arguments of the map that is pooled, or of its gradient."""
        inputs = [self.matrix(), self.matrix(self.num_nodes, 3)]
        weight = self.matrix(self.channels + 3, self.channels + 3)
        sign = torch.ones(len(weight), dtype=self.dtype)
        given = (inputs, weight, sign, 5, 0.2)
        if operator == "linear_pool":
            return given
        y, extremum, points, total, squares = operators().linear_pool(*given)
        return (extremum, total, squares, *given[:2], y, points, 0.2, [True, False], True)

    def of_messages(self, operator: str) -> tuple[Any, ...]:
        """The arguments of an operation on two edges; those of norms are the last of its own."""
        ops, rows, channels = operators(), self.rows, self.channels
        columns = HEADS * channels
        x, scale, grad_x = self.matrix(), self.matrix(HEADS), self.matrix()
        pre, weight = self.matrix(columns, channels), self.matrix(columns, 2 * channels)
        grad = self.matrix(self.num_nodes, columns)
        if operator.startswith("sage"):
            given = (x, pre, weight, *rows, True, True)
            if operator == "sage":
                return given
            y, message, places = ops.sage(*given)
            inverse = y.unflatten(1, (HEADS, -1)).norm(dim=2).clamp_min(1e-12).reciprocal()
            kept = (x, message, places, pre, weight, *rows)
            return (grad, y, inverse, scale, 1e-12, *kept, True, grad_x, True)
        norms = [[self.matrix(channels).abs() for _ in range(HEADS)] for _ in range(4)]
        given = (x, weight, *rows, *norms, True, 0.1, 1e-5)
        if operator == "edge_conv":
            return given
        y, places, coefs = ops.edge_conv(*given)
        mask = (rows.offsets.diff() > 0).to(self.dtype)
        kept = (x, places, weight, *rows)
        return (grad, y, coefs, scale, mask, HEADS, True, *kept, grad_x, True)


def results(operator: str, arguments: Arguments) -> list[Tensor]:
    """What an operator returns, and the arguments that it writes to."""
    given, call = arguments.of(operator), getattr(operators(), operator)
    found = call(*given)
    written = [
        value
        for value, argument in zip(given, call.default._schema.arguments, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [tensor for tensor in tree_leaves((found, written)) if tensor is not None]


@pytest.mark.parametrize("operator", OPERATORS)
def test_torch_finds_no_fault_with_an_operator(operator: str) -> None:
    given = Arguments(random_rows()).of(operator)
    for number, argument in enumerate(given):
        for value in argument if isinstance(argument, list) else [argument]:
            is_sign = (operator, number) in SIGNS
            if isinstance(value, Tensor) and value.is_floating_point() and not is_sign:
                value.requires_grad_(operator in GRADIENTS)
    torch.library.opcheck(getattr(operators(), operator).default, given)


def test_nodes_and_edges_are_numbered_by_32_bits() -> None:
    rows = random_rows()
    assert rows.sources.dtype == torch.int32
    with pytest.raises(RuntimeError, match="int32, not int64"):
        operators().neighbor_sum(torch.ones(NODES, 1), *in_type(rows, torch.int64))
    with pytest.raises(InputError, match="split it into smaller graphs"):
        index_dtype(5, 2**31)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("graphs", [1, 6, 10])
def test_any_number_of_threads_gives_the_same_bits(
    operator: str, dtype: torch.dtype, graphs: int
) -> None:
    """Four threads share one graph and six, and each has graphs of its own where there are ten."""
    rows = side_by_side(graphs, 3000 // graphs, 12000 // graphs)
    arguments = Arguments(rows, 3000, 33, dtype)
    alone = results(operator, arguments)
    try:
        torch.set_num_threads(4)
        together = results(operator, arguments)
    finally:
        torch.set_num_threads(1)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


@of_messages
def test_no_node_gives_weights_a_gradient_of_zero(operator: str) -> None:
    empty = torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
    rows = Rows(*empty, *transpose(*empty), 1)
    found = results(operator, Arguments(rows, 0))
    assert len(found) == 4
    assert all(torch.equal(weight, torch.zeros_like(weight)) for weight in found[1:])


@of_messages
def test_a_way_back_without_weights(operator: str) -> None:
    *given, of_weights = Arguments(random_rows()).of(operator)
    assert of_weights
    torch.library.opcheck(getattr(operators(), operator).default, (*given, False))


def test_sage_takes_lengths_and_scales_of_any_layout() -> None:
    arguments = Arguments(random_rows())
    wanted = results("sage_backward", arguments)
    given = list(arguments.of("sage_backward"))
    given[2] = given[2].t().contiguous().t()
    given[3] = given[3].repeat_interleave(2)[::2]
    found = operators().sage_backward(*given)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=False))


def test_sage_refuses_weights_that_do_not_fit() -> None:
    x, pre, weight, *others = Arguments(random_rows()).of("sage")
    with pytest.raises(RuntimeError, match="do not fit"):
        operators().sage(x[:, :0], pre[:, :0], weight[:, :0], *others)
    with pytest.raises(RuntimeError, match=r"pre \[34, 17\] and weight .* do not fit \[40, 3\]"):
        operators().sage(x[:, :3], pre, weight, *others)


@of_messages
def test_a_gradient_to_add_to_is_dense_and_of_the_shape_of_x(operator: str) -> None:
    *given, grad_x, of_weights = Arguments(random_rows()).of(operator)
    call = getattr(operators(), operator)
    with pytest.raises(RuntimeError, match="grad_x has to be a matrix with dense rows"):
        call(*given, grad_x.t().contiguous().t(), of_weights)
    with pytest.raises(RuntimeError, match="has to come back as it was"):
        call(*given, grad_x[:-1], of_weights)


@pytest.mark.parametrize("choice", ["torch", "cpu"])
def test_the_transpose_of_constant_degree(choice: str) -> None:
    use_kernels(choice)
    generator = torch.Generator().manual_seed(0)
    sources = torch.randint(20, (20, 3), generator=generator)
    rows = rows_of_constant_degree(sources)
    wanted = sorted((int(source), edge) for edge, source in enumerate(sources.flatten()))
    assert rows.out_edges.tolist() == [edge for _, edge in wanted]
    assert rows.out_targets.tolist() == [edge // 3 for _, edge in wanted]
    counts = torch.bincount(sources.flatten(), minlength=20)
    assert torch.equal(rows.out_offsets.diff(), counts)
    assert rows.offsets.tolist() == list(range(0, 63, 3)) and rows.degree == 3


def test_the_transpose_of_no_node() -> None:
    empty = torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
    assert [len(part) for part in transpose(*empty)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": torch.zeros(3, dtype=torch.int32)}, "needs 41 offsets, not 3"),
        ({"sources": torch.zeros(4, dtype=torch.int32)}, "not all edges"),
        ({"out_edges": torch.zeros(160, dtype=torch.int64)}, "int32, not int64"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(change: dict[str, Tensor], message: str) -> None:
    rows = random_rows()._replace(**change)
    with pytest.raises(RuntimeError, match=message):
        operators().neighbor_sum(torch.zeros(NODES, 3), *rows)


def test_a_compiled_graph_calls_the_operators_without_a_break() -> None:
    ops, sign = operators(), torch.ones(3)

    def step(x: Tensor) -> Tensor:
        return ops.pool_activation(torch.relu(x), sign, 5, 0.2)[0].sum()

    x, other = (torch.ones(NODES, 3, requires_grad=True) for _ in range(2))
    torch.compile(step, backend="aot_eager", fullgraph=True)(x).backward()
    step(other).backward()
    assert torch.equal(x.grad, other.grad)  # type: ignore[arg-type]
