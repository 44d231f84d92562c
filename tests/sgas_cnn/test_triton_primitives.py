"""The primitives by Triton kernels against torch_backend's in float64, and torch's own checks.

Interpreted on the CPU, where few sizes do; tests/test_triton.py runs the file again on
a GPU, with more. The contract tests of the primitives run over this backend too.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from image_kernels import (
    SIZES,
    SMALL,
    Size,
    bank,
    image,
    needs_library,
    results_of_cell,
    tensors_of,
)
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.library import opcheck
from triton_images import backward_of, cell, folding, mixing, moved, some_of
from triton_runs import DEVICE, INTERPRETED

from sgas.native.backend import use_kernels
from sgas_cnn.edges import CellEdges
from sgas_cnn.kernels import torch_backend
from sgas_cnn.kernels.backend import backend_named
from sgas_cnn.kernels.protocol import (
    RECORDS,
    Convolutions,
    Follow,
    Mixture,
    Pool,
    PoolBackward,
    Projection,
    ProjectionBackward,
    Separable,
    SeparableSum,
    flat,
)

pytestmark = pytest.mark.usefixtures("triton")
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
MAPPED = pytest.mark.parametrize("mapped", [False, True], ids=["shared", "mapped"])
KINDS = [1, -1] if INTERPRETED else list(range(8))  # of `bank`: 3 × 3, dilated, and the last
# Interpreted, each stride and each form of inputs comes once in each type. The other pairs in
# float64 are those that test_separable_kernels runs, with all kinds.
SEPARABLES = [
    (stride, dtype, mapped)
    for stride in (1, 2)
    for dtype in (torch.float64, torch.float32)
    for mapped in (False, True)
    if not INTERPRETED or mapped == ((stride == 2) == (dtype == torch.float32))
]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles of pixels and of channels for small images, and several tiles a strip."""
    from sgas_cnn.kernels.triton import mixing_gradient, moments, norms, sums, taps_gradient, tiles

    monkeypatch.setattr(tiles, "TILE", 4)
    monkeypatch.setattr(tiles, "CHANNELS", 2)
    for module in (moments, mixing_gradient, taps_gradient):
        monkeypatch.setattr(module, "STRIPS", 2)
    monkeypatch.setattr(sums, "TILE", 4)
    for module in (moments, norms, sums):
        monkeypatch.setattr(module, "CHANNELS", 2)
    monkeypatch.setattr(norms, "ROWS", 2)


DOUBLE = torch.float64
NAMES = {record: name for name, record in RECORDS.items()}
Call = tuple[Any, ...]  # a record


def by_triton(call: Call) -> list[Tensor]:
    """What the primitive of a record returns, by Triton kernels."""
    return tensors_of(getattr(backend_named("cuda"), NAMES[type(call)])(call))


def reference(call: Call) -> list[Tensor]:
    """What torch_backend returns in float64, on the CPU."""
    return tensors_of(getattr(torch_backend, NAMES[type(call)])(moved(call, "cpu", torch.float64)))


def check(call: Call) -> None:
    """A primitive gives what torch_backend's does, up to rounding, in shape and in type."""
    dtype = tensors_of(call)[0].dtype
    share = 1e-10 if dtype == torch.float64 else 2e-5
    ours = by_triton(moved(call, DEVICE, dtype))
    for found, wanted in zip(ours, reference(call), strict=True):
        assert found.dtype == dtype
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        torch.testing.assert_close(
            found.cpu().double(), wanted, rtol=0, atol=share * largest, check_stride=False
        )


def kinds_of(stride: int) -> list[int]:
    """Convolutions of a bank: all of them where compiled, two where interpreted."""
    return KINDS if INTERPRETED else KINDS[: 6 + stride]


@pytest.mark.parametrize("size", [SMALL] if INTERPRETED else [*SIZES, (70, 8, 16, 16)], ids=str)
@pytest.mark.parametrize(("stride", "dtype", "mapped"), SEPARABLES, ids=str)
def test_separable(size: Size, stride: int, dtype: torch.dtype, mapped: bool) -> None:
    torch.manual_seed(0)
    convolutions = some_of(bank(size, dtype, stride, mapped), kinds_of(stride))
    num = len(convolutions.taps)
    outputs = [t.to(dtype) for t in reference(Separable(convolutions, False))[:num]]
    check(Separable(convolutions, True))
    some = [i % 2 == 0 for i in range(num)]
    check(backward_of(convolutions, outputs, True, some, [True] * num))
    if not mapped:
        check(backward_of(convolutions, outputs, False, [True] * num, some))


# Which tiles are joined does not depend on the type: interpreted, one type does.
@pytest.mark.parametrize(
    "dtype", [torch.float64] if INTERPRETED else [torch.float64, torch.float32]
)
@MAPPED
def test_tiles_of_pixels_and_channels_are_joined(
    small_tiles: None, dtype: torch.dtype, mapped: bool
) -> None:
    torch.manual_seed(1)
    convolutions = some_of(bank((3, 1, 5, 4), dtype, 2, mapped), [0, -1])
    outputs = [torch.randn(1, 3, 2, 3, dtype=dtype) for _ in range(2)]
    check(Separable(convolutions, True))
    check(backward_of(convolutions, outputs, True, [True] * 2, [True] * 2))
    if mapped:
        return
    for call in (*mixing((3, 1, 3, 2), dtype, 2), *folding(dtype)):
        check(call)
    check(Pool(image((3, 1, 5, 4), dtype), 2, True, True))


def test_mixtures_of_skips_and_poolings_alone() -> None:
    torch.manual_seed(2)
    forward, backward = mixing((3, 1, 2, 3), torch.float64, 2)
    check(forward._replace(parts=[], slot_of=[], factors=forward.factors[:0]))
    check(backward._replace(parts=[], slot_of=[], centres=backward.centres[:0]))


@pytest.mark.parametrize("slots", [2, 9])
def test_mixtures_of_few_and_of_many_images(slots: int) -> None:
    """More than a launch or its pointers take, too."""
    torch.manual_seed(2)
    forward, backward = mixing((3, 1, 2, 3), torch.float64, slots)
    check(forward)
    check(backward)
    check(backward._replace(wants_linear=False))


@DTYPES
def test_folded_norms(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    forward, backward = folding(dtype)
    check(forward)
    check(backward)
    check(backward._replace(pixels=0))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_number_that_is_none_stays_where_torch_has_it(stride: int) -> None:
    torch.manual_seed(4)
    convolutions = some_of(bank((2, 1, 6, 6), torch.float64, stride, True), [0, 6])
    x = convolutions.inputs[0]
    x[0, 2, 2, 1] = float("nan")
    outputs = reference(Separable(convolutions, False))[:2]
    largest, average = reference(Pool(x, stride, False, True))[:2]
    slopes = torch.randn(2, 2, dtype=torch.float64)
    calls: list[Call] = [
        Separable(convolutions, True),
        backward_of(convolutions, outputs, True, [True] * 2, [True] * 2),
        Pool(x, stride, True, True),
        PoolBackward(x, largest, average, largest, average, slopes, slopes, None, stride),
        Mixture([], [], [x], [0], slopes[:1], [x], slopes.view(2, 1, 2), slopes),
        Projection(x, torch.randn(3, 2, 1, 1, dtype=torch.float64), None, True),
    ]
    for call in calls:
        ours = by_triton(moved(call, DEVICE, torch.float64))
        for found, wanted in zip(ours, reference(call), strict=True):
            assert torch.equal(found.isnan().cpu(), wanted.isnan()), call


def test_twice_gives_the_same_bits() -> None:
    torch.manual_seed(5)
    size = SMALL if INTERPRETED else (40, 16, 32, 32)
    convolutions = some_of(bank(size, torch.float32, 1, True), [0])
    outputs = [t.float() for t in reference(Separable(convolutions, False))[:1]]
    call = backward_of(convolutions, outputs, True, [True], [True])
    first, second = (by_triton(moved(call, DEVICE, torch.float32)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.skipif(INTERPRETED, reason="graphs are captured on a GPU")
def test_calls_can_be_captured() -> None:
    torch.manual_seed(7)
    convolutions = some_of(bank(SMALL, torch.float32, 2, True), [0, -1])
    outputs = [t.float() for t in reference(Separable(convolutions, False))[:2]]
    backward = backward_of(convolutions, outputs, True, [True] * 2, [True] * 2)
    calls: list[Call] = [Separable(convolutions, True), backward]
    for call in (*calls, *mixing(SMALL, torch.float32, 3), *folding(torch.float32)):
        there = moved(call, DEVICE, torch.float32)
        wanted = by_triton(there)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = by_triton(there)
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), call


def test_slices_of_a_buffer_are_one_run() -> None:
    from sgas_cnn.kernels.triton.runs import Runs, stacked

    first, second = torch.randn(2, 4, 2, 3, device=DEVICE).clone(), torch.randn(2, 3, device=DEVICE)
    images = [*first[0][1:], second]
    assert Runs.of(images[:3], second).places == ((0, 0), (0, 1), (0, 2))
    places = (0, 0), (1, 0), (1, 1), (2, 0)
    assert Runs.of([images[3], images[0], images[1], images[0]], second).places == places
    joined = stacked(images[:3])
    assert joined.data_ptr() == images[0].data_ptr() and torch.equal(joined, first[0][1:])
    assert torch.equal(stacked([images[0], second]), torch.stack([images[0], second]))
    many = Runs.of([second.clone() for _ in range(9)], second)
    assert many.places == tuple((0, i) for i in range(9))


def all_calls(dtype: torch.dtype, mapped: bool) -> list[Call]:
    """Records of all primitives, of some more than one."""
    convolutions = some_of(bank(SMALL, dtype, 2 - mapped, mapped), [0, -1])
    outputs = torch_backend.separable(Separable(convolutions, True))[0]
    x, slopes, weight = image(SMALL, dtype), *torch.randn(2, 2, SMALL[0], dtype=dtype)
    pooled = torch_backend.pool(Pool(x, 2, True, True))[:2]
    forward, backward = mixing(SMALL, dtype, 2)
    folded, unfolded = folding(dtype)
    factors, bias = torch.randn(2, 2, SMALL[0], dtype=dtype)
    half = image(SMALL, dtype, 2 - mapped)
    through = weight.view(2, SMALL[0], 1, 1)
    output, row, *_ = torch_backend.projection(Projection(x, through, None, True))
    return [
        Separable(convolutions, True),
        *[backward_of(convolutions, outputs, wants, [True] * 2, [True, False])
          for wants in (True, False)],
        SeparableSum(convolutions, [half], [1], [0, 1], factors, bias),
        forward,
        backward,
        Pool(x, 2, True, True),
        PoolBackward(x, *pooled, *pooled, slopes, slopes, None if mapped else x, 2),
        Projection(x, through, torch.randn(2, dtype=dtype), True),
        ProjectionBackward(output, row, output, row, row, x, through, mapped, True),
        folded,
        folded._replace(gamma=None, beta=None),
        unfolded,
        unfolded._replace(gamma=None, beta=None),
    ]  # fmt: skip


@MAPPED
@pytest.mark.parametrize(
    ("kernels", "operators", "device"),
    [("cpu", "sgas_cnn", "cpu"), ("cuda", "sgas_cnn_cuda", DEVICE)],
)
def test_torch_knows_the_operators(kernels: str, operators: str, device: str, mapped: bool) -> None:
    """Schemas and shapes of results, as fake tensors and torch.compile rely on them."""
    backend_named(kernels)
    if kernels == "cpu":
        needs_library()
    torch.manual_seed(8)
    calls = [*all_calls(torch.float64, mapped), Separable(bank(SMALL, DOUBLE, 1, False, 1), True)]
    if kernels == "cpu":  # Triton has none for it
        running, row = [torch.zeros(3, dtype=DOUBLE)], torch.rand(2, 3, dtype=DOUBLE)
        calls.append(Follow(running, running[:], row, row, [1], [0], [3], 1.5, 0.1))
    for call in calls:
        operator = getattr(getattr(torch.ops, operators), NAMES[type(call)]).default
        arguments = tuple(flat(moved(call, device, torch.float64)))
        checks = opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
        assert set(checks.values()) == {"SUCCESS"}, call


@pytest.mark.compiled
def test_records_and_compiled_operators_have_the_schemas_of_triton_s() -> None:
    needs_library()
    backend_named("cuda")
    for name, record in RECORDS.items():
        theirs = getattr(torch.ops.sgas_cnn, name).default._schema
        fields = list(record._fields)  # type: ignore[attr-defined]
        if "convolutions" in fields:
            at = fields.index("convolutions")
            fields[at : at + 1] = Convolutions._fields
        assert [argument.name for argument in theirs.arguments] == fields
        if name != "follow":
            ours = getattr(torch.ops.sgas_cnn_cuda, name).default._schema
            assert str(ours).partition("(")[2] == str(theirs).partition("(")[2], name


@pytest.mark.filterwarnings("error:.*may not alias any inputs")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings("ignore:Your compiler for AOTAutograd is returning a function")
def test_a_compiled_cell_calls_the_operators() -> None:
    torch.manual_seed(9)
    counters.clear()
    edges = cell(2, ["sep_conv_3x3", "skip_connect", "max_pool_3x3"], 2, 2).double()
    x, weights = (torch.randn(size).double().to(DEVICE) for size in ((2, 2, 4, 4), (2, 3)))
    called = set[str]()

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        called.update(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    wanted = results(edges, x.requires_grad_(), weights.requires_grad_(), "cuda")
    compiled = torch.compile(edges, backend=aot_autograd(fw_compiler=look, bw_compiler=look))
    found = results(edges, x, weights, "cuda", by=compiled)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    names = {"separable", "fold", "pool", "mixture"}  # what Dynamo hands on is the forward pass
    assert {f"sgas_cnn_cuda.{name}.default" for name in names} <= called
    assert counters["stats"]["unique_graphs"] <= 3  # the walk over a cell breaks, no primitive does


def results(
    edges: CellEdges, x: Tensor, weights: Tensor, kernels: str, by: Any = None
) -> list[Tensor]:
    """What is compared of a cell, by the kernels named."""
    use_kernels(kernels)
    leaves = [x, weights, *edges.parameters()]
    return results_of_cell(edges, lambda: (by or edges)([x], weights), leaves)


def test_a_cell_equals_that_of_torch() -> None:
    torch.manual_seed(6)
    ops = ["sep_conv_3x3", "dil_conv_3x3", "skip_connect", "max_pool_3x3", "avg_pool_3x3"]
    edges = cell(2, ops, 4, 2).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, device=DEVICE, requires_grad=True)
    weights = torch.randn(2, 5, dtype=torch.float64, device=DEVICE, requires_grad=True)
    for found, wanted in zip(
        *(results(edges, x, weights, kernels) for kernels in ("cuda", "torch")), strict=True
    ):
        scale = float(wanted.detach().abs().max())
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10 * scale)


def every_kernel() -> None:
    """Calls all primitives, each kernel in both types and with all that it may be given."""
    for dtype, mapped in ((torch.float32, True), (torch.float32, False), (torch.float64, True)):
        for call in all_calls(dtype, mapped):
            by_triton(call)
