"""The contract of the image kernels, over all backends: plain formulas, gradients, odd inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_kernels import (
    AT_ALL_SIZES,
    DTYPES,
    STRIDES,
    Size,
    close_to_scale,
    image,
    needs_library,
    tensors_of,
    tolerance,
)
from torch import Tensor
from triton_images import mixing

from sgas_cnn.kernels.protocol import (
    Convolutions,
    Mixture,
    MixtureBackward,
    Pool,
    PoolBackward,
    Projection,
    ProjectionBackward,
    Separable,
    SeparableBackward,
)
from sgas_cnn.kernels.torch_pool import average_pool


@AT_ALL_SIZES
@DTYPES
@pytest.mark.parametrize("out_channels", [2, 16, 35])
def test_projection_equals_the_plain_formula_and_its_gradients(
    backend: Any, size: Size, dtype: torch.dtype, out_channels: int
) -> None:
    torch.manual_seed(6)
    x = image(size, dtype).requires_grad_()
    weight = torch.randn(out_channels, size[0], 1, 1, dtype=dtype, requires_grad=True)
    bias = torch.randn(out_channels, dtype=dtype)
    plain = torch.einsum("nhwc,oc->nhwo", F.relu(x), weight.flatten(1))
    detached = x.detach(), weight.detach()
    with_bias = backend.projection(Projection(*detached, bias, False))[0]
    close_to_scale(with_bias, plain.detach() + bias, dtype)
    output, mean, var = backend.projection(Projection(*detached, None, True))
    rows = plain.flatten(0, 2)
    wanted = plain, rows.mean(0, keepdim=True), rows.var(0, correction=0, keepdim=True)
    for ours, exact in zip((output, mean, var), wanted, strict=True):
        close_to_scale(ours, exact.detach(), dtype)
    assert backend.projection(Projection(*detached, None, False))[1].numel() == 0
    gradient = torch.randn_like(output)
    factors, slopes, constants = torch.randn(3, 1, out_channels, dtype=dtype)
    for corrections in ((slopes, constants), (None, None)):
        pulled = gradient * factors
        if corrections[0] is not None:
            pulled = pulled + plain.detach() * slopes + constants
        exact = torch.autograd.grad(plain, (x, weight), pulled, retain_graph=True)
        pieces = gradient, factors, output, *corrections, *detached
        both = backend.projection_backward(ProjectionBackward(*pieces, True, True))
        for ours, by in zip(both, exact, strict=True):
            close_to_scale(ours, by, dtype)
    of_weight = backend.projection_backward(ProjectionBackward(*pieces, False, True))
    of_x = backend.projection_backward(ProjectionBackward(*pieces, True, False))
    assert of_weight[0].numel() == 0 and of_x[1].numel() == 0


def plain_mixture(call: Mixture) -> list[Tensor]:
    before, before_slots, parts, slots, factors, linear, coefficients, bias = call
    outs = []
    for slot in range(len(bias)):
        out = bias[slot].expand_as(parts[0])
        out = out + sum(x for x, s in zip(before, before_slots, strict=True) if s == slot)
        out = out + sum(f * x for f, x in zip(coefficients[slot], linear, strict=True))
        for part, target, factor in zip(parts, slots, factors, strict=True):
            out = out + factor * part if target == slot else out
        outs.append(out)
    return outs


@AT_ALL_SIZES
@DTYPES
def test_mixture_equals_the_plain_formula_and_its_gradients(
    backend: Any, size: Size, dtype: torch.dtype
) -> None:
    torch.manual_seed(2)
    forward, backward = mixing(size, dtype, 3)
    for a, b in zip(backend.mixture(forward), plain_mixture(forward), strict=True):
        torch.testing.assert_close(a, b, **tolerance(dtype), check_stride=False)
    before, started, parts, slots, *others = forward
    gradients, _, _, centres, images, middles, *_ = backward
    factors, _, coefficients, bias = others
    leaves = [x.clone().requires_grad_() for x in (*images, factors, coefficients, bias)]
    *linear, factors, coefficients, bias = leaves
    outs = plain_mixture(
        Mixture(
            before, started, [p - c for p, c in zip(parts, centres, strict=True)], slots, factors,
            [x - m for x, m in zip(linear, middles, strict=True)], coefficients, bias,
        )
    )  # fmt: skip
    wanted = torch.autograd.grad(outs, leaves, gradients)
    to_linear, *sums = backend.mixture_backward(backward)
    for a, b in zip((*to_linear, *sums), wanted, strict=True):
        close_to_scale(a, b, dtype)
    nothing, *again = backend.mixture_backward(backward._replace(wants_linear=False))
    assert not any(t.numel() for t in nothing)
    for a, b in zip(again, sums, strict=True):
        torch.testing.assert_close(a, b)


def test_averages_on_a_gpu_are_pooled_channels_first() -> None:
    """There torch's gradient of channels-last images is wrong; the layout shows without one."""
    x = torch.randn(2, 3, 5, 6).to(memory_format=torch.channels_last)
    assert average_pool(x, 2).is_contiguous(memory_format=torch.channels_last)
    pooled = average_pool(x.to("meta", memory_format=torch.channels_last), 2)
    assert pooled.shape == (2, 3, 3, 3) and pooled.is_contiguous()


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
    largest, average, mean, var = backend.pool(Pool(x.detach(), stride, True, True))
    nothing, alone, *_ = backend.pool(Pool(x.detach(), stride, False, False))
    assert nothing.numel() == 0 and torch.equal(alone, average)
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
    images = x.detach(), largest, average
    ours = backend.pool_backward(
        PoolBackward(*images, *gradients, slopes, constants, added, stride)
    )
    torch.testing.assert_close(ours, wanted, **tolerance(dtype), check_stride=False)
    nothing = x.new_empty(0)
    images = x.detach(), largest, nothing
    alone = backend.pool_backward(
        PoolBackward(*images, gradients[0], nothing, slopes, constants, None, stride)
    )
    only = torch.autograd.grad(plain[0], x, pulled[0])[0]
    torch.testing.assert_close(alone, only, **tolerance(dtype), check_stride=False)


def test_a_large_mean_does_not_drown_the_spread(backend: Any) -> None:
    torch.manual_seed(4)
    small = 1e-2 * torch.rand(4, 16, 16, 5)
    x = (100 + small).contiguous()  # float32 keeps a spread of 3e-3 to 3 digits here
    nothing, straight = torch.empty(0), torch.eye(5).view(5, 5, 1, 1)
    as_it_is = Convolutions([x], None, None, [nothing], [1], [0], [straight], [0], 1)
    _, mean, var = backend.separable(Separable(as_it_is, True))
    rows = x.double().flatten(0, 2)
    wanted = rows.var(0, correction=0)
    torch.testing.assert_close(var[0].double(), wanted, rtol=0, atol=1e-3 * wanted.max())
    torch.testing.assert_close(mean[0].double(), rows.mean(0), rtol=1e-6, atol=0)
    _, _, _, variances = backend.pool(Pool(x, 1, True, True))
    pooled = F.max_pool2d(x.double().permute(0, 3, 1, 2), 3, 1, 1).var((0, 2, 3), correction=0)
    torch.testing.assert_close(variances[0].double(), pooled, rtol=1e-3, atol=0)


def test_no_images_give_no_outputs_and_zero_gradients(backend: Any) -> None:
    x = torch.empty(0, 4, 6, 3)
    taps, through = torch.randn(3, 1, 3, 3), torch.randn(3, 3, 1, 1)
    convolutions = Convolutions([x], None, None, [taps], [1], [0], [through], [0], 2)
    outputs, mean, var = backend.separable(Separable(convolutions, True))
    assert outputs[0].shape == (0, 2, 3, 3) and not mean.any() and not var.any()
    ones, wants = torch.ones(1, 3), (True, [True], [True])
    to_inputs, to_taps, to_pointwise, _, _ = backend.separable_backward(
        SeparableBackward(outputs, [0], ones, outputs, None, None, convolutions, None, None, *wants)
    )
    assert to_inputs[0].shape == x.shape and not to_taps[0].any() and not to_pointwise[0].any()
    coefficients, bias = torch.zeros(1, 1, 3), torch.zeros(1, 3)
    none = torch.empty(0, 3)
    mixed = backend.mixture(Mixture([], [], [], [], none, [x], coefficients, bias))
    assert mixed[0].shape == x.shape
    _, _, crossed, sums = backend.mixture_backward(
        MixtureBackward([x], [], [], none, [x], torch.zeros(1, 3), coefficients, True)
    )
    assert not crossed.any() and not sums.any()
    assert backend.pool(Pool(x, 2, False, True))[0].shape == (0, 2, 3, 3)


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
    taps = torch.randn(x.shape[-1], 1, 3, 3, dtype=torch.float64)
    through = torch.randn(x.shape[-1], x.shape[-1], 1, 1, dtype=torch.float64)
    rows = torch.randn(4, 2, x.shape[-1], dtype=torch.float64)
    results = []
    for pixels in (x, x.contiguous()):
        one = Convolutions([pixels], None, None, [taps], [1], [0], [through], [0], 1)
        back = [pixels], [0], rows[0, :1], [pixels], rows[1, :1], None, one
        pooled = backend.pool(Pool(pixels, 1, False, True))[:2]
        mixed = [pixels], [0], rows[0, :1], [pixels], rows[1:2, :1], rows[2, :1]
        crossed = [pixels], [pixels], [0], rows[0, :1], [pixels], rows[1, :1], rows[2:3, :1]
        projected = pixels, rows[0, :1], pixels, rows[1, :1], None, pixels, through
        of_pool = pixels, *pooled, pixels, pixels, rows[0], rows[1], pixels, 1
        wants = True, [True], [True]
        results.append(
            tensors_of(
                backend.separable(Separable(one, False))[0],
                *(pooled, backend.mixture(Mixture([], [], *mixed))),
                backend.separable_backward(SeparableBackward(*back, None, pixels, *wants)),
                backend.pool_backward(PoolBackward(*of_pool)),
                backend.mixture_backward(MixtureBackward(*crossed, True)),
                backend.projection(Projection(pixels, through, None, False))[0],
                backend.projection_backward(ProjectionBackward(*projected, True, True)),
            )
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, check_stride=False)


def test_a_number_that_is_none_is_not_hidden(backend: Any) -> None:
    x = torch.zeros(1, 4, 4, 2)
    x[0, 1, 1, 0] = float("nan")
    taps, straight = torch.ones(2, 1, 3, 3), torch.eye(2).view(2, 2, 1, 1)
    convolutions = Convolutions([x], None, None, [taps], [1], [0], [straight], [0], 1)
    outs = backend.separable(Separable(convolutions, False))[0]
    assert outs[0][0, :3, :3].isnan().all()  # of all channels: 0 times none is none
    for out in backend.pool(Pool(x, 1, False, True))[:2]:
        assert out[0, :3, :3, 0].isnan().all() and not out[..., 1].isnan().any()


X, TAPS, THROUGH = torch.zeros(1, 4, 4, 2), torch.zeros(2, 1, 3, 3), torch.zeros(2, 2, 1, 1)
NOTHING = torch.zeros(1, 4, 4, 0)


def separable(taps: Tensor, pointwise: Tensor, row: int = 0, stride: int = 1) -> tuple[Any, ...]:
    return [X], None, None, [taps], [1], [0], [pointwise], [row], stride, False


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("separable", separable(torch.zeros(2, 1, 4, 4), THROUGH), "4 taps a side"),
        ("separable", separable(TAPS, THROUGH, stride=3), "stride is 3, not 1 or 2"),
        ("separable", separable(TAPS.double(), THROUGH), "takes tensors of one dtype"),
        ("pool", (NOTHING, 1, True, True), "with a channel or more"),
        ("projection", (NOTHING, torch.zeros(2, 0, 1, 1), None, True), "with a channel or more"),
        ("projection", (X, THROUGH[:0], None, True), "gives no channel"),
        ("separable", separable(TAPS[:1], THROUGH), "a weight has shape"),
        ("separable", separable(torch.zeros(0), TAPS[:1, [0, 0]]), "a dense weight has shape"),
        ("separable", separable(TAPS, TAPS[:, [0, 0]]), "a dense convolution has no taps"),
        ("separable", separable(TAPS, THROUGH, row=1), "a pointwise weight has rows beyond 2"),
        (
            "separable_sum",
            (*separable(TAPS, THROUGH)[:-1], [], [], [0], torch.ones(1, 2), torch.ones(2, 2)),
            "a slot of 2 has no convolution",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    operator: str, arguments: tuple[Any, ...], message: str
) -> None:
    needs_library()
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.sgas_cnn, operator)(*arguments)
