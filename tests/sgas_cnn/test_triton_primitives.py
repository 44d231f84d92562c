"""The primitives by Triton kernels against torch_backend's in float64, and torch's own checks.

Interpreted on the CPU, where few sizes do; `test_all_of_this_holds_compiled` runs the file again on
a GPU, with more. The contract tests of the primitives run over this backend too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from image_kernels import SIZES, SMALL, Size, bank, image, needs_library, tensors_of
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.library import opcheck
from triton_images import backward_of, cell, folding, mixing, moved, some_of
from triton_runs import DEVICE, INTERPRETED, pass_compiled, run_alone, triton_kernels

from sgas.kernels import use_kernels
from sgas_cnn.edges import CellEdges
from sgas_cnn.kernels import torch_backend, triton_backend

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
MAPPED = pytest.mark.parametrize("mapped", [False, True], ids=["shared", "mapped"])
KINDS = [1, -1] if INTERPRETED else list(range(8))  # of `bank`: 3 × 3, dilated, and the last


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with triton_kernels():
        yield


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


def reference(name: str, given: tuple[Any, ...]) -> list[Tensor]:
    """What torch_backend returns in float64, on the CPU, by torch's convolutions."""
    use_kernels("torch")
    found = getattr(torch_backend, name)(*moved(given, "cpu", torch.float64))
    use_kernels("cuda")
    return tensors_of(found)


def check(name: str, *given: Any) -> None:
    """A primitive gives what torch_backend's does, up to rounding, in shape and in type."""
    dtype = tensors_of(given)[0].dtype
    share = 1e-10 if dtype == torch.float64 else 2e-5
    ours = tensors_of(getattr(triton_backend, name)(*moved(given, DEVICE, dtype)))
    for found, wanted in zip(ours, reference(name, given), strict=True):
        assert found.dtype == dtype
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        torch.testing.assert_close(
            found.cpu().double(), wanted, rtol=0, atol=share * largest, check_stride=False
        )


def kinds_of(stride: int) -> list[int]:
    """Convolutions of a bank: all of them where compiled, two where interpreted."""
    return KINDS if INTERPRETED else KINDS[: 6 + stride]


@pytest.mark.parametrize("size", [SMALL] if INTERPRETED else [*SIZES, (70, 8, 16, 16)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@DTYPES
@MAPPED
def test_separable(size: Size, stride: int, dtype: torch.dtype, mapped: bool) -> None:
    torch.manual_seed(0)
    given = some_of(bank(size, dtype, stride, mapped), kinds_of(stride))
    num = len(given[3])
    outputs = [t.to(dtype) for t in reference("separable", (*given, False))[:num]]
    check("separable", *given, True)
    some = [i % 2 == 0 for i in range(num)]
    check("separable_backward", *backward_of(given, outputs, True, some, [True] * num))
    if not mapped:
        check("separable_backward", *backward_of(given, outputs, False, [True] * num, some))


@DTYPES
@MAPPED
def test_tiles_of_pixels_and_channels_are_joined(
    small_tiles: None, dtype: torch.dtype, mapped: bool
) -> None:
    torch.manual_seed(1)
    given = some_of(bank((3, 1, 5, 4), dtype, 2, mapped), [0, -1])
    outputs = [torch.randn(1, 3, 2, 3, dtype=dtype) for _ in range(2)]
    check("separable", *given, True)
    check("separable_backward", *backward_of(given, outputs, True, [True] * 2, [True] * 2))
    if mapped:
        return
    mixed = mixing((3, 1, 3, 2), dtype, 2)
    check("mixture", *mixed[0])
    check("mixture_backward", *mixed[1], True)
    check("pool", image((3, 1, 5, 4), dtype), 2, True)
    check("fold", *folding(dtype)[0])
    check("unfold", *folding(dtype)[1])


def test_mixtures_of_skips_and_poolings_alone() -> None:
    torch.manual_seed(2)
    before, before_slots, _, _, factors, *rest = mixing((3, 1, 2, 3), torch.float64, 2)[0]
    check("mixture", before, before_slots, [], [], factors[:0], *rest)
    gradients, _, _, factors, *rest = mixing((3, 1, 2, 3), torch.float64, 2)[1]
    check("mixture_backward", gradients, [], [], factors[:0], *rest, True)


@pytest.mark.parametrize("slots", [2, 5, 9])
def test_mixtures_of_few_and_of_many_images(slots: int) -> None:
    """More than a launch or its pointers take, too."""
    torch.manual_seed(2)
    forward, backward = mixing((3, 1, 2, 3), torch.float64, slots)
    check("mixture", *forward)
    check("mixture_backward", *backward, True)
    check("mixture_backward", *backward, False)


@DTYPES
def test_folded_norms(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    forward, backward = folding(dtype)
    check("fold", *forward)
    check("unfold", *backward)
    check("unfold", *backward[:-1], 0)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_number_that_is_none_stays_where_torch_has_it(stride: int) -> None:
    torch.manual_seed(4)
    given = some_of(bank((2, 1, 6, 6), torch.float64, stride, True), [0, 6])
    given[0][0][0, 2, 2, 1] = float("nan")
    outputs = reference("separable", (*given, False))[:2]
    x = given[0][0]
    pooled = reference("pool", (x, stride, False))[:2]
    slopes = torch.randn(2, 2, dtype=torch.float64)
    calls: dict[str, tuple[Any, ...]] = {
        "separable": (*given, True),
        "separable_backward": backward_of(given, outputs, True, [True] * 2, [True] * 2),
        "pool": (x, stride, True),
        "pool_backward": (x, *pooled, *pooled, slopes, slopes, None, stride),
        "mixture": ([], [], [x], [0], slopes[:1], [x], slopes.view(2, 1, 2), slopes),
        "projection": (x, torch.randn(3, 2, 1, 1, dtype=torch.float64), None, True),
    }
    for name, arguments in calls.items():
        ours = getattr(triton_backend, name)(*moved(arguments, DEVICE, torch.float64))
        for found, wanted in zip(tensors_of(ours), reference(name, arguments), strict=True):
            assert torch.equal(found.isnan().cpu(), wanted.isnan()), name


def test_twice_gives_the_same_bits() -> None:
    torch.manual_seed(5)
    size = SMALL if INTERPRETED else (40, 16, 32, 32)
    given = some_of(bank(size, torch.float32, 1, True), [0])
    outputs = [t.float() for t in reference("separable", (*given, False))[:1]]
    arguments = backward_of(given, outputs, True, [True], [True])
    found = [
        tensors_of(triton_backend.separable_backward(*moved(arguments, DEVICE, torch.float32)))
        for _ in range(2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.skipif(INTERPRETED, reason="graphs are captured on a GPU")
def test_calls_can_be_captured() -> None:
    torch.manual_seed(7)
    given = some_of(bank(SMALL, torch.float32, 2, True), [0, -1])
    outputs = [t.float() for t in reference("separable", (*given, False))[:2]]
    backward = backward_of(given, outputs, True, [True] * 2, [True] * 2)
    calls = {
        "separable": (*given, True),
        "separable_backward": backward,
        "mixture": mixing(SMALL, torch.float32, 3)[0],
        "mixture_backward": (*mixing(SMALL, torch.float32, 3)[1], True),
        "fold": folding(torch.float32)[0],
        "unfold": folding(torch.float32)[1],
    }
    for name, arguments in calls.items():
        there = moved(arguments, DEVICE, torch.float32)
        wanted = tensors_of(getattr(triton_backend, name)(*there))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = tensors_of(getattr(triton_backend, name)(*there))
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), name


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


def calls(dtype: torch.dtype, mapped: bool) -> list[tuple[str, tuple[Any, ...]]]:
    """All primitives with arguments, some more than once."""
    given = some_of(bank(SMALL, dtype, 2 - mapped, mapped), [0, -1])
    outputs = triton_backend.separable(*given, True)[0]
    x, slopes, weight = image(SMALL, dtype), *torch.randn(2, 2, SMALL[0], dtype=dtype)
    pooled = triton_backend.pool(x, 2, True)[:2]
    forward, backward = mixing(SMALL, dtype, 2)
    folded, unfolded = folding(dtype)
    factors, bias = torch.randn(2, 2, SMALL[0], dtype=dtype)
    half = image(SMALL, dtype, 2 - mapped)
    through = weight.view(2, SMALL[0], 1, 1)
    output, row, *_ = triton_backend.projection(x, through, None, True)
    return [
        ("separable", (*given, True)),
        *[("separable_backward", backward_of(given, outputs, wants, [True] * 2, [True, False]))
          for wants in (True, False)],
        ("separable_sum", (*given, [half], [1], [0, 1], factors, bias)),
        ("mixture", forward),
        ("mixture_backward", (*backward, True)),
        ("pool", (x, 2, True)),
        ("pool_backward", (x, *pooled, *pooled, slopes, slopes, None if mapped else x, 2)),
        ("projection", (x, through, torch.randn(2, dtype=dtype), True)),
        ("projection_backward", (output, row, output, row, row, x, through, mapped, True)),
        ("fold", folded),
        ("fold", (*folded[:3], None, None, *folded[5:])),
        ("unfold", unfolded),
        ("unfold", (*unfolded[:4], None, None, *unfolded[6:])),
    ]  # fmt: skip


@MAPPED
def test_torch_knows_the_operators(mapped: bool) -> None:
    """Schemas and shapes of results, as fake tensors and torch.compile rely on them."""
    torch.manual_seed(8)
    for name, given in calls(torch.float64, mapped):
        operator = getattr(triton_backend.OPERATORS, name).default
        tests = ("test_schema", "test_faketensor")
        found = opcheck(operator, moved(given, DEVICE, torch.float64), test_utils=tests)
        assert set(found.values()) == {"SUCCESS"}, name


def test_the_compiled_operators_have_the_same_schemas() -> None:
    needs_library()
    for schema in triton_backend.SCHEMAS:
        name = schema.partition("(")[0]
        ours, theirs = (
            str(getattr(operators, name).default._schema).partition("(")[2]
            for operators in (triton_backend.OPERATORS, torch.ops.sgas_cnn)
        )
        assert ours == theirs, name


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


def test_what_has_no_operator_for_its_gradient_is_derived_by_torch() -> None:
    torch.manual_seed(10)
    given = folding(torch.float64)[0]
    leaf = given[5].requires_grad_()
    found, wanted = (
        torch.autograd.grad(backend.fold(*given)[0].square().sum(), leaf)[0]
        for backend in (triton_backend, torch_backend)
    )
    assert found.any() and torch.equal(found, wanted)


def test_gradients_are_not_derived_in_turn() -> None:
    x = torch.randn(1, 4, 4, 2, device=DEVICE, requires_grad=True)
    total = triton_backend.pool(x, 2, False)[0].square().sum()
    with pytest.raises(RuntimeError, match="can be derived once"):
        torch.autograd.grad(total, x, create_graph=True)


def results(
    edges: CellEdges, x: Tensor, weights: Tensor, kernels: str, by: Any = None
) -> list[Tensor]:
    """The states of a cell, all gradients, and the running statistics thereafter."""
    use_kernels(kernels)
    for name, tensor in edges.named_buffers():
        tensor.fill_(0.7 if name.endswith("var") else 0.1)
    states = (by or edges)([x], weights)
    loss = sum(
        (state * torch.arange(state.numel(), device=DEVICE).view(state.shape).cos()).sum()
        for state in states
    )
    leaves = [x, weights, *edges.parameters()]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [*states, *gradients, *(buffer.clone() for buffer in edges.buffers())]


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


COMPILE = """
import sys
sys.path[:0] = ["tests", "tests/sgas_cnn"]
import torch
import compile_kernels
from test_triton_primitives import every_kernel

compile_kernels.TYPES[torch.int8] = "i8"
print(sorted(compile_kernels.compiled(every_kernel, (80,))))
"""


def every_kernel() -> None:
    """Calls all primitives, each kernel in both types and with all that it may be given."""
    for dtype, mapped in ((torch.float32, True), (torch.float32, False), (torch.float64, True)):
        for name, given in calls(dtype, mapped):
            getattr(triton_backend, name)(*given)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here() -> None:
    names = run_alone([sys.executable, "-c", COMPILE], {}).strip()
    kernels = [
        "added", "fold", "joined_moments", "linear_gradient", "mixture", "planes_gradient",
        "planes", "pool_gradient", "pool", "products", "pulled", "reached", "strip_moments",
        "taps_gradient", "unfold",
    ]  # fmt: skip
    assert names == str(sorted(f"_{name}_kernel" for name in kernels))


@pytest.mark.gpu
def test_all_of_this_holds_compiled() -> None:
    pass_compiled(__file__)
