"""Sums over what several programs have summed, in float64 and in one order: the same bits always.

Dimensions: S strips of pixels, R rows, C channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # strips × channels that are added at a time
CHANNELS = 32  # most channels of a program


@triton.jit(do_not_specialize=["strips", "rows"])
def _added_kernel(
    partial,
    places,
    out,
    strips,
    rows,
    channels,
    PLACED: tl.constexpr,
    TOGETHER: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    total = tl.zeros([CHANNELS], tl.float64)
    for start in range(0, strips, TOGETHER):
        strip = start + tl.arange(0, TOGETHER)
        known = (strip < strips)[:, None] & inside[None, :]
        here = (strip.to(tl.int64) * rows + row)[:, None] * channels + channel[None, :]
        total += tl.sum(tl.load(partial + here, mask=known, other=0).to(tl.float64), axis=0)
    place = row * channels + channel
    if PLACED:
        place = tl.load(places + 2 * row) + channel * tl.load(places + 2 * row + 1)
    tl.store(out + place, total, mask=inside)


def added(partial: Tensor, out: Tensor, places: Tensor | None = None) -> Tensor:
    """`out` with the sums over S of `partial` `[S, R, C]`.

    Row r stands at r C + c, or with `places` int32 `[R, 2]` at places_r0 + places_r1 c.
    """
    strips, rows, channels = partial.shape
    width = min(triton.next_power_of_2(channels), CHANNELS)
    _added_kernel[rows, triton.cdiv(channels, width)](
        partial,
        partial if places is None else places,
        out,
        strips,
        rows,
        channels,
        PLACED=places is not None,
        TOGETHER=min(triton.next_power_of_2(strips), TILE // width),
        CHANNELS=width,
    )
    return out
