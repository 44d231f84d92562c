"""`fold` and `unfold` of kernels/torch_norms.py, whose docstring has the algebra, in a launch each.

The numbers run in float64. Dimensions: n rows, C channels, E slots, W weights.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.protocol import Fold, Unfold
from sgas_cnn.kernels.triton.runs import table

ROWS = 32  # most rows of a tile
CHANNELS = 32  # most channels of a tile


@triton.jit
def _weight_of(weights, place, known):
    """The weight of a row, float64: 1 at place -1, 0 at -2."""
    weight = tl.load(weights + place, mask=known & (place >= 0), other=0).to(tl.float64)
    return tl.where(place == -1, 1.0, weight)


@triton.jit(do_not_specialize=["num"])
def _fold_kernel(
    mean,
    var,
    gamma,
    beta,
    weights,
    rows,
    out,
    bias,
    num,
    channels,
    EPS: tl.constexpr,
    AFFINE: tl.constexpr,
    SHIFTED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    slot = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    eps = tl.full([1, 1], EPS, tl.float64)
    total = tl.zeros([CHANNELS], tl.float64)
    for start in range(0, num, ROWS):
        number = start + tl.arange(0, ROWS)
        own = number < num
        own = own & (tl.load(rows + 3 * number + 2, mask=own, other=-1) == slot)
        moment = tl.load(rows + 3 * number, mask=own, other=-1)
        place = tl.load(rows + 3 * number + 1, mask=own, other=-2)
        weight = _weight_of(weights, place, own)[:, None]
        known = own[:, None] & inside[None, :]
        normed = known & (moment >= 0)[:, None]
        at = moment[:, None] * channels + channel[None, :]
        centre = tl.load(mean + at, mask=normed, other=0).to(tl.float64)
        spread = tl.load(var + at, mask=normed, other=1).to(tl.float64)
        inverse = tl.where(normed, 1 / tl.sqrt(spread + eps), 1.0)
        here = number[:, None] * channels + channel[None, :]
        factor = weight * inverse
        if AFFINE:
            factor = factor * tl.load(gamma + here, mask=known, other=0).to(tl.float64)
        constant = -factor * centre
        if SHIFTED:
            constant += weight * tl.load(beta + here, mask=known, other=0).to(tl.float64)
        total += tl.sum(tl.where(known, constant, 0.0), axis=0)
        tl.store(out + here, factor, mask=known)
        tl.store(out + num * channels + here, centre, mask=known)
        tl.store(out + 2 * num * channels + here, inverse, mask=known)
    tl.store(bias + slot * channels + channel, total, mask=inside)


def fold(call: Fold) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.fold`."""
    mean, gamma, beta, weights = call.mean, call.gamma, call.beta, call.weights
    num, channels = len(call.row_of), mean.shape[1]
    out, bias = mean.new_empty(3, num, channels), mean.new_empty(call.slots, channels)
    width = min(triton.next_power_of_2(channels), CHANNELS)
    _fold_kernel[call.slots, triton.cdiv(channels, width)](
        mean.contiguous(),
        call.var.contiguous(),
        mean if gamma is None else gamma.contiguous(),
        mean if beta is None else beta.contiguous(),
        mean if weights is None else weights.contiguous(),
        table(_rows(call), mean.device),
        out,
        bias,
        num,
        channels,
        EPS=call.eps,
        AFFINE=gamma is not None,
        SHIFTED=beta is not None,
        ROWS=min(triton.next_power_of_2(max(num, 1)), ROWS),
        CHANNELS=width,
    )
    factors, centres, inverse = out.unbind()
    return factors, bias, centres, inverse


def _rows(call: Fold | Unfold) -> tuple[int, ...]:
    """The row of the moments, the place of the weight and the slot of each row."""
    return tuple(chain.from_iterable(zip(call.row_of, call.places, call.slot_of, strict=True)))


@triton.jit
def _to_factor(
    crossed,
    inverse,
    gamma,
    beta,
    sums,
    here,
    there,
    inside,
    AFFINE: tl.constexpr,
    SHIFTED: tl.constexpr,
):
    """X / σ, G, and the gradient of γ a / σ and β a by a, of one row, float64 `[CHANNELS]`."""
    normalised = tl.load(crossed + here, mask=inside, other=0).to(tl.float64)
    normalised = normalised * tl.load(inverse + here, mask=inside, other=0).to(tl.float64)
    total = tl.load(sums + there, mask=inside, other=0).to(tl.float64)
    to_factor = normalised
    if AFFINE:
        to_factor = to_factor * tl.load(gamma + here, mask=inside, other=0).to(tl.float64)
    if SHIFTED:
        to_factor += total * tl.load(beta + here, mask=inside, other=0).to(tl.float64)
    return normalised, total, to_factor


@triton.jit(do_not_specialize=["num", "pixels"])
def _unfold_kernel(
    factors,
    centres,
    inverse,
    gamma,
    beta,
    weights,
    crossed,
    sums,
    rows,
    ranges,
    order,
    out,
    to_weights,
    num,
    pixels,
    channels,
    AFFINE: tl.constexpr,
    SHIFTED: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    number = tl.program_id(0)
    channel = tl.arange(0, CHANNELS)
    inside = channel < channels
    if number < num:
        here = number * channels + channel
        there = tl.load(rows + 3 * number + 2) * channels + channel
        normalised, total, _ = _to_factor(
            crossed, inverse, gamma, beta, sums, here, there, inside, AFFINE, SHIFTED
        )
        place = tl.load(rows + 3 * number + 1 + tl.arange(0, 1))
        weight = _weight_of(weights, place, place >= 0)
        normed = (tl.load(rows + 3 * number) >= 0) & (pixels > 0)
        factor = tl.load(factors + here, mask=inside, other=0).to(tl.float64)
        count = tl.maximum(pixels, 1).to(tl.float64)
        each = tl.where(normed, -factor / count, 0.0)
        own = tl.load(inverse + here, mask=inside, other=0).to(tl.float64)
        slope = each * own * normalised
        centre = tl.load(centres + here, mask=inside, other=0).to(tl.float64)
        size = num * channels
        tl.store(out + here, normalised * weight, mask=inside)
        tl.store(out + size + here, total * weight, mask=inside)
        tl.store(out + 2 * size + here, slope, mask=inside)
        tl.store(out + 3 * size + here, each * total - slope * centre, mask=inside)
    else:
        at = number - num
        gathered = tl.zeros([CHANNELS], tl.float64)
        for i in range(tl.load(ranges + at), tl.load(ranges + at + 1)):
            row = tl.load(order + i)
            ours = row * channels + channel
            _, _, to_factor = _to_factor(
                crossed, inverse, gamma, beta, sums, ours,
                tl.load(rows + 3 * row + 2) * channels + channel, inside, AFFINE, SHIFTED,
            )  # fmt: skip
            gathered += to_factor
        tl.store(to_weights + at, tl.sum(gathered, axis=0))


@lru_cache(maxsize=1024)
def _by_place(places: tuple[int, ...], count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the rows of each weight begin and end, and the rows in that order."""
    order = [[row for row, place in enumerate(places) if place == at] for at in range(count)]
    ranges = [0]
    for rows in order:
        ranges.append(ranges[-1] + len(rows))
    return tuple(ranges), tuple(row for rows in order for row in rows)


def unfold(call: Unfold) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `torch_norms.unfold`."""
    factors, gamma, beta, weights = call.factors, call.gamma, call.beta, call.weights
    num, channels = factors.shape
    count = 0 if weights is None else weights.numel()
    out, to_weights = factors.new_empty(4, num, channels), factors.new_empty(count)
    ranges, order = _by_place(tuple(call.places), count)
    device = factors.device
    _unfold_kernel[(num + count,)](
        factors.contiguous(),
        call.centres.contiguous(),
        call.inverse.contiguous(),
        factors if gamma is None else gamma.contiguous(),
        factors if beta is None else beta.contiguous(),
        factors if weights is None else weights.contiguous(),
        call.crossed.contiguous(),
        call.sums.contiguous(),
        table(_rows(call), device),
        table(ranges, device),
        table(order, device),
        out,
        to_weights,
        num,
        call.pixels,
        channels,
        AFFINE=gamma is not None,
        SHIFTED=beta is not None,
        CHANNELS=triton.next_power_of_2(channels),
    )
    to_gamma, to_beta, slopes, constants = out.unbind()
    return to_weights, to_gamma, to_beta, slopes, constants
