"""Candidate operations of points and graphs: the tables' contract, fused forms, golden figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden_arrays import close, read_arrays
from node_operations import (
    assert_fused_form_is_the_definition,
    fused,
    gradients,
    one_by_one,
    randomised,
)
from torch import Tensor
from torch_geometric.nn import APPNP, GATConv, GCNConv, GINEConv, GraphConv

from sgas_gcn.config import OPERATIONS
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.neighbors import Neighbors, knn
from sgas_gcn.ops.attributes import AttributeGAT, AttributeGIN
from sgas_gcn.ops.graph import GRAPH_OPERATIONS
from sgas_gcn.ops.point import POINT_OPERATIONS
from sgas_gcn.propagation import Propagation

State = tuple[Tensor, Neighbors | GraphNeighbors]
TABLES = {"point": POINT_OPERATIONS, "graph": GRAPH_OPERATIONS}
NODES = 24


def cloud_state(channels: int, clouds: int, points: int, k: int, dilation: int) -> State:
    x = torch.randn(clouds * points, channels, dtype=torch.float64, requires_grad=True)
    return x, knn(torch.randn(clouds, points, 3), k, dilation)


def read(edge_index: Tensor) -> GraphNeighbors:
    return GraphNeighbors.from_edges(edge_index, NODES)


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


def graph_state(channels: int, kind: str) -> State:
    x = torch.randn(NODES, channels, dtype=torch.float64, requires_grad=True)
    edges = edges_of(kind)
    weights = torch.rand(edges.shape[1], dtype=torch.float64).round(decimals=1)  # some are 0
    return x, GraphNeighbors.from_edges(edges, NODES, weights if kind == "weights" else None)


# The space, the channels, and what makes a state of them with neighbours.
CASES: dict[str, tuple[str, int, Callable[[int], State]]] = {
    "small": ("point", 1, partial(cloud_state, clouds=2, points=6, k=2, dilation=1)),
    "all points": ("point", 3, partial(cloud_state, clouds=1, points=8, k=8, dilation=1)),
    "dilated": ("point", 5, partial(cloud_state, clouds=3, points=12, k=4, dilation=3)),
    "wide": ("point", 32, partial(cloud_state, clouds=2, points=20, k=9, dilation=2)),
    # More columns and points than go through the compiled steps at a time.
    "many": ("point", 40, partial(cloud_state, clouds=2, points=300, k=5, dilation=1)),
}
KINDS = ("isolated nodes", "self-loops and duplicates", "no edge", "weights")
CASES |= {
    f"graph, {kind}, {channels}": ("graph", channels, partial(graph_state, kind=kind))
    for kind in KINDS
    for channels in (1, 6)
}
IN_ALL_CASES = pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case, (space, *_) in CASES.items() for name in TABLES[space]],
)


@IN_ALL_CASES
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.usefixtures("kernels")
def test_the_fused_form_is_the_definition(case: str, name: str, training: bool) -> None:
    space, channels, make = CASES[case]
    for seed in range(2):
        torch.manual_seed(seed)
        x, neighbors = make(channels)
        assert_fused_form_is_the_definition(TABLES[space][name], x, neighbors, training)


@pytest.mark.parametrize("name", GRAPH_OPERATIONS)
def test_edges_have_no_order(name: str) -> None:
    torch.manual_seed(1)
    (op,) = randomised(GRAPH_OPERATIONS[name], 5)
    (x, _), edge_index = graph_state(5, KINDS[1]), edges_of(KINDS[1])
    shuffled = edge_index[:, torch.randperm(edge_index.shape[1])]
    out, again = (op(x, read(edges)) for edges in (edge_index, shuffled))
    torch.testing.assert_close(again, out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_attributes_of_edges_are_those_of_pygs_operators(kind: str) -> None:
    torch.manual_seed(0)
    edges, x = edges_of(kind), torch.randn(NODES, 6, dtype=torch.float64)
    attributes = torch.randn(edges.shape[1], 4, dtype=torch.float64)
    state = GraphNeighbors.from_edges(edges, NODES, None, attributes)
    gat, theirs = AttributeGAT(6, 4).double(), GATConv(6, 6, edge_dim=4, bias=False).double()
    with torch.no_grad():
        theirs.lin.weight.copy_(gat.proj.weight)
        target, source = gat.att.view(2, 1, 1, 6)
        theirs.att_dst.copy_(target)
        theirs.att_src.copy_(source)
        gat.edge.weight.copy_(theirs.att_edge.view(1, -1) @ theirs.lin_edge.weight)
        wanted = gat.norm(F.relu(theirs(x, edges, attributes)))
        torch.testing.assert_close(gat(x, state), wanted, rtol=1e-9, atol=1e-9)
    gin = AttributeGIN(6, 4).double()
    layer = GINEConv(gin.lin, edge_dim=None).double()
    layer.lin = gin.edge
    with torch.no_grad():
        wanted = gin.norm(F.relu(layer(x, edges, attributes)))
        torch.testing.assert_close(gin(x, state), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float16])
def test_attributes_of_any_type_are_those_of_float(dtype: torch.dtype) -> None:
    edges = edges_of("self-loops and duplicates").repeat(1, 40)
    attributes = (200 * torch.rand(edges.shape[1], 2)).to(dtype)
    for given in ("edges", "with_self"):
        found, wanted = (
            getattr(GraphNeighbors.from_edges(edges, NODES, None, each), given).attributes
            for each in (attributes, attributes.float())
        )
        torch.testing.assert_close(found.float(), wanted)


def test_weights_of_edges_are_those_of_pygs_operators() -> None:
    edges, weights = edges_of("isolated nodes"), torch.rand(60, dtype=torch.float64)
    edges = torch.cat([edges, torch.tensor([[3], [3]])], dim=1)  # a loop, which keeps its weight
    weights = torch.cat([weights[: edges.shape[1] - 1], weights.new_tensor([0.3])])
    x = torch.randn(NODES, 6, dtype=torch.float64)
    state = GraphNeighbors.from_edges(edges, NODES, weights)
    gcn = GCNConv(6, 6, bias=False).double()
    (own,) = randomised(GRAPH_OPERATIONS["semi_gcn"], 6)
    own.proj.weight.data = gcn.lin.weight.data
    wanted = own.norm(torch.relu(gcn(x, edges, weights)))
    torch.testing.assert_close(own(x, state), wanted)
    appnp = APPNP(3, 0.2)
    torch.testing.assert_close(Propagation(3, 0.2)(x, state), appnp(x, edges, weights))
    loops, of_all = state.with_self.edge_index, state.with_self.weights
    assert of_all is not None
    total = torch.zeros(NODES, dtype=torch.float64).index_add(0, loops[1], of_all)
    add = GraphConv(6, 6, bias=False).double()  # W1 x_i + W2 Σ w x_j
    (sage,) = randomised(GRAPH_OPERATIONS["sage"], 6)
    own_part, message = sage.lin.weight.chunk(2, dim=1)
    add.lin_root.weight.data, add.lin_rel.weight.data = own_part, message @ sage.proj.weight
    mapped = sage.norm(torch.relu(add(x, loops, of_all / total[loops[1]])))
    torch.testing.assert_close(sage(x, state), mapped / mapped.norm(dim=1, keepdim=True))
    for name in ("gin", "gat", "edge_conv", "mr_conv"):  # which have no place for them
        (other,) = randomised(GRAPH_OPERATIONS[name], 6)
        torch.testing.assert_close(other(x, state), other(x, read(edges)))


@pytest.mark.parametrize("name", POINT_OPERATIONS)
def test_duplicate_points_give_equal_outputs_and_finite_gradients(name: str) -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 4, dtype=torch.float64).repeat(4, 1).requires_grad_()
    neighbors = knn(torch.ones(1, 20, 3), 20)  # all points at one place: everyone's neighbour
    (op,) = randomised(POINT_OPERATIONS[name], 4)
    out = op(x, neighbors)
    torch.testing.assert_close(out.view(4, 5, 4), out.view(4, 5, 4)[:1].expand(4, -1, -1))
    (grad,) = gradients(out, [x])
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", GRAPH_OPERATIONS)
def test_one_node_can_be_evaluated(name: str) -> None:
    (op,) = randomised(GRAPH_OPERATIONS[name], 4)
    x = torch.randn(1, 4, dtype=torch.float64)
    for edge_index in (torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)):
        assert torch.isfinite(op.eval()(x, GraphNeighbors.from_edges(edge_index, 1))).all()


def rows(array: Tensor) -> Tensor:
    """Nodes as rows `[N, C]`, or points of all clouds `[B, C, P]` as `[B·P, C]`, in float64."""
    return (array.transpose(1, 2).flatten(0, 1) if array.dim() == 3 else array).double()


@pytest.mark.parametrize("name", OPERATIONS[2:])
@pytest.mark.parametrize("space", TABLES)
@pytest.mark.parametrize("way", [fused, one_by_one])
@pytest.mark.usefixtures("kernels")
def test_agrees_with_the_published_method(
    way: Callable[..., Tensor], space: str, name: str, golden: Path
) -> None:
    stored = read_arrays(golden / f"{space}_ops.npz")
    arrays = {key: torch.from_numpy(value) for key, value in stored.items()}
    x = rows(arrays["x"]).requires_grad_()
    if space == "point":
        neighbors: object = Neighbors.from_local(arrays["neighbors"])
    else:
        neighbors = GraphNeighbors.from_edges(arrays["edge_index"], len(x))
    (op,) = randomised(TABLES[space][name], x.shape[1])
    for key, parameter in op.named_parameters():
        parameter.data.copy_(arrays[f"{name}.w.{key}"])

    out = way([op], x, neighbors)[:, 0]
    (out * rows(arrays[f"{name}.g"])).sum().backward()

    close(out, rows(arrays[f"{name}.out"]))
    close(x.grad, rows(arrays[f"{name}.grad_x"]))
    for key, parameter in op.named_parameters():
        close(parameter.grad, arrays[f"{name}.grad_w.{key}"])
    for key, buffer in op.named_buffers():
        close(buffer, arrays[f"{name}.after.{key}"])
    op.eval()
    close(way([op], x, neighbors)[:, 0], rows(arrays[f"{name}.out_eval"]))
