"""The primitives by Triton kernels against torch_backend's in float64, and how many launches.

Interpreted on the CPU, where few sizes do; `test_all_of_this_holds_compiled` runs the file again on
a GPU, with more. The contract tests of the primitives run over this backend too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from image_kernels import SIZES, SMALL, Size, bank, image, tensors_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton_runs import DEVICE, INTERPRETED, pass_compiled, run_alone, triton_kernels

from sgas.kernels import use_kernels
from sgas_cnn.edges import CellEdge, CellEdges, CellPlan
from sgas_cnn.kernels import torch_backend, triton_backend
from sgas_cnn.ops.image import IMAGE_OPERATIONS

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
MAPPED = pytest.mark.parametrize("mapped", [False, True], ids=["shared", "mapped"])
KINDS = [1, -1] if INTERPRETED else list(range(8))  # of `bank`: 3 × 3, dilated, and the last
SEPARABLE = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]


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


def moved(value: Any, device: str, dtype: torch.dtype) -> Any:
    """The value with all tensors in it on a device, in a type."""
    if isinstance(value, Tensor):
        return value.to(device, dtype)
    if isinstance(value, list | tuple):
        return type(value)(moved(v, device, dtype) for v in value)
    return value


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


def some_of(given: tuple[Any, ...], kinds: list[int]) -> tuple[Any, ...]:
    """The arguments of some of the convolutions of a bank."""
    inputs, scales, shifts, *lists, stride = given
    taps, dilations, offsets, pointwise, first_rows = ([v[i] for i in kinds] for v in lists)
    if scales is not None:
        inputs, scales, shifts = [inputs[i] for i in kinds], scales[kinds], shifts[kinds]
    return inputs, scales, shifts, taps, dilations, offsets, pointwise, first_rows, stride


def kinds_of(stride: int) -> list[int]:
    """Convolutions of a bank: all of them where compiled, two where interpreted."""
    return KINDS if INTERPRETED else KINDS[: 6 + stride]


def backward_of(given: tuple[Any, ...], outputs: list[Tensor], *wants: Any) -> tuple[Any, ...]:
    """Arguments of `separable_backward`; without a wanted gradient of inputs, no corrections."""
    (x, *_), scales, num, wants_inputs = given[0], given[1], len(given[3]), wants[0]
    gradients = [torch.randn_like(outputs[0]) for _ in range(3)]
    factors, slopes, constants = torch.randn(3, num, x.shape[-1], dtype=x.dtype)
    return (
        gradients, [i % 3 for i in range(num)], factors, outputs,
        *((slopes, constants) if wants_inputs else (None, None)), *given,
        None if scales is None else factors + 1, torch.randn_like(x) if scales is None else None,
        *wants,
    )  # fmt: skip


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


def mixing(size: Size, dtype: torch.dtype, slots: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments of `mixture` and `mixture_backward`: parts on slots but the last, two images."""
    channels = size[0]
    parts, linear = ([image(size, dtype) for _ in range(n)] for n in (slots + 1, 2))
    slot_of = [i % (slots - 1) for i in range(len(parts))]
    factors = torch.randn(len(parts), channels, dtype=dtype)
    coefficients = torch.randn(slots, 2, channels, dtype=dtype)
    bias, middles = torch.randn(slots, channels, dtype=dtype), torch.randn(2, channels, dtype=dtype)
    before = [image(size, dtype) for _ in range(2)]
    gradients = [image(size, dtype) for _ in range(slots)]
    return (
        (before, [slots - 1, 0], parts, slot_of, factors, linear, coefficients, bias),
        (gradients, parts, slot_of, factors, linear, middles, coefficients),
    )


@pytest.mark.parametrize("slots", [2, 5, 9])
def test_mixtures_of_few_and_of_many_images(slots: int) -> None:
    """More than a launch or its pointers take, too."""
    torch.manual_seed(2)
    forward, backward = mixing((3, 1, 2, 3), torch.float64, slots)
    check("mixture", *forward)
    check("mixture_backward", *backward, True)
    check("mixture_backward", *backward, False)


def folding(dtype: torch.dtype) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments of `fold` and `unfold`; weights that nothing, one row and two rows have."""
    rows, places, slot_of = [1, 0, -1, 1, 2], [2, -1, 0, -2, 2], [0, 1, 1, 0, 2]
    mean, gamma, beta, crossed = torch.randn(4, 5, 3, dtype=dtype)
    sums, weights = torch.randn(3, 3, dtype=dtype), torch.randn(4, dtype=dtype)
    inverse = torch.rand(5, 3, dtype=dtype) + 0.5
    rest = gamma, beta, weights, places, slot_of
    return (
        (mean[:3], inverse[:3], rows, *rest, 3, 1e-5),
        (gamma, mean, inverse, rows, *rest, crossed, sums, 30),
    )


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


def test_what_has_no_memory_or_wants_torch_s_gradients_is_torch_s() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.randn(1, 4, 4, 2, device=DEVICE, requires_grad=True)
    largest, average, *_ = triton_backend.pool(x, 2, True)
    (found,) = torch.autograd.grad(largest.sum() + average.sum(), x)
    assert found.shape == x.shape and found.any()
    with FakeTensorMode():
        assert triton_backend.pool(torch.empty(1, 4, 4, 2), 2, False)[0].shape == (1, 2, 2, 2)


def results(edges: CellEdges, x: Tensor, weights: Tensor, kernels: str) -> list[Tensor]:
    """The states of a cell, all gradients, and the running statistics thereafter."""
    use_kernels(kernels)
    for name, tensor in edges.named_buffers():
        tensor.fill_(0.7 if name.endswith("var") else 0.1)
    states = edges([x], weights)
    loss = sum(
        (state * torch.arange(state.numel(), device=DEVICE).view(state.shape).cos()).sum()
        for state in states
    )
    leaves = [x, weights, *edges.parameters()]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [*states, *gradients, *(buffer.clone() for buffer in edges.buffers())]


def cell(num_edges: int, ops: list[str], channels: int, stride: int) -> CellEdges:
    """A cell whose edges all leave its one input, each for a step of its own."""
    ends = tuple(CellEdge(0, step, tuple(ops)) for step in range(num_edges))
    plan, strides = CellPlan(ends, num_edges, (1, 2)), [stride] + [1] * num_edges
    made = {"table": IMAGE_OPERATIONS, "candidates": ops, "affine": False}
    return CellEdges(plan, channels, strides, **made).to(DEVICE)


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


# No launches: views, empty tensors, and tables that are sent to the device once.
FREE = {
    "_unsafe_view", "alias", "as_strided", "detach", "empty", "empty_like", "expand", "lift_fresh",
    "new_empty", "permute", "select", "slice", "split_with_sizes", "t", "transpose", "unbind",
    "unsqueeze", "view",
}  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts by name the operators of torch that launch kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.found[name] += name not in FREE
        return func(*args, **(kwargs or {}))


def launches(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, int]:
    """What comes back, and how many kernels were launched; Triton's are counted, not run."""
    from sgas_cnn.kernels.triton.sums import _added_kernel

    counter = Launches()

    def count(kernel: Any, *args: Any, **named: Any) -> None:
        counter.found[kernel.fn.__name__] += 1

    with monkeypatch.context() as patched, counter:
        patched.setattr(type(_added_kernel), "run", count)
        back = run()
    return back, counter.found.total()


@pytest.mark.parametrize("num_edges", [2, 4])
def test_launches_do_not_grow_with_the_edges(
    num_edges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a state with four separable operations an edge, where all gradients are wanted.

    Four edges take 316 and 591 by torch_backend. Here it may be fewer, never more: on a GPU the
    number of launches is the time of a step.
    """
    edges = cell(num_edges, SEPARABLE, 4, 1)
    x = torch.randn(2, 4, 4, 4, device=DEVICE, requires_grad=True)
    weights = torch.randn(num_edges, len(SEPARABLE), device=DEVICE, requires_grad=True)
    states, forward = launches(lambda: edges([x], weights), monkeypatch)
    leaves, ones = [x, weights, *edges.parameters()], [torch.ones_like(s) for s in states[1:]]
    _, backward = launches(lambda: torch.autograd.grad(states[1:], leaves, ones), monkeypatch)
    assert forward <= 19 and backward <= 29


@pytest.mark.parametrize("num", [1, 8])
def test_launches_of_a_call(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = some_of(bank(SMALL, torch.float32, 1, False), [0] * num)
    given = moved(given, DEVICE, torch.float32)
    (outputs, *_), forward = launches(lambda: triton_backend.separable(*given, True), monkeypatch)
    arguments = backward_of(given, outputs, True, [True] * num, [True] * num)
    arguments = moved(arguments, DEVICE, torch.float32)
    _, backward = launches(lambda: triton_backend.separable_backward(*arguments), monkeypatch)
    assert forward <= 5 and backward <= 9
    x, rows = given[0][0], torch.randn(2, SMALL[0], device=DEVICE)
    weight, row = torch.randn(4, SMALL[0], 1, 1, device=DEVICE), torch.randn(1, 4, device=DEVICE)
    forward_mixing, backward_mixing = (
        moved(a, DEVICE, torch.float32) for a in mixing(SMALL, torch.float32, 3)
    )
    output = torch.randn(*x.shape[:3], 4, device=DEVICE)
    calls: list[tuple[int, str, tuple[Any, ...]]] = [
        (3, "pool", (x, 1, True)),
        (2, "pool_backward", (x, x, x, x, x, rows, rows, x, 1)),
        (1, "mixture", forward_mixing),
        (3, "mixture_backward", (*backward_mixing, True)),
        (4, "projection", (x, weight, None, True)),
        (5, "projection_backward", (output, row, output, row, row, x, weight, True, True)),
    ]
    for most, name, given in calls:
        _, found = launches(lambda: getattr(triton_backend, name)(*given), monkeypatch)  # noqa: B023
        assert found <= most, name


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
        given = some_of(bank(SMALL, dtype, 2 - mapped, mapped), [0, -1])
        outputs = triton_backend.separable(*given, True)[0]
        for wants_inputs in (True, False):
            arguments = backward_of(given, outputs, wants_inputs, [True] * 2, [True] * 2)
            triton_backend.separable_backward(*arguments)
        x, slopes = image(SMALL, dtype), torch.randn(2, SMALL[0], dtype=dtype)
        pooled = triton_backend.pool(x, 2, True)[:2]
        added = None if mapped else x
        triton_backend.pool_backward(x, *pooled, *pooled, slopes, slopes, added, 2)
        forward, backward = mixing(SMALL, dtype, 2)
        triton_backend.mixture(*forward)
        triton_backend.mixture_backward(*backward, True)
        for name, folded in zip(("fold", "unfold"), folding(dtype), strict=True):
            getattr(triton_backend, name)(*folded)
            first = 3 if name == "fold" else 4  # of γ, β
            without = *folded[:first], None, None, *folded[first + 2 :]
            getattr(triton_backend, name)(*without)


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
