"""The primitives against plain forms with edge tensors, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas_gcn.kernels import attention_sum, edge_relu_stats, neighbor_max, neighbor_sum
from sgas_gcn.neighbors import NeighborGraph

SIZES = [(7, 1, 1), (12, 3, 2), (30, 5, 8), (300, 4, 3)]  # nodes, channels, degree


def random_graph(num_nodes: int, degree: int) -> NeighborGraph:
    """A graph in which nodes read any nodes, some of them twice."""
    return NeighborGraph(torch.randint(num_nodes, (num_nodes, degree)))


def random_tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def assert_same(
    fast: Callable[..., tuple[Tensor, ...]],
    plain: Callable[..., tuple[Tensor, ...]],
    inputs: list[Tensor],
) -> None:
    """Both agree in their outputs and, for random gradients of these, in all gradients."""
    results = []
    for function in (fast, plain):
        torch.manual_seed(1)
        outputs = function(*inputs)
        grads = [torch.randn_like(output) for output in outputs]
        results.append((*outputs, *torch.autograd.grad(outputs, inputs, grads)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def plain_edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, graph: NeighborGraph
) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.relu(target.unsqueeze(1) + source[graph.sources])  # [N, k, D]
    return sign * (sign * h).max(1).values, h.sum((0, 1)), h.square().sum((0, 1))


def plain_attention(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: NeighborGraph
) -> Tensor:
    scores = target_score.unsqueeze(1) + source_score[graph.sources]
    weights = torch.softmax(F.leaky_relu(scores, 0.2), dim=1)  # [N, k, m]
    return (weights.unsqueeze(-1) * values[graph.sources]).sum(1)


@pytest.mark.parametrize(("nodes", "channels", "degree"), SIZES)
def test_neighbor_sum(nodes: int, channels: int, degree: int) -> None:
    torch.manual_seed(nodes)
    graph = random_graph(nodes, degree)
    inputs = random_tensors((nodes, channels))
    assert_same(lambda x: (neighbor_sum(x, graph),), lambda x: (x[graph.sources].sum(1),), inputs)


@pytest.mark.parametrize(("nodes", "channels", "degree"), SIZES)
def test_neighbor_max(nodes: int, channels: int, degree: int) -> None:
    torch.manual_seed(nodes)
    graph = random_graph(nodes, degree)
    inputs = random_tensors((nodes, channels))
    assert_same(
        lambda x: (neighbor_max(x, graph),), lambda x: (x[graph.sources].max(1).values,), inputs
    )


@pytest.mark.parametrize(("nodes", "channels", "degree"), SIZES)
def test_edge_relu_stats(nodes: int, channels: int, degree: int) -> None:
    torch.manual_seed(nodes)
    graph = random_graph(nodes, degree)
    sign = torch.where(torch.rand(channels, dtype=torch.float64) < 0.5, -1.0, 1.0).double()
    assert_same(
        lambda a, b: edge_relu_stats(a, b, sign, graph),
        lambda a, b: plain_edge_relu_stats(a, b, sign, graph),
        random_tensors((nodes, channels), (nodes, channels)),
    )


@pytest.mark.parametrize(("nodes", "channels", "degree"), SIZES)
@pytest.mark.parametrize("stacked", [1, 3])
def test_attention_sum(nodes: int, channels: int, degree: int, stacked: int) -> None:
    torch.manual_seed(nodes)
    graph = random_graph(nodes, degree)
    assert_same(
        lambda v, t, s: (attention_sum(v, t, s, graph, 0.2),),
        lambda v, t, s: (plain_attention(v, t, s, graph),),
        random_tensors((nodes, stacked, channels), (nodes, stacked), (nodes, stacked)),
    )


def test_gradcheck_of_all_primitives() -> None:
    torch.manual_seed(0)
    graph = random_graph(6, 3)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x, y = random_tensors((6, 2), (6, 2))
    values, target, source = random_tensors((6, 2, 2), (6, 2), (6, 2))
    assert torch.autograd.gradcheck(lambda a: neighbor_sum(a, graph), (x,))
    assert torch.autograd.gradcheck(lambda a: neighbor_max(a, graph), (x,))
    assert torch.autograd.gradcheck(lambda a, b: edge_relu_stats(a, b, sign, graph), (x, y))
    assert torch.autograd.gradcheck(
        lambda v, t, s: attention_sum(v, t, s, graph, 0.2), (values, target, source)
    )


def test_of_equal_neighbors_the_first_takes_the_gradient() -> None:
    graph = NeighborGraph(torch.tensor([[1, 2], [2, 1], [0, 0]]))
    x = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    neighbor_max(x, graph).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1, 1, 1]
    target = torch.zeros(3, 1, dtype=torch.float64)
    x.grad = None
    edge_relu_stats(target, x, -torch.ones(1).double(), graph)[0].sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 1]


def test_a_degree_above_255_keeps_the_right_neighbor() -> None:
    order = torch.arange(300).expand(300, 300)
    x = torch.arange(300, dtype=torch.float64).unsqueeze(1).requires_grad_()
    neighbor_max(x, NeighborGraph(order)).sum().backward()
    assert x.grad is not None and x.grad.flatten().nonzero().tolist() == [[299]]


@pytest.mark.parametrize("layout", ["strided", "transposed"])
def test_inputs_and_gradients_may_have_any_strides(layout: str) -> None:
    torch.manual_seed(0)
    graph = random_graph(9, 4)
    base = torch.randn(9, 8, dtype=torch.float64)
    x = base[:, ::2] if layout == "strided" else base[:, :4].t().contiguous().t()
    other, grad = x.contiguous(), torch.randn(4, 9, dtype=torch.float64).t()
    for function in (neighbor_sum, neighbor_max):
        ours, wanted = x.detach().requires_grad_(), other.detach().requires_grad_()
        function(ours, graph).backward(grad)
        function(wanted, graph).backward(grad.contiguous())
        torch.testing.assert_close(ours.grad, wanted.grad)


def test_nothing_of_the_size_of_the_edges_is_kept() -> None:
    nodes, channels, degree = 64, 16, 20
    graph = random_graph(nodes, degree)
    kept: list[Tensor] = []
    sign = torch.ones(channels)
    x = torch.randn(nodes, channels, requires_grad=True)
    values = torch.randn(nodes, 2, channels, requires_grad=True)
    scores = torch.randn(nodes, 2)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        outputs = [
            neighbor_sum(x, graph),
            neighbor_max(x, graph),
            edge_relu_stats(x, x, sign, graph)[0],
            attention_sum(values, scores, scores, graph, 0.2),
        ]
    assert kept and all(output.requires_grad for output in outputs)
    assert max(tensor.numel() for tensor in kept) <= 2 * nodes * max(channels, degree)


def test_under_autocast_sums_are_of_float32() -> None:
    """In bfloat16, 256 + 1 is 256."""
    graph = NeighborGraph(torch.arange(300).expand(300, 300))
    x = torch.ones(300, 1, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        total = neighbor_sum(x, graph)
        selected, sums, _ = edge_relu_stats(x, x, torch.ones(1), graph)
    assert total.dtype == selected.dtype == torch.bfloat16
    assert sums.item() == 2 * 300 * 300
    (grad,) = torch.autograd.grad(sums.sum(), x)
    assert grad.dtype == torch.bfloat16
    torch.testing.assert_close(grad.float(), torch.full((300, 1), 600.0), rtol=4e-3, atol=0)
