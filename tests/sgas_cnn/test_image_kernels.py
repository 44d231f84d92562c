"""The contract of the image kernels, over all backends: plain formulas, gradients, odd inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import opcheck
from triton_runs import triton_kernels

from sgas.kernels import backend_for
from sgas_cnn.kernels import BACKENDS, cpu_autograd
from sgas_cnn.library import LIBRARY

SMALL = (3, 2, 4, 5)  # C, N, H, W
SIZES = [SMALL, (1, 2, 7, 5), (3, 1, 8, 8), (16, 2, 9, 4), (17, 2, 5, 13), (40, 2, 6, 6)]
AT_ALL_SIZES = pytest.mark.parametrize("size", SIZES, ids=str)
TAPS = [(kernel, dilation) for kernel in (3, 5, 7) for dilation in (1, 2)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
STRIDES = pytest.mark.parametrize("stride", [1, 2])

Size = tuple[int, int, int, int]


@pytest.fixture(params=["torch", "cpu"])
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend that this machine has; what is torch's on CUDA is tested as torch's."""
    if request.param == "cpu":
        needs_library()
    return BACKENDS[request.param]


@pytest.fixture(params=BACKENDS)
def depthwise_backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each backend of the depthwise convolutions; Triton's kernels are interpreted."""
    if request.param == "cpu":
        needs_library()
    with triton_kernels() if request.param == "cuda" else nullcontext():
        yield BACKENDS[request.param]


def skip_slow(size: Size, stride: int, dtype: torch.dtype, mapped: bool) -> None:
    """Skips all but two cases where the kernels in force are interpreted."""
    few = size == SMALL and dtype == torch.float64 and mapped == (stride == 2)
    if not few and backend_for(torch.device("cpu"), LIBRARY) == "cuda":
        pytest.skip("the interpreter takes long; test_triton_kernels has sizes and types")


def needs_library() -> None:
    missing = LIBRARY.load()
    if missing is not None:
        pytest.skip(missing)
    cpu_autograd.register()


def image(size: Size, dtype: torch.dtype, stride: int = 1) -> Tensor:
    channels, count, height, width = size
    halves = [-(-side // stride) for side in (height, width)]
    return torch.randn(count, *halves, channels, dtype=dtype)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return (
        {"rtol": 1e-10, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 2e-4}
    )


def conv(u: Tensor, weight: Tensor, dilation: int, offset: int, stride: int) -> Tensor:
    """The depthwise convolution by torch's own, or the pixels as they are."""
    x = u.permute(0, 3, 1, 2)
    if weight.numel() == 0:
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)) if offset else x
        out = x[:, :, offset::stride, offset::stride]
    else:
        padding = dilation * (weight.shape[-1] // 2)
        out = F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    return out.permute(0, 2, 3, 1)


def plain_depthwise(
    inputs: list[Tensor],
    matrices: Tensor | None,
    shifts: Tensor | None,
    weights: list[Tensor],
    dilations: list[int],
    offsets: list[int],
    stride: int,
) -> tuple[list[Tensor], Tensor, Tensor]:
    planes = []
    for i, weight in enumerate(weights):
        if matrices is None or shifts is None:
            u = F.relu(inputs[0])
        else:
            u = F.relu(torch.einsum("nhwc,oc->nhwo", inputs[i], matrices[i]) + shifts[i])
        planes.append(conv(u, weight, dilations[i], offsets[i], stride))
    rows = [plane.reshape(-1, plane.shape[-1]) for plane in planes]
    means = torch.stack([row.mean(0) for row in rows])
    spread = [row - row.mean(0) for row in rows]
    return planes, means, torch.stack([s.t() @ s / len(s) for s in spread])


def bank(size: Size, dtype: torch.dtype, stride: int, mapped: bool) -> tuple[Any, ...]:
    """The arguments of a depthwise convolution of every kind: all taps, and pixels as they are."""
    channels = size[0]
    weights = [torch.randn(channels, 1, k, k, dtype=dtype) for k, _ in TAPS]
    weights += [torch.empty(0, dtype=dtype)] * stride
    num = len(weights)
    dilations = [d for _, d in TAPS] + [1] * stride
    offsets = [0] * len(TAPS) + list(range(stride))
    inputs = [image(size, dtype) for _ in range(num if mapped else 1)]
    matrices = torch.randn(num, channels, channels, dtype=dtype) if mapped else None
    shifts = torch.randn(num, channels, dtype=dtype) if mapped else None
    return inputs, matrices, shifts, weights, dilations, offsets, stride


def tensors_of(*values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        found += [value] if isinstance(value, Tensor) else []
        found += tensors_of(*value) if isinstance(value, list | tuple) else []
    return found


@AT_ALL_SIZES
@STRIDES
@DTYPES
@pytest.mark.parametrize("mapped", [False, True], ids=["shared", "mapped"])
def test_depthwise_equals_the_plain_formula(
    depthwise_backend: Any, size: Size, stride: int, dtype: torch.dtype, mapped: bool
) -> None:
    skip_slow(size, stride, dtype, mapped)
    torch.manual_seed(0)
    given = bank(size, dtype, stride, mapped)
    ours, plain = depthwise_backend.depthwise(*given, True), plain_depthwise(*given)
    for a, b in zip(tensors_of(*ours), tensors_of(*plain), strict=True):
        torch.testing.assert_close(a, b, **tolerance(dtype), check_stride=False)
    assert tensors_of(depthwise_backend.depthwise(*given, False)[1:])[0].numel() == 0


@AT_ALL_SIZES
@STRIDES
@DTYPES
@pytest.mark.parametrize("mapped", [False, True], ids=["shared", "mapped"])
def test_depthwise_backward_equals_autograd_of_the_plain_formula(
    depthwise_backend: Any, size: Size, stride: int, dtype: torch.dtype, mapped: bool
) -> None:
    skip_slow(size, stride, dtype, mapped)
    torch.manual_seed(1)
    given = bank(size, dtype, stride, mapped)
    channels, num = size[0], len(given[3])
    leaves = [t.requires_grad_() for t in tensors_of(*given) if t.numel()]
    planes, _, _ = plain_depthwise(*given)
    gradients = [image(size, dtype, stride) for _ in range(2)]
    reaching = [(i % 2, i) for i in range(num)] + [(1, 0)]
    through = torch.randn(len(reaching), channels, channels, dtype=dtype)
    slopes = torch.randn(num, channels, channels, dtype=dtype)
    slopes = slopes + slopes.transpose(1, 2)
    constants = torch.randn(num, channels, dtype=dtype)
    centres = torch.randn(num, channels, dtype=dtype) if mapped else None
    added = None if mapped else torch.randn_like(given[0][0])

    pulled = [p.detach() @ s + c for p, s, c in zip(planes, slopes, constants, strict=True)]
    for (which, plane), matrix in zip(reaching, through, strict=True):
        pulled[plane] = pulled[plane] + gradients[which] @ matrix
    wanted = torch.autograd.grad(planes, leaves, pulled, allow_unused=True)
    by_leaf = {id(leaf): g for leaf, g in zip(leaves, wanted, strict=True)}
    detached = [
        [t.detach() for t in v] if isinstance(v, list) and tensors_of(v) else v for v in given
    ]
    matrices, shifts = (t if t is None else t.detach() for t in detached[1:3])
    to_inputs, to_weights, crossed, sums = depthwise_backend.depthwise_backward(
        gradients, [g for g, _ in reaching], [p for _, p in reaching], through,
        [p.detach().contiguous() for p in planes], slopes, constants, detached[0], matrices, shifts,
        centres, detached[3], *given[4:], added, True, [True] * num,
    )  # fmt: skip
    for ours, weight in zip(to_weights, given[3], strict=True):
        if weight.numel():
            close_to_scale(ours, by_leaf[id(weight)], dtype)
    if not mapped:
        close_to_scale(to_inputs[0], by_leaf[id(given[0][0])] + added, dtype)
        return
    for i, x in enumerate(detached[0]):
        close_to_scale(to_inputs[i] @ matrices[i], by_leaf[id(given[0][i])], dtype)
        centred = by_leaf[id(given[1])][i] - torch.outer(by_leaf[id(given[2])][i], centres[i])
        close_to_scale(crossed[i], centred, dtype)
        close_to_scale(sums[i], by_leaf[id(given[2])][i], dtype)
        assert x.shape == to_inputs[i].shape


def close_to_scale(ours: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Equal up to rounding, of values as large as the largest."""
    share = 1e-11 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(
        ours, wanted, rtol=0, atol=share * wanted.abs().max().item(), check_stride=False
    )


def mixing(size: Size, dtype: torch.dtype) -> tuple[Any, ...]:
    """The arguments of a mixture of three slots; one has a plane with some rows, one has none."""
    channels = size[0]
    planes, linear = ([image(size, dtype) for _ in range(n)] for n in (3, 2))
    half = channels // 2
    matrices = [torch.randn(rows, channels, dtype=dtype) for rows in (channels, channels, half)]
    coefficients, bias = (
        torch.randn(shape, dtype=dtype) for shape in ((3, 2, channels), (3, channels))
    )
    before = [image(size, dtype)]
    return (
        before,
        [1],
        planes,
        [0, 0, 2],
        matrices,
        [0, 0, channels - half],
        linear,
        coefficients,
        bias,
    )


def plain_mixture(
    before: Any,
    before_slots: Any,
    planes: Any,
    slots: Any,
    matrices: Any,
    rows: Any,
    linear: Any,
    factors: Any,
    bias: Any,
) -> list[Tensor]:
    outs = []
    for slot in range(len(bias)):
        out = bias[slot].expand_as(planes[0])
        out = out + sum(x for x, s in zip(before, before_slots, strict=True) if s == slot)
        out = out + sum(f * x for f, x in zip(factors[slot], linear, strict=True))
        for plane, target, matrix, row in zip(planes, slots, matrices, rows, strict=True):
            if target == slot:
                channels = torch.zeros_like(plane)
                channels[..., row : row + len(matrix)] = plane @ matrix.t()
                out = out + channels
        outs.append(out)
    return outs


@AT_ALL_SIZES
@DTYPES
def test_mixture_equals_the_plain_formula_and_its_gradients(
    backend: Any, size: Size, dtype: torch.dtype
) -> None:
    torch.manual_seed(2)
    given = mixing(size, dtype)
    ours, plain = backend.mixture(*given), plain_mixture(*given)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, **tolerance(dtype), check_stride=False)
    channels = size[0]
    square = [torch.randn(channels, channels, dtype=dtype).requires_grad_() for _ in range(3)]
    linear = [x.requires_grad_() for x in given[6]]
    factors, bias = given[7].requires_grad_(), given[8].requires_grad_()
    centres = torch.randn(3, channels, dtype=dtype)
    middles = torch.randn(2, channels, dtype=dtype)
    planes = [p - c for p, c in zip(given[2], centres, strict=True)]
    outs = plain_mixture(
        given[0], given[1], planes, given[3], square, [0, 0, 0],
        [x - m for x, m in zip(linear, middles, strict=True)], factors, bias,
    )  # fmt: skip
    gradients = [image(size, dtype) for _ in outs]
    wanted = torch.autograd.grad(outs, [*linear, *square, factors, bias], gradients)
    to_linear, crossed, linear_crossed, sums = backend.mixture_backward(
        gradients, given[2], given[3], centres, [x.detach() for x in linear], middles,
        factors.detach(),
    )  # fmt: skip
    for a, b in zip((*to_linear, *crossed, linear_crossed, sums), wanted, strict=True):
        close_to_scale(a, b, dtype)


@AT_ALL_SIZES
@STRIDES
@DTYPES
def test_pool_equals_torch_s_own(backend: Any, size: Size, stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x = image(size, dtype).mul(2).round().div(2).requires_grad_()  # many pixels are equal
    seen = x.permute(0, 3, 1, 2)
    pooled = [
        F.max_pool2d(seen, 3, stride, 1),
        F.avg_pool2d(seen, 3, stride, 1, count_include_pad=False),
    ]
    plain = [p.permute(0, 2, 3, 1) for p in pooled]
    largest, average, mean, var = backend.pool(x.detach(), stride, True)
    for i, (ours, wanted) in enumerate(zip((largest, average), plain, strict=True)):
        torch.testing.assert_close(ours, wanted, **tolerance(dtype), check_stride=False)
        torch.testing.assert_close(mean[i], wanted.mean((0, 1, 2)), **tolerance(dtype))
        spread = wanted.var((0, 1, 2), correction=0)
        torch.testing.assert_close(var[i], spread, **tolerance(dtype))
    gradients = [torch.randn_like(p) for p in plain]
    slopes, constants = torch.randn(2, 2, size[0], dtype=dtype).unbind()
    pulled = [
        g + s * p.detach() + c
        for g, p, s, c in zip(gradients, plain, slopes, constants, strict=True)
    ]
    added = torch.randn_like(x)
    wanted = torch.autograd.grad(plain, x, pulled, retain_graph=True)[0] + added
    ours = backend.pool_backward(
        x.detach(), largest, average, *gradients, slopes, constants, added, stride
    )
    torch.testing.assert_close(ours, wanted, **tolerance(dtype), check_stride=False)
    nothing = x.new_empty(0)
    alone = backend.pool_backward(
        x.detach(), largest, nothing, gradients[0], nothing, slopes, constants, None, stride
    )
    only = torch.autograd.grad(plain[0], x, pulled[0])[0]
    torch.testing.assert_close(alone, only, **tolerance(dtype), check_stride=False)


def test_a_large_mean_does_not_drown_the_spread(backend: Any) -> None:
    torch.manual_seed(4)
    small = 1e-2 * torch.rand(4, 16, 16, 5)
    x = (100 + small).contiguous()  # float32 keeps a spread of 3e-3 to 3 digits here
    nothing = torch.empty(0)
    _, mean, covariance = backend.depthwise([x], None, None, [nothing], [1], [0], 1, True)
    rows = x.double().flatten(0, 2)
    wanted = (rows - rows.mean(0)).t() @ (rows - rows.mean(0)) / len(rows)
    torch.testing.assert_close(covariance[0].double(), wanted, rtol=0, atol=1e-3 * wanted.max())
    torch.testing.assert_close(mean[0].double(), rows.mean(0), rtol=1e-6, atol=0)
    _, _, _, variances = backend.pool(x, 1, True)
    pooled = F.max_pool2d(x.double().permute(0, 3, 1, 2), 3, 1, 1).var((0, 2, 3), correction=0)
    torch.testing.assert_close(variances[0].double(), pooled, rtol=1e-3, atol=0)


def test_no_images_give_no_planes_and_zero_gradients(backend: Any) -> None:
    x = torch.empty(0, 4, 6, 3)
    weight = torch.randn(3, 1, 3, 3)
    planes, mean, covariance = backend.depthwise([x], None, None, [weight], [1], [0], 2, True)
    assert planes[0].shape == (0, 2, 3, 3) and not mean.any() and not covariance.any()
    to_inputs, to_weights, _, _ = backend.depthwise_backward(
        planes, [0], [0], torch.eye(3).unsqueeze(0), planes, None, None, [x], None, None, None,
        [weight], [1], [0], 2, None, True, [True],
    )  # fmt: skip
    assert to_inputs[0].shape == x.shape and not to_weights[0].any()
    factors, bias = torch.zeros(1, 1, 3), torch.zeros(1, 3)
    assert backend.mixture([], [], [], [], [], [], [x], factors, bias)[0].shape == x.shape
    _, _, crossed, sums = backend.mixture_backward(
        [x], [], [], torch.empty(0, 3), [x], torch.zeros(1, 3), factors
    )
    assert not crossed.any() and not sums.any()
    assert backend.pool(x, 2, False)[0].shape == (0, 2, 3, 3)


@pytest.mark.parametrize("strides", ["channels first", "every second", "reversed batch"])
def test_inputs_may_have_any_strides(backend: Any, strides: str) -> None:
    torch.manual_seed(5)
    base = torch.randn(2, 6, 6, 8, dtype=torch.float64)
    views: dict[str, Callable[[], Tensor]] = {
        "channels first": lambda: base.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "every second": lambda: base[..., ::2],
        "reversed batch": lambda: base.transpose(0, 1).contiguous().transpose(0, 1),
    }
    x = views[strides]()
    weight = torch.randn(x.shape[-1], 1, 3, 3, dtype=torch.float64)
    for given in (x, x.contiguous()):
        planes = backend.depthwise([given], None, None, [weight], [1], [0], 1, False)[0]
        pooled = backend.pool(given, 1, False)[:2]
        results = [planes[0], *pooled]
        if given is x:
            first = results
    for a, b in zip(first, results, strict=True):
        torch.testing.assert_close(a, b)


def test_a_number_that_is_none_is_not_hidden(backend: Any) -> None:
    x = torch.zeros(1, 4, 4, 2)
    x[0, 1, 1, 0] = float("nan")
    weight = torch.ones(2, 1, 3, 3)
    plane = backend.depthwise([x], None, None, [weight], [1], [0], 1, False)[0][0]
    for out in (plane, *backend.pool(x, 1, False)[:2]):
        assert out[0, :3, :3, 0].isnan().all() and not out[..., 1].isnan().any()


OPERATORS = ["depthwise", "depthwise mapped", "mixture", "pool"]


def operator_and_arguments(name: str) -> tuple[Any, tuple[Any, ...]]:
    """A compiled operator and arguments in float64 that ask for gradients."""
    needs_library()
    torch.manual_seed(6)
    operators = torch.ops.sgas_cnn
    if name == "mixture":
        given: tuple[Any, ...] = mixing(SMALL, torch.float64)
    elif name == "pool":
        given = image(SMALL, torch.float64), 2, True
    else:
        given = *bank(SMALL, torch.float64, 2 - (name != "depthwise"), name != "depthwise"), True
    for tensor in tensors_of(*given):
        if tensor.numel():
            tensor.requires_grad_()
    return getattr(operators, name.split()[0]).default, given


@pytest.mark.parametrize("name", OPERATORS)
def test_compiled_operators_are_whole(name: str) -> None:
    operator, given = operator_and_arguments(name)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    assert set(opcheck(operator, given, test_utils=tests).values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_of_compiled_operators(name: str) -> None:
    operator, given = operator_and_arguments(name)
    leaves = [t for t in tensors_of(*given) if t.numel()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        replaced = iter(values)

        def fill(value: Any) -> Any:
            if isinstance(value, Tensor):
                return next(replaced) if value.numel() else value
            return [fill(v) for v in value] if isinstance(value, list) else value

        return tuple(t for t in tensors_of(operator(*[fill(v) for v in given])) if t.numel())

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_wrong_arguments_are_refused() -> None:
    needs_library()
    x, weight = torch.zeros(1, 4, 4, 2), torch.zeros(2, 1, 3, 3)
    depthwise = torch.ops.sgas_cnn.depthwise
    with pytest.raises(RuntimeError, match="4 taps a side"):
        depthwise([x], None, None, [torch.zeros(2, 1, 4, 4)], [1], [0], 1, False)
    with pytest.raises(RuntimeError, match="stride is 3, not 1 or 2"):
        depthwise([x], None, None, [weight], [1], [0], 3, False)
    with pytest.raises(RuntimeError, match="takes tensors of one dtype"):
        depthwise([x], None, None, [weight.double()], [1], [0], 1, False)
    with pytest.raises(RuntimeError, match="a weight has shape"):
        depthwise([x], None, None, [weight[:1]], [1], [0], 1, False)
