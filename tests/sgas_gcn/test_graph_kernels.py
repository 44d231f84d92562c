"""CSR graphs, and every way that plain torch takes for their primitives."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from neighbor_primitives import attention_sum, edge_relu_stats, neighbor_max, neighbor_sum
from torch import Tensor

from sgas.errors import DataError
from sgas.native.backend import use_kernels
from sgas_gcn.csr import CsrGraph, GraphNeighbors
from sgas_gcn.kernels import scatter, torch_csr

# Nodes and edges: isolated nodes, self-loops, duplicates, one node, no edge, no duplicates of any.
GRAPHS: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "isolated": (5, [(0, 1), (1, 0), (3, 1)]),
    "self-loops": (4, [(0, 0), (1, 0), (2, 2), (3, 3), (3, 3)]),
    "duplicates": (3, [(0, 1), (0, 1), (2, 1), (0, 1), (1, 2), (1, 2)]),
    "one node": (1, []),
    "one node, one loop": (1, [(0, 0)]),
    "no edge": (4, []),
    "one way": (6, [(5, 0), (4, 0), (3, 0), (2, 0), (1, 0)]),
}
ALL = [*GRAPHS, "random"]
WITH_SCATTER = importlib.util.find_spec("torch_scatter") is not None


def edges_of(name: str) -> tuple[Tensor, int]:
    """An edge index and the number of nodes."""
    if name == "random":
        return torch.randint(40, (2, 300), generator=torch.Generator().manual_seed(0)), 45
    num_nodes, edges = GRAPHS[name]
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).t(), num_nodes


def fake_scatter() -> ModuleType:
    """A module that answers as torch-scatter does, written plainly."""
    module = ModuleType("torch_scatter")

    def segment_max_csr(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(offsets) - 1, x.shape[1])
        best, edge = x.new_zeros(shape), torch.full(shape, len(x))
        for row, (start, stop) in enumerate(pairwise(offsets)):
            if stop > start:
                best[row], first = x[start:stop].max(0)
                edge[row] = first + start
        return best, edge

    module.segment_max_csr = segment_max_csr  # type: ignore[attr-defined]
    return module


@pytest.fixture(params=["torch", "pieces", "plain scatter", "torch-scatter"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every way of plain torch: without and with torch-scatter, a piece at a time."""
    use_kernels("torch")
    scatter.segment_max_csr.cache_clear()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    if request.param in ("torch", "pieces"):
        monkeypatch.setitem(sys.modules, "torch_scatter", None)
    elif request.param == "plain scatter":
        monkeypatch.setitem(sys.modules, "torch_scatter", fake_scatter())
    elif not WITH_SCATTER:
        pytest.skip("torch-scatter is not installed")
    if request.param == "pieces":
        monkeypatch.setitem(torch_csr.PIECE, "cpu", 8)
    yield
    scatter.segment_max_csr.cache_clear()
    use_kernels("auto")


def random_tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
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
        found = torch.autograd.grad(outputs, inputs, grads, allow_unused=True)
        given = [
            torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)
        ]
        results.append((*outputs, *given))
        with torch.no_grad():
            for first, second in zip(outputs, function(*inputs), strict=True):
                torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def by_node(graph: Tensor, num_nodes: int) -> list[Tensor]:
    """The sources of each node, in the order of the edges."""
    return [graph[0, graph[1] == node] for node in range(num_nodes)]


def plain_max(x: Tensor, edge_index: Tensor) -> Tensor:
    zero = 0 * x[0]
    rows = by_node(edge_index, len(x))
    return torch.stack([x[row].max(0).values if len(row) else zero for row in rows])


def plain_edge_relu_stats(
    target: Tensor, source: Tensor, sign: Tensor, edge_index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.relu(target[edge_index[1]] + source[edge_index[0]])  # [E, D]
    rows = [(edge_index[1] == node).nonzero().flatten() for node in range(len(target))]
    zero = 0 * target[0]
    extrema = [sign * (sign * h[row]).max(0).values if len(row) else zero for row in rows]
    return torch.stack(extrema), h.sum(0), h.square().sum(0)


def plain_attention(
    values: Tensor, target_score: Tensor, source_score: Tensor, edge_index: Tensor
) -> Tensor:
    out = []
    for node, row in enumerate(by_node(edge_index, len(values))):
        scores = F.leaky_relu(target_score[node] + source_score[row], 0.2)
        weights = torch.softmax(scores, dim=0)  # [degree, m]
        out.append((weights.unsqueeze(-1) * values[row]).sum(0))
    return torch.stack(out)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.usefixtures("way")
def test_primitives_equal_the_plain_formulas(name: str) -> None:
    edge_index, nodes = edges_of(name)
    graph = CsrGraph.from_edges(edge_index, nodes)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    one = random_tensors((nodes, 3))
    assert_same(
        lambda x: (neighbor_sum(x, graph),),
        lambda x: (torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]]),),
        one,
    )
    assert_same(lambda x: (neighbor_max(x, graph),), lambda x: (plain_max(x, edge_index),), one)
    assert_same(
        lambda a, b: edge_relu_stats(a, b, sign, graph),
        lambda a, b: plain_edge_relu_stats(a, b, sign, edge_index),
        random_tensors((nodes, 3), (nodes, 3)),
    )
    for heads in (1, 3):
        assert_same(
            lambda v, t, s: (attention_sum(v, t, s, graph, 0.2),),
            lambda v, t, s: (plain_attention(v, t, s, edge_index),),
            random_tensors((nodes, heads, 4), (nodes, heads), (nodes, heads)),
        )


@pytest.mark.usefixtures("way")
def test_of_equal_sources_the_first_takes_the_gradient() -> None:
    graph = CsrGraph.from_edges(torch.tensor([[2, 1, 2, 0], [0, 0, 0, 3]]), 4)
    x = torch.ones(4, 1, dtype=torch.float64, requires_grad=True)
    neighbor_max(x, graph).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1, 0, 1, 0]


def test_a_graph_and_its_transpose() -> None:
    edge_index, nodes = edges_of("random")
    graph = CsrGraph.from_edges(edge_index, nodes)
    assert (graph.num_nodes, graph.num_edges) == (nodes, 300)
    assert sorted(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True)) == sorted(
        map(tuple, edge_index.t().tolist())
    )
    wanted = torch.bincount(edge_index[1], minlength=nodes)
    assert torch.equal(graph.degrees.flatten(), wanted)
    assert torch.equal(graph.has_edges.flatten(), wanted > 0)
    assert torch.equal(graph.targets[graph.out_edges], graph.out_targets)
    sources = graph.sources[graph.out_edges]
    assert torch.equal(sources, sources.sort().values)
    assert torch.equal(graph.out_offsets.diff(), torch.bincount(edge_index[0], minlength=nodes))


@pytest.mark.parametrize("name", ALL)
def test_joined_graphs_equal_the_graph_of_all_edges(name: str) -> None:
    parts = [edges_of(other) for other in ("isolated", name, "self-loops")]
    first, shifted = 0, []
    for edge_index, nodes in parts:
        shifted.append(edge_index + first)
        first += nodes
    joined = CsrGraph.join([CsrGraph.from_edges(*part) for part in parts])
    whole = CsrGraph.from_edges(torch.cat(shifted, 1), first)
    for field in CsrGraph.__dataclass_fields__:
        ours, wanted = (torch.as_tensor(getattr(graph, field)) for graph in (joined, whole))
        assert torch.equal(ours, wanted), field


def test_self_loops_are_renewed() -> None:
    edge_index, nodes = edges_of("self-loops")
    neighbors = GraphNeighbors.from_edges(edge_index, nodes)
    assert neighbors.edges.num_edges == 5
    pairs = zip(neighbors.with_self.sources, neighbors.with_self.targets, strict=True)
    assert sorted((int(j), int(i)) for j, i in pairs) == [(0, 0), (1, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("edge", [(0, 3), (-1, 0)])
def test_an_edge_to_nowhere_is_refused(edge: tuple[int, int]) -> None:
    with pytest.raises(
        DataError, match=r"edge 1 joins the nodes .*; a graph of 3 nodes has .*0 to"
    ):
        CsrGraph.from_edges(torch.tensor([(0, 1), edge]).t(), 3)


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_broken_torch_scatter_is_never_an_error(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise error("built for another torch")

    scatter.segment_max_csr.cache_clear()
    monkeypatch.setitem(sys.modules, "torch_scatter", Broken("torch_scatter"))
    assert scatter.segment_max_csr() is None
    scatter.segment_max_csr.cache_clear()
