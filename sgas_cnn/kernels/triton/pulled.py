"""The gradients of convolutions from their pieces: factor g + slope y + constant, in one launch.

Dimensions: n convolutions, P pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.triton.runs import Runs, image_of, table
from sgas_cnn.kernels.triton.tiles import Tiles, places_of, tile_of


@triton.jit(do_not_specialize=["num_pixels"])
def _pulled_kernel(
    g0,
    g1,
    g2,
    g3,
    g4,
    g5,
    g6,
    g7,
    y0,
    y1,
    y2,
    y3,
    y4,
    y5,
    y6,
    y7,
    numbers,
    factors,
    slopes,
    constants,
    out,
    num_pixels,
    channels,
    SLOPES: tl.constexpr,
    CONSTANTS: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    number = tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    here = places_of(pixel, channel, channels)
    size = num_pixels.to(tl.int64) * channels
    at = numbers + 6 * number
    own_channels = (channel >= tl.load(at + 4)) & (channel < tl.load(at + 5))
    known = some[:, None] & own_channels[None, :]
    own = number * channels + channel
    gradient = image_of(at, size, g0, g1, g2, g3, g4, g5, g6, g7)
    value = tl.load(gradient + here, mask=known, other=0).to(ACC)
    value = value * tl.load(factors + own, mask=inside, other=0).to(ACC)[None, :]
    if SLOPES:
        output = image_of(at + 2, size, y0, y1, y2, y3, y4, y5, y6, y7)
        y = tl.load(output + here, mask=known, other=0).to(ACC)
        value += y * tl.load(slopes + own, mask=inside, other=0).to(ACC)[None, :]
    if CONSTANTS:
        value += tl.load(constants + own, mask=inside, other=0).to(ACC)[None, :]
    value = tl.where(known, value, 0)
    tl.store(out + number * size + here, value, mask=some[:, None] & inside[None, :])


def pulled(
    gradients: Sequence[Tensor],
    gradient_of: Sequence[int],
    factors: Tensor,
    outputs: Sequence[Tensor],
    slopes: Tensor | None,
    constants: Tensor | None,
    channels_of: Sequence[tuple[int, int]],
) -> Tensor:
    """dy `[n, …, C]` of each convolution, as in `torch_backend.separable_backward`.

    It is zero but in `channels_of` each, from the first to before the last.
    """
    images = [g.contiguous() for g in gradients]
    like, num = images[0], len(gradient_of)
    of_gradients = Runs.of(images, like)
    of_outputs = Runs.of([] if slopes is None else [y.contiguous() for y in outputs], like)
    places = of_outputs.places or ((0, 0),) * num
    rows = zip([of_gradients.places[i] for i in gradient_of], places, channels_of, strict=True)
    numbers = tuple(chain.from_iterable(chain.from_iterable(rows)))
    out, channels = like.new_empty(num, *like.shape), like.shape[-1]
    num_pixels = like[..., 0].numel()
    tiles = Tiles.of(num_pixels, channels)
    _pulled_kernel[tiles.count, num, tiles.blocks](
        *of_gradients.starts,
        *of_outputs.starts,
        table(numbers, like.device),
        factors.contiguous(),
        factors if slopes is None else slopes.contiguous(),
        factors if constants is None else constants.contiguous(),
        out,
        num_pixels,
        channels,
        SLOPES=slopes is not None,
        CONSTANTS=constants is not None,
        **tiles.options(like.dtype),
    )
    return out
