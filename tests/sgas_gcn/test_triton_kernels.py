"""What the Triton kernels over neighbours keep to beside the contract of `test_kernels`.

Types, tiles, indices of 32 bits; that they compile, and what torch knows of them.

Interpreted on the CPU; tests/test_triton.py runs the file again on a GPU.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from neighbor_formulas import assert_same, inputs_of, plain_forms, run
from neighbor_primitives import PRIMITIVES, SLOPE, primitives, signs
from torch import Tensor
from triton_runs import DEVICE, INTERPRETED

from sgas_gcn.csr import CsrGraph
from sgas_gcn.neighbors import NeighborGraph

pytestmark = pytest.mark.usefixtures("triton")

# Node 3 has no edges, 0 reads 1 twice, 4 reads itself, 2 reads 19 nodes (more than a tile holds).
EDGES = [(1, 0), (1, 0), (2, 0), (4, 4), (0, 1), (3, 1), *[(n % 6, 2) for n in range(19)], (0, 5)]
EDGE_INDEX = torch.tensor(EDGES).t()
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def csr_graph(dtype: torch.dtype = torch.int64) -> CsrGraph:
    """Six nodes as in EDGES, all index tensors of `dtype`."""
    graph = CsrGraph.from_edges(EDGE_INDEX, 6)
    narrow = {name: x.to(dtype) for name, x in vars(graph).items() if isinstance(x, Tensor)}
    return replace(graph, **narrow).to(DEVICE)


def neighbor_graph(num_nodes: int = 6, degree: int = 3) -> NeighborGraph:
    """Nodes that read random ones; its columns are a view with gaps, as those without self are."""
    generator = torch.Generator().manual_seed(0)
    wider = torch.randint(num_nodes, (num_nodes, degree + 1), generator=generator)
    return NeighborGraph(wider.to(DEVICE)[:, 1:])


each_primitive = pytest.mark.parametrize("name", ["sum", "max", "stats", "attention"])


@each_primitive
@pytest.mark.parametrize(("index", "channels"), [(torch.int64, 130), (torch.int32, 3)])
def test_outputs_and_gradients_are_those_of_the_plain_formula(
    name: str, index: torch.dtype, channels: int
) -> None:
    """With indices of both types, and with channels that fill no tile or more than one."""
    inputs = inputs_of(name, 6, channels)
    found = run(primitives(csr_graph(index))[name], [x.to(DEVICE) for x in inputs])
    assert_same(found, run(plain_forms(EDGE_INDEX)[name], inputs), 1e-12)


@each_primitive
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_narrow_types_are_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    inputs = [x.to(DEVICE, dtype) for x in inputs_of(name, 6, 3)]
    found = run(primitives(csr_graph())[name], inputs)
    exact = [x.cpu().double() for x in inputs]
    # The kernels' maxima are exact, so both choose the same edges.
    assert_same(found, run(plain_forms(EDGE_INDEX)[name], exact), TOLERANCE[dtype])
    assert [x.dtype for x in found[-len(inputs) :]] == [dtype] * len(inputs)
    assert name != "stats" or found[1].dtype == torch.float64


def test_without_gradients_no_edge_is_sorted() -> None:
    graph = neighbor_graph()
    with torch.no_grad():
        for name, function in primitives(graph).items():
            function(*(x.to(DEVICE) for x in inputs_of(name, 6, 3)))
    assert "transposed" not in vars(graph)


@each_primitive
def test_torch_knows_the_operator(name: str) -> None:
    """Schema, autograd, fake tensors and tracing, as torch.compile relies on them."""
    from sgas_gcn.kernels import cuda_neighbors as kernels

    graph = neighbor_graph(3, 2)
    incoming, outgoing = kernels.incoming(graph), kernels.outgoing(graph)
    inputs = [x.to(DEVICE) for x in inputs_of(name, 3, 2)]
    sums = torch.ones(2, 2, dtype=torch.float64, device=DEVICE)
    first = inputs[0]
    forward, backward = {
        "sum": (kernels.sum_op, None),
        "max": (kernels.max_op, kernels.max_gradient_op),
        "stats": (kernels.relu_stats_op, kernels.relu_stats_gradients_op),
        "attention": (kernels.attention_op, kernels.attention_gradients_op),
    }[name]
    more = {"stats": [signs(2).to(first)]}.get(name, [])
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


@pytest.mark.parametrize("name", PRIMITIVES)
def test_two_runs_agree_to_the_bit(name: str) -> None:
    num_nodes, channels = (6, 3) if INTERPRETED else (5000, 96)
    function = primitives(neighbor_graph(num_nodes))[name]
    inputs = [x.to(DEVICE) for x in inputs_of(name, num_nodes, channels)]
    first, second = (run(function, inputs) for _ in range(2))
    assert all(map(torch.equal, first, second))
