"""Cells against the definitions of their operations, over all tables and backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from image_kernels import results_of_cell
from torch import Tensor, nn

from sgas.cells.edges import CellEdge, CellLayout
from sgas_cnn.config import OPERATIONS
from sgas_cnn.edges import CellEdges, OperationTable
from sgas_cnn.ops import layers
from sgas_cnn.ops.image import IMAGE_OPERATIONS
from sgas_cnn.ops.layers import BatchNorm, ConvNorm, HalvingConvNorm
from sgas_cnn.ops.nasbench201 import NASBENCH201_TABLE
from sgas_cnn.ops.operation import Operation

STEPS = 2
OPS = [*OPERATIONS, "sep_conv_7x7"]


class Own(Operation):
    """An operation of a user's own, without parts: the sine of a convolution."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(channels, stride, affine)
        self.lin = nn.Conv2d(channels, channels, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x).sin()


TABLES: dict[str, OperationTable] = {
    "image": IMAGE_OPERATIONS,
    "nasbench201": NASBENCH201_TABLE,
    "own": {"own": Own, **IMAGE_OPERATIONS},
}


def random_edges(
    channels: int,
    stride: int,
    affine: bool,
    ops: Sequence[str] = OPS,
    table: OperationTable = IMAGE_OPERATIONS,
) -> CellEdges:
    """Edges from one input to two steps and on to the second, with all candidates, in float64."""
    ends = [(0, 0), (0, 1), (1, 1)]
    layout = CellLayout(tuple(CellEdge(*end, tuple(ops)) for end in ends), STEPS, (1, 2))
    strides = [stride, 1, 1]
    edges = CellEdges(
        layout, channels, strides, table=table, candidates=ops, affine=affine
    ).double()
    for parameter in edges.parameters():
        torch.nn.init.normal_(parameter)
    return edges


def one_by_one(edges: CellEdges, x: Tensor, weights: Tensor) -> list[Tensor]:
    """The definition: every candidate by its plain forward pass, times its weight."""
    states: list[Tensor] = [x]
    for step in range(STEPS):
        total = torch.zeros(())
        for number, edge in enumerate(edges.layout.edges):
            if edge.step == step:
                for weight, op in zip(weights[number], edges[number].values(), strict=True):
                    total = total + weight * op(states[edge.source])
        states.append(total)
    return states


@pytest.mark.parametrize(
    ("kernels", "size"),
    [("torch", (6, 7, 8)), ("cpu", (6, 7, 8)), ("cpu", (16, 6, 5))],  # whole vectors, and not
    indirect=["kernels"],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "stride"), [("image", 1), ("image", 2), ("nasbench201", 1), ("own", 2)]
)
@pytest.mark.parametrize("affine", [False, True], ids=["search", "derived"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_cell_is_the_weighted_sum_of_plain_forward_passes(
    kernels: str, size: tuple[int, int, int], name: str, stride: int, affine: bool, training: bool
) -> None:
    torch.manual_seed(0)
    channels, height, width = size
    ops = list(TABLES[name])
    edges = random_edges(channels, stride, affine, ops, TABLES[name]).train(training)
    x = torch.randn(3, channels, height, width, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, len(ops), dtype=torch.float64, requires_grad=True)
    leaves = [x, weights, *edges.parameters()]
    ours = results_of_cell(edges, lambda: edges([x], weights), leaves)
    plain = results_of_cell(edges, lambda: one_by_one(edges, x, weights), leaves)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(b.detach().abs().max()))


@pytest.mark.parametrize("op", ["own", "conv_7x1_1x7", "dil_conv_3x3", "max_pool_3x3"])
def test_an_edge_is_dropped_whole(kernels: str, op: str) -> None:
    """Fused or not, of one operation or of two, for an image at a time and in training alone."""
    torch.manual_seed(4)
    ops = [op, "sep_conv_3x3"]
    edges = random_edges(6, 1, True, ops, TABLES["own"])
    x = torch.randn(40, 6, 4, 4, dtype=torch.float64)
    for kept in (ops, [op]):
        edges.restrict([kept] * 3)
        whole, dropped = edges([x])[1], edges([x], drop_path=0.5)[1]
        gone = (dropped == 0).flatten(1).all(1)
        assert 0 < gone.sum() < len(x)
        torch.testing.assert_close(dropped[~gone], 2 * whole[~gone])
    edges.eval()
    assert torch.equal(edges([x], drop_path=0.5)[1], edges([x])[1])


def test_without_weights_each_is_one(kernels: str) -> None:
    torch.manual_seed(3)
    edges = random_edges(6, 2, False)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    wanted = one_by_one(edges, x, torch.ones(3, len(OPS), dtype=torch.float64))
    for ours, plain in zip(edges([x]), wanted, strict=True):
        torch.testing.assert_close(ours, plain)


KEPT = {
    "all": [OPS] * 3,
    "some": [["sep_conv_3x3", "skip_connect"], ["dil_conv_5x5", "sep_conv_5x5"], ["avg_pool_3x3"]],
    "one": [["sep_conv_3x3"], ["skip_connect"], ["dil_conv_3x3"]],
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True], ids=["search", "derived"])
@pytest.mark.parametrize("held", KEPT)
@pytest.mark.parametrize("images", [2, 0], ids=["some images", "no image"])
def test_sums_without_gradients_equal_those_with(
    kernels: str, stride: int, affine: bool, held: str, images: int
) -> None:
    edges = random_edges(9, stride, affine).eval()
    edges.restrict(KEPT[held])
    for ops in edges:
        for name, op in ops.items():
            torch.manual_seed(OPS.index(name))  # alike on all edges, as a search keeps poolings'
            for norm in op.modules():
                if isinstance(norm, BatchNorm):
                    torch.nn.init.uniform_(norm.running_mean, -1, 1)
                    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(images, 9, 6, 7, dtype=torch.float64)
    weights = torch.randn(3, len(OPS), dtype=torch.float64)
    wanted = edges([x], weights)
    with torch.no_grad():
        found = edges([x], weights)
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-10)
    edges.float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = edges([x.float()], weights.float())
    for ours, exact in zip(narrow, wanted, strict=True):
        assert ours.dtype == torch.float32  # states of fused edges are not rounded
        largest = float(exact.detach().abs().max()) if images else 0.0
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-5 * largest)


Run = Callable[[Tensor], Tensor]


def normed_layers(affine: bool) -> list[tuple[nn.Module, Run]]:
    """Layers of convolution and norm, and their plain form."""
    pointwise, strided = ConvNorm(20, 7, affine=affine), ConvNorm(20, 7, 3, 2, affine=affine)
    first, halving = ConvNorm(20, 7, 3, relu=False), HalvingConvNorm(20, 8, affine=affine)

    def halved(x: Tensor) -> Tensor:
        x = F.pad(F.relu(x), (0, x.shape[3] % 2))
        halves = halving.even(x[:, :, ::2, ::2]), halving.odd(x[:, :, 1::2, 1::2])
        return halving.norm(torch.cat(halves, dim=1))

    return [
        (pointwise, lambda x: pointwise.norm(pointwise.lin(F.relu(x)))),
        (strided, lambda x: strided.norm(strided.lin(F.relu(x)))),
        (first, lambda x: first.norm(first.lin(x))),
        (halving, halved),
    ]


@pytest.mark.parametrize("affine", [False, True], ids=["search", "derived"])
def test_norms_are_in_the_convolutions_at_inference(
    kernels: str, affine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 20, 6, 5, dtype=torch.float64)
    wanted, found = list[Tensor](), list[Tensor]()
    for layer, plain in normed_layers(affine):
        layer.double().eval()
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            torch.nn.init.uniform_(tensor, 0.5 if name.endswith("var") else -1.0)
        wanted.append(plain(x).detach())
        with monkeypatch.context() as patched, torch.no_grad():
            patched.setattr(F, "batch_norm", None)
            patched.setattr(layers, "relu_conv_norm", None)
            found.append(layer(x))
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("affine", [False, True], ids=["search", "derived"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_projection_equals_its_layers(kernels: str, affine: bool, training: bool) -> None:
    torch.manual_seed(1)
    layer = ConvNorm(20, 7, affine=affine).double().train(training)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 20, 5, 6, dtype=torch.float64, requires_grad=True)
    leaves, found = [x, *layer.parameters()], []
    for run in (lambda: layer(x), lambda: layer.norm(layer.lin(F.relu(x)))):
        layer.norm.running_mean.fill_(0.1)
        layer.norm.running_var.fill_(0.7)
        out = run()
        loss = (out * torch.arange(out.numel()).view(out.shape).cos()).sum()
        running = layer.norm.running_mean.clone(), layer.norm.running_var.clone()
        found.append([out, *torch.autograd.grad(loss, leaves), *running])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)
