"""Under autocast the fused states of both families compute in float32, their layers do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sgas.cells.edges import CellEdge, CellLayout, searched_layout
from sgas.native.precision import narrowed, product, without_autocast
from sgas_cnn.config import IMAGE_SPACE, OPERATIONS
from sgas_cnn.edges import CellEdges
from sgas_cnn.fused.projection import relu_conv
from sgas_cnn.ops.image import IMAGE_OPERATIONS
from sgas_gcn.cells import Cell, LinearNorm
from sgas_gcn.config import POINT_SPACE
from sgas_gcn.csr import GraphNeighbors
from sgas_gcn.neighbors import knn
from sgas_gcn.ops.graph import GRAPH_OPERATIONS
from sgas_gcn.ops.point import POINT_OPERATIONS

CHANNELS, NODES, SIDE = 5, 24, 6


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def narrow_input(*shape: int) -> Tensor:
    """Numbers that bfloat16 holds exactly, in it."""
    return torch.randn(shape).to(torch.bfloat16)


Run = Callable[[Tensor, Tensor], Tensor]


def node_cell(space: str) -> tuple[nn.Module, Run, tuple[int, ...]]:
    """A cell of points or graphs without its first layers, all edges undecided."""
    table = POINT_OPERATIONS if space == "point" else GRAPH_OPERATIONS
    ends = POINT_SPACE.topology(2).edges
    edges = tuple(CellEdge(end.source, end.step, tuple(table)) for end in ends)
    cell = Cell(table, (CHANNELS, CHANNELS), CHANNELS, CellLayout(edges, 2, (2, 3)))
    cell.pre0, cell.pre1 = nn.Identity(), nn.Identity()
    neighbors = knn(torch.randn(2, NODES // 2, 3), 3)
    if space == "graph":
        neighbors = GraphNeighbors.from_edges(torch.randint(NODES, (2, 60)), NODES)
    weights = torch.rand(len(edges), len(table))
    return cell, lambda a, b: cell(a, b, neighbors, weights), (NODES, CHANNELS)


def image_cell(space: str) -> tuple[nn.Module, Run, tuple[int, ...]]:
    """The edges of a cell of images, all undecided."""
    layout = searched_layout(IMAGE_SPACE, IMAGE_SPACE.topology(2))
    edges = CellEdges(
        layout, CHANNELS, [1] * 4, table=IMAGE_OPERATIONS, candidates=OPERATIONS, affine=True
    )
    weights = torch.rand(len(layout.edges), len(OPERATIONS))
    return edges, lambda a, b: torch.cat(edges([a, b], weights)[2:]), (2, CHANNELS, SIDE, SIDE)


CELLS = {"point": node_cell, "graph": node_cell, "image": image_cell}


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("backward_inside", [False, True])
@pytest.mark.parametrize("space", CELLS)
def test_a_fused_state_of_narrow_numbers_is_that_of_the_same_numbers(
    space: str, backward_inside: bool
) -> None:
    """To the last bit: outputs, gradients of all parameters, and of the inputs but for rounding."""
    torch.manual_seed(0)
    module, run, shape = CELLS[space](space)
    given = [narrow_input(*shape) for _ in range(2)]
    wide = [x.float().requires_grad_() for x in given]
    narrow = [x.requires_grad_() for x in given]
    parameters = list(module.parameters())
    wanted = run(*wide)
    by = torch.randn_like(wanted)
    grads = torch.autograd.grad(wanted, [*wide, *parameters], by)
    with autocast():
        found = run(*narrow)
        if backward_inside:
            ours = torch.autograd.grad(found, [*narrow, *parameters], by)
    if not backward_inside:
        ours = torch.autograd.grad(found, [*narrow, *parameters], by)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    for mine, theirs in zip(ours[:2], grads[:2], strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), theirs, rtol=1e-2, atol=1e-2)
    for mine, theirs in zip(ours[2:], grads[2:], strict=True):
        assert torch.equal(mine, theirs)


def test_a_layer_rounds_the_factors_of_its_products_alone() -> None:
    torch.manual_seed(1)
    layer = LinearNorm(CHANNELS, 7, 0.2, bias=True)
    x = narrow_input(NODES, CHANNELS).float().requires_grad_()
    weight = layer.lin.weight.detach()
    with autocast():
        out = layer(x)
    rounded = (x.to(torch.bfloat16) @ weight.to(torch.bfloat16).t()).float() + layer.lin.bias
    h = nn.functional.leaky_relu(rounded, 0.2)
    wanted = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    by = torch.randn_like(out)
    found = torch.autograd.grad(out, [x, layer.lin.weight], by)
    exact = torch.autograd.grad(layer(x), [x, layer.lin.weight], by)
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        assert not torch.equal(mine, theirs)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.03 * float(theirs.abs().max()))


def test_a_pointwise_convolution_of_images_is_computed_in_bfloat16() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, CHANNELS, SIDE, SIDE, requires_grad=True)
    weight = torch.randn(3, CHANNELS, 1, 1, requires_grad=True)
    with autocast():
        out = relu_conv(x, weight)
    assert out.dtype == torch.bfloat16
    by = torch.randn_like(out)
    found = torch.autograd.grad(out, [x, weight], by)
    wanted = torch.autograd.grad(relu_conv(x, weight), [x, weight], by.float())
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.03 * float(theirs.abs().max()))


def test_float64_stays_as_it_is() -> None:
    x = torch.randn(3, 3, dtype=torch.float64)
    with autocast():
        assert narrowed(x, x) == (x, x)
    assert torch.equal(product(x, x, None), x @ x)


def test_a_pass_outside_autocast_is_left_alone() -> None:
    given = torch.ones(2, dtype=torch.bfloat16)
    seen = without_autocast(lambda context, x: (torch.is_autocast_enabled("cpu"), x.dtype))
    assert seen(None, given) == (False, torch.bfloat16)
    with autocast():
        assert seen(None, given) == (False, torch.float32)
