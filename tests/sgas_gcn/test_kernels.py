"""The contract of the primitives, for every backend and both kinds of graph.

The plain formulas have tensors of edges: outputs and gradients of each backend have to equal
theirs. Triton's kernels are interpreted here; tests/test_triton.py runs them again on
a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from neighbor_formulas import HEADS, assert_same, inputs_of, plain_forms, run
from neighbor_primitives import PRIMITIVES, primitives
from torch import Tensor
from triton_runs import DEVICE, INTERPRETED, triton_kernels

from sgas.errors import DataError
from sgas.native.backend import backend_for, use_kernels
from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.protocol import Graph
from sgas_gcn.library import LIBRARY
from sgas_gcn.neighbors import NeighborGraph

CHANNELS = [0, 1, 3, 17, 32, 100]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
each_primitive = pytest.mark.parametrize("primitive", PRIMITIVES)


@pytest.fixture(params=["torch", "cpu", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of the backend that is in force; skips one that this machine cannot run."""
    if request.param == "triton":
        with triton_kernels():
            yield torch.device(DEVICE)
        return
    use_kernels(request.param)
    yield torch.device("cpu")


def is_slow() -> bool:
    """Whether the kernels in force are interpreted."""
    return INTERPRETED and backend_for(torch.device("cpu"), LIBRARY) == "cuda"


def quick(name: str) -> str:
    """The graph of a name, or a smaller one of its kind where kernels are interpreted."""
    return SMALLER[name] if is_slow() else name


def random_edges(num_nodes: int, num_edges: int) -> Tensor:
    """An edge index in which nodes read any nodes, some of them twice, some none."""
    return torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(0))


def constant_degree(num_nodes: int, degree: int) -> Tensor:
    """An edge index in which every node reads `degree` nodes."""
    targets = torch.arange(num_nodes).repeat_interleave(degree)
    return torch.stack([random_edges(num_nodes, num_nodes * degree)[0], targets])


# Kind of graph, nodes, edges: sources above targets.
GRAPHS: dict[str, tuple[str, int, Tensor]] = {
    "constant": ("constant", 12, constant_degree(12, 4)),
    "constant, of one": ("constant", 7, constant_degree(7, 1)),
    "constant, no node": ("constant", 0, torch.zeros(2, 0, dtype=torch.int64)),
    "rows": ("rows", 25, random_edges(23, 80)),
    "rows, one way": ("rows", 6, torch.tensor([[5, 4, 3, 2, 1], [0, 0, 0, 0, 0]])),
    "rows, more than a byte": ("rows", 3, random_edges(2, 700)),
    "one node": ("rows", 1, torch.zeros(2, 0, dtype=torch.int64)),
    "no edge": ("rows", 4, torch.zeros(2, 0, dtype=torch.int64)),
    "no node": ("rows", 0, torch.zeros(2, 0, dtype=torch.int64)),
}


SMALLER = {"constant": "constant, of one", "rows": "rows, one way"}


def graph_of(name: str, device: torch.device) -> Graph:
    kind, num_nodes, edge_index = GRAPHS[name]
    if kind == "constant":
        degree = edge_index.shape[1] // num_nodes if num_nodes else 3
        return NeighborGraph(edge_index[0].view(num_nodes, degree).to(device))
    return CsrGraph.from_edges(edge_index, num_nodes).to(device)


@pytest.mark.parametrize("name", GRAPHS)
@each_primitive
def test_outputs_and_gradients_equal_the_plain_formula(
    primitive: str, name: str, backend: torch.device
) -> None:
    _, num_nodes, edges = GRAPHS[name]
    function, plain = primitives(graph_of(name, backend))[primitive], plain_forms(edges)[primitive]
    for channels in [0, 3] if is_slow() else CHANNELS:
        inputs = inputs_of(primitive, num_nodes, channels)
        wanted = run(plain, inputs)
        for dtype in [torch.float64] if is_slow() else TOLERANCE:
            found = run(function, [x.to(backend, dtype) for x in inputs])
            assert found[0].dtype == dtype
            assert_same(found, wanted, TOLERANCE[dtype])


def test_a_constant_degree_of_none_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \[4, 0\].*give a CsrGraph"):
        NeighborGraph(torch.zeros(4, 0, dtype=torch.int64))


@pytest.mark.parametrize("name", ["constant", "rows"])
@each_primitive
def test_gradcheck(primitive: str, name: str, backend: torch.device) -> None:
    if is_slow() and name == "constant":
        pytest.skip("the interpreter takes long, and both kinds are rows to it")
    name = quick(name)
    function = primitives(graph_of(name, backend))[primitive]
    inputs = inputs_of(primitive, GRAPHS[name][1], 3)
    leaves = [x.to(backend).requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=is_slow())


@pytest.mark.parametrize("kind", ["constant", "rows"])
def test_of_equal_neighbors_the_first_takes_the_gradient(kind: str, backend: torch.device) -> None:
    sources = torch.tensor([[1, 2], [2, 1], [0, 0]], device=backend)
    graph: Graph = NeighborGraph(sources)
    if kind == "rows":
        targets = torch.arange(3, device=backend).repeat_interleave(2)
        graph = CsrGraph.from_edges(torch.stack([sources.flatten(), targets]), 3)
    x = torch.ones(3, 17, dtype=torch.float64, device=backend, requires_grad=True)
    (by_max,) = torch.autograd.grad(primitives(graph)["max"](x)[0].sum(), x)
    assert (by_max == 1).all()
    stats = primitives(graph, sign=-torch.ones(17))["stats"]
    (by_stats,) = torch.autograd.grad(stats(torch.zeros_like(x), x)[0].sum(), x)
    assert (by_stats == 1).all()


def test_a_degree_above_255_keeps_the_right_neighbor(backend: torch.device) -> None:
    if is_slow():
        pytest.skip("the interpreter takes long; its rows of more than a byte are tested above")
    order = torch.arange(300, device=backend).expand(300, 300)
    x = torch.arange(300, dtype=torch.float64, device=backend).unsqueeze(1).requires_grad_()
    primitives(NeighborGraph(order))["max"](x)[0].sum().backward()
    assert x.grad is not None and x.grad.flatten().nonzero().tolist() == [[299]]


def strided(x: Tensor, layout: str) -> Tensor:
    """The same numbers as a column slice of a wider matrix, as every second column, or by columns.

    A head dimension stays inside a row.
    """
    flat = x.flatten(1)
    if layout == "slice":
        wide = torch.cat([flat, flat, flat], dim=1)[:, flat.shape[1] : 2 * flat.shape[1]]
    elif layout == "every second":
        wide = flat.repeat_interleave(2, dim=1)[:, ::2]
    else:
        wide = flat.t().contiguous().t()
    return wide.unflatten(1, x.shape[1:])


@pytest.mark.parametrize("layout", ["slice", "every second", "by columns"])
@pytest.mark.parametrize("name", ["constant", "rows"])
@each_primitive
def test_inputs_and_gradients_may_have_any_strides(
    primitive: str, name: str, layout: str, backend: torch.device
) -> None:
    if is_slow() and layout != "every second":
        pytest.skip("the interpreter takes long, and every kernel packs its inputs by one function")
    name = quick(name)
    function = primitives(graph_of(name, backend))[primitive]
    channels = 3 if is_slow() else 17
    dense = [x.to(backend) for x in inputs_of(primitive, GRAPHS[name][1], channels)]

    def with_strided_gradients(*inputs: Tensor) -> tuple[Tensor, ...]:
        first, *others = function(*inputs)
        first.register_hook(lambda grad: strided(grad, layout))
        return (first, *others)

    found = run(with_strided_gradients, [strided(x, layout) for x in dense])
    assert_same(found, [x.cpu() for x in run(function, dense)], 1e-12)


def test_large_scores_do_not_overflow(backend: torch.device) -> None:
    edges = torch.tensor([[0, 1, 2], [0, 0, 0]], device=backend)
    scores = torch.tensor([[1e4], [2e4], [-1e4]], device=backend)
    values = torch.eye(3, device=backend).unsqueeze(1)
    attention = primitives(CsrGraph.from_edges(edges, 3))["attention"]
    (out,) = attention(values, scores, scores)
    assert out[0].flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
@pytest.mark.parametrize("channels", [1, 17, 35])
@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("kind", ["constant", "rows"])
def test_a_nan_in_the_last_channel_alone_is_seen(
    backend: torch.device, channels: int, dtype: torch.dtype, place: int, kind: str
) -> None:
    if is_slow() and (place or kind == "rows"):
        pytest.skip("the interpreter takes long, and both kinds are rows to it")
    graph: Graph = graph_of("constant", backend)
    sources = graph.sources
    if kind == "rows":
        graph = CsrGraph.from_edges(torch.stack(graph.ends), 12)
    x = torch.zeros(12, channels, dtype=dtype, device=backend)
    x[sources[3, place], -1] = float("nan")
    by = primitives(graph, sign=torch.ones(channels))
    largest = by["max"](x)[0].isnan()
    assert largest[3, -1] and not largest[:, :-1].any()
    assert all(part[..., -1].isnan().any() for part in by["stats"](x, x))


@pytest.mark.parametrize("name", ["constant", "rows"])
def test_nothing_of_the_size_of_edges_and_channels_is_kept(
    name: str, backend: torch.device
) -> None:
    graph, num_nodes, channels = graph_of(name, backend), GRAPHS[name][1], 100
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        for primitive, function in primitives(graph).items():
            inputs = inputs_of(primitive, num_nodes, channels)
            outputs = function(*(x.to(backend).requires_grad_() for x in inputs))
            assert all(output.requires_grad for output in outputs)
    assert kept and max(tensor.numel() for tensor in kept) <= num_nodes * HEADS * channels
