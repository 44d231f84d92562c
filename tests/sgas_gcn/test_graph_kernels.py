"""CSR graphs, and every way that plain torch takes for their primitives."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from neighbor_formulas import assert_same, inputs_of, plain_forms, run
from neighbor_primitives import primitives
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


@pytest.mark.parametrize("name", ALL)
@pytest.mark.usefixtures("way")
def test_primitives_equal_the_plain_formulas(name: str) -> None:
    edge_index, nodes = edges_of(name)
    graph = CsrGraph.from_edges(edge_index, nodes)
    plain = plain_forms(edge_index)
    for heads in (1, 3):
        for primitive, function in primitives(graph).items():
            inputs = inputs_of(primitive, nodes, 4, heads)
            found = run(function, inputs)
            assert_same(found, run(plain[primitive], inputs), 1e-12)
            outputs = function(*(x.detach() for x in inputs))  # by another way, without gradients
            assert_same(outputs, found[: len(outputs)], 1e-12)


@pytest.mark.usefixtures("way")
def test_of_equal_sources_the_first_takes_the_gradient() -> None:
    graph = CsrGraph.from_edges(torch.tensor([[2, 1, 2, 0], [0, 0, 0, 3]]), 4)
    x = torch.ones(4, 1, dtype=torch.float64, requires_grad=True)
    primitives(graph)["max"](x)[0].sum().backward()
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
    # Of the first part edges have no weights, which is all 1.
    weights = [None, *(torch.rand(edges.shape[1]) for edges, _ in parts[1:])]
    attributes = [torch.rand(edges.shape[1], 2) for edges, _ in parts]
    of_edges = zip(parts, weights, attributes, strict=True)
    own = [CsrGraph.from_edges(*part, w, a) for part, w, a in of_edges]
    joined, ones = CsrGraph.join(own), torch.ones(parts[0][0].shape[1])
    every = torch.cat([ones if w is None else w for w in weights])
    whole = CsrGraph.from_edges(torch.cat(shifted, 1), first, every, torch.cat(attributes))
    assert joined.whole_totals is None
    for field in CsrGraph.__dataclass_fields__.keys() - {"whole_totals"}:
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
