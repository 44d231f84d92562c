"""What the Triton kernels over neighbours keep to beside the contract of `test_kernels`.

Types, tiles, indices of 32 bits; that they compile, and what torch knows of them.

Interpreted on the CPU; `test_all_of_this_holds_compiled` runs the file again on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from neighbor_primitives import attention_sum, edge_relu_stats, neighbor_max, neighbor_sum
from torch import Tensor
from triton_runs import DEVICE, pass_compiled, run_alone, triton_kernels

from sgas_gcn.csr import CsrGraph
from sgas_gcn.kernels.protocol import Graph
from sgas_gcn.neighbors import NeighborGraph

SLOPE = 0.2
# Node 3 has no edges, 0 reads 1 twice, 4 reads itself, 2 reads 19 nodes (more than a tile holds).
EDGES = [(1, 0), (1, 0), (2, 0), (4, 4), (0, 1), (3, 1), *[(n % 6, 2) for n in range(19)], (0, 5)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with triton_kernels():
        yield


def csr_graph(dtype: torch.dtype = torch.int64) -> CsrGraph:
    """Six nodes as in EDGES, all index tensors of `dtype`."""
    graph = CsrGraph.from_edges(torch.tensor(EDGES).t(), 6)
    narrow = {name: x.to(dtype) for name, x in vars(graph).items() if isinstance(x, Tensor)}
    return replace(graph, **narrow)


def neighbor_graph(num_nodes: int = 6, degree: int = 3) -> NeighborGraph:
    """Nodes that read random ones; its columns are a view with gaps, as those without self are."""
    generator = torch.Generator().manual_seed(0)
    wider = torch.randint(num_nodes, (num_nodes, degree + 1), generator=generator)
    return NeighborGraph(wider.to(DEVICE)[:, 1:])


GRAPHS: dict[str, Callable[[], Graph]] = {
    "rows": lambda: csr_graph().to(DEVICE),
    "rows int32": lambda: csr_graph(torch.int32).to(DEVICE),
    "constant degree": neighbor_graph,
}

# Channels that fill no tile, and more than one.
CASES = [("rows", 130), ("rows int32", 3)]


def edges_of(graph: Graph) -> tuple[Tensor, Tensor]:
    """Sources and targets of all edges, in order."""
    if isinstance(graph, CsrGraph):
        return graph.sources.long(), graph.targets.long()
    targets = torch.arange(graph.num_nodes, device=DEVICE).repeat_interleave(graph.degree)
    return graph.sources.flatten(), targets


def runs_of(graph: Graph) -> list[Tensor]:
    """The numbers of the edges that enter each node."""
    targets = edges_of(graph)[1]
    return [(targets == node).nonzero().flatten() for node in range(graph.num_nodes)]


def first_of_largest(x: Tensor) -> Tensor:
    """The maxima of `[n, D]` over n, the gradient to the first of equals; zeros where n is 0."""
    return x.gather(0, x.argmax(0, keepdim=True))[0] if len(x) else x.new_zeros(x.shape[1:])


def plain_sum(x: Tensor, graph: Graph) -> tuple[Tensor, ...]:
    sources, targets = edges_of(graph)
    return (torch.zeros_like(x).index_add(0, targets, x[sources]),)


def plain_max(x: Tensor, graph: Graph) -> tuple[Tensor, ...]:
    sources, _ = edges_of(graph)
    return (torch.stack([first_of_largest(x[sources[run]]) for run in runs_of(graph)]),)


def plain_stats(target: Tensor, source: Tensor, graph: Graph) -> tuple[Tensor, ...]:
    sources, targets = edges_of(graph)
    sign = signs_of(target)
    h = torch.relu(target[targets] + source[sources])  # [E, D]
    selected = torch.stack([sign * first_of_largest(sign * h[run]) for run in runs_of(graph)])
    return selected, h.double().sum(0), h.double().square().sum(0)


def plain_attention(
    values: Tensor, target_score: Tensor, source_score: Tensor, graph: Graph
) -> tuple[Tensor, ...]:
    sources, targets = edges_of(graph)
    scores = F.leaky_relu(target_score[targets] + source_score[sources], SLOPE)
    sums = [
        (torch.softmax(scores[run], 0).unsqueeze(-1) * values[sources[run]]).sum(0)
        for run in runs_of(graph)
    ]
    return (torch.stack(sums),)


def signs_of(x: Tensor) -> Tensor:
    """Alternating signs, one a channel."""
    return 1 - 2 * (torch.arange(x.shape[1], device=x.device) % 2).to(x.dtype)


Primitive = Callable[..., tuple[Tensor, ...]]
PRIMITIVES: dict[str, tuple[Primitive, Primitive]] = {
    "sum": (lambda x, graph: (neighbor_sum(x, graph),), plain_sum),
    "max": (lambda x, graph: (neighbor_max(x, graph),), plain_max),
    "stats": (lambda a, b, graph: edge_relu_stats(a, b, signs_of(a), graph), plain_stats),
    "attention": (lambda v, t, s, graph: (attention_sum(v, t, s, graph, SLOPE),), plain_attention),
}
primitives = pytest.mark.parametrize("name", PRIMITIVES)


def inputs_of(
    name: str, num_nodes: int, channels: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Random arguments of a primitive; attention has two heads."""
    wide, narrow = (num_nodes, channels), (num_nodes, 2)
    shapes = {
        "sum": [wide],
        "max": [wide],
        "stats": [wide, wide],
        "attention": [(num_nodes, 2, channels), narrow, narrow],
    }
    generator = torch.Generator().manual_seed(channels)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes[name]]
    return [x.to(DEVICE, dtype).requires_grad_() for x in drawn]


def outputs_and_gradients(
    function: Primitive, inputs: Sequence[Tensor], graph: Graph
) -> list[Tensor]:
    """What a primitive returns, and the gradients of its inputs for fixed ones of its outputs."""
    outputs = function(*inputs, graph)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, inputs, weights)]


def assert_close(ours: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float) -> None:
    for mine, theirs in zip(ours, wanted, strict=True):
        largest = float(theirs.detach().abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(
            mine.double(), theirs.double(), rtol=0, atol=tolerance * max(largest, 1.0)
        )


@primitives
@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_outputs_and_gradients_are_those_of_the_plain_formula(
    name: str, kind: str, channels: int
) -> None:
    graph, (ours, plain) = GRAPHS[kind](), PRIMITIVES[name]
    inputs = inputs_of(name, 6, channels)
    assert_close(
        outputs_and_gradients(ours, inputs, graph),
        outputs_and_gradients(plain, inputs, graph),
        1e-12,
    )


@primitives
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    graph, (ours, plain) = csr_graph().to(DEVICE), PRIMITIVES[name]
    inputs = inputs_of(name, 6, 3, dtype)
    found = outputs_and_gradients(ours, inputs, graph)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    # The kernels' maxima are exact, so both choose the same edges.
    assert_close(found, outputs_and_gradients(plain, exact, graph), TOLERANCE[dtype])
    assert [x.dtype for x in found[-len(inputs) :]] == [dtype] * len(inputs)
    assert name != "stats" or found[1].dtype == torch.float64


@primitives
@pytest.mark.parametrize(("nodes", "channels"), [(0, 3), (4, 0), (4, 3)])
def test_no_nodes_no_channels_no_edges(name: str, nodes: int, channels: int) -> None:
    edges = torch.empty(2, 0, dtype=torch.int64, device=DEVICE)
    graph = CsrGraph.from_edges(edges, nodes)
    inputs = inputs_of(name, nodes, channels)
    found = outputs_and_gradients(PRIMITIVES[name][0], inputs, graph)
    assert found[0].shape == inputs[0].shape
    assert not any(x.any() for x in found)


def test_without_gradients_no_edge_is_sorted() -> None:
    graph = neighbor_graph()
    with torch.no_grad():
        for name, (ours, _) in PRIMITIVES.items():
            ours(*inputs_of(name, 6, 3), graph)
    assert "transposed" not in vars(graph)


@primitives
def test_torch_knows_the_operator(name: str) -> None:
    """Schema, autograd, fake tensors and tracing, as torch.compile relies on them."""
    from sgas_gcn.kernels import cuda_neighbors as kernels

    graph = neighbor_graph(3, 2)
    incoming, outgoing = kernels.incoming(graph), kernels.outgoing(graph)
    inputs = [x.detach() for x in inputs_of(name, 3, 2)]
    sums = torch.ones(2, 2, dtype=torch.float64, device=DEVICE)
    first = inputs[0]
    forward, backward = {
        "sum": (kernels.sum_op, None),
        "max": (kernels.max_op, kernels.max_gradient_op),
        "stats": (kernels.relu_stats_op, kernels.relu_stats_gradients_op),
        "attention": (kernels.attention_op, kernels.attention_gradients_op),
    }[name]
    more = {"stats": [signs_of(first)]}.get(name, [])
    settings = [SLOPE] if name == "attention" else []
    arguments = (*inputs, *more, incoming, *settings)
    torch.library.opcheck(forward, arguments)
    results = forward(*arguments)
    ways_back = {
        "max": (first, results[1], outgoing),
        "stats": ([first, *sums], [*inputs, results[-1]], incoming, outgoing),
        "attention": (first, [*inputs, results[1]], incoming, outgoing[:2], SLOPE),
    }
    if backward is not None:
        torch.library.opcheck(backward, ways_back[name])


COMPILE = """
import sys
sys.path[:0] = ["tests"]
import torch
from compile_kernels import compiled
from sgas_gcn.csr import CsrGraph
from neighbor_primitives import on

kernels = on("cuda")
graph = CsrGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), 2)

def program():
    x, y = (torch.zeros(2, 40, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    outputs = [kernels.neighbor_sum(x, graph), kernels.neighbor_max(x, graph)]
    outputs += kernels.edge_relu_stats(x, y, torch.ones(40), graph)
    outputs += [kernels.attention_sum(x.view(2, 1, 40), x[:, :1], y[:, :1], graph, 0.2)]
    torch.autograd.backward(outputs, [torch.zeros_like(out) for out in outputs])

print(sorted(compiled(program, (80,)).items()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here() -> None:
    launched = run_alone([sys.executable, "-c", COMPILE], {})
    wanted = {
        "_sum_kernel": 2,
        "_max_kernel": 1,
        "_chosen_sum_kernel": 1,
        "_stats_kernel": 1,
        "_attention_kernel": 1,
        "_grad_target_kernel": 2,
        "_grad_source_kernel": 2,
    }
    assert launched.strip() == str(sorted(wanted.items()))


@pytest.mark.gpu
def test_all_of_this_holds_compiled() -> None:
    pass_compiled(__file__)


@pytest.mark.gpu
def test_two_runs_on_a_gpu_agree_to_the_bit() -> None:
    program = """
import sys
sys.path[:0] = ["tests"]
import torch
from neighbor_primitives import *
from sgas.native.backend import use_kernels
from sgas_gcn.neighbors import NeighborGraph
use_kernels("cuda")
torch.manual_seed(0)
graph = NeighborGraph(torch.randint(5000, (5000, 9), device="cuda"))
x = torch.randn(5000, 3, 32, device="cuda", requires_grad=True)
s = torch.randn(5000, 3, device="cuda", requires_grad=True)
def run():
    flat = x.flatten(1)
    outputs = [neighbor_sum(flat, graph), neighbor_max(flat, graph)]
    outputs += edge_relu_stats(flat, flat, torch.ones(96, device="cuda"), graph)
    outputs += [attention_sum(x, s, s, graph, 0.2)]
    grads = [torch.ones_like(out) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, (x, s), grads)]
assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
"""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    run_alone([sys.executable, "-c", program], {})
