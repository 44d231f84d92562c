"""What the gradients of the slots give: sums of products over pixels, and linear images' gradients.

Dimensions: P pixels, C channels, E slots, Q linear images, S strips of pixels, R rows of sums.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain

import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.protocol import MixtureBackward
from sgas_cnn.kernels.triton.runs import Runs, image_of, table
from sgas_cnn.kernels.triton.sums import added
from sgas_cnn.kernels.triton.tiles import STRIPS, Tiles, places_of, tile_of


@triton.jit(do_not_specialize=["num_pixels", "turns"])
def _products_kernel(
    g0,
    g1,
    g2,
    g3,
    g4,
    g5,
    g6,
    g7,
    i0,
    i1,
    i2,
    i3,
    i4,
    i5,
    i6,
    i7,
    pairs,
    centres,
    linear_centres,
    partial,
    num_pixels,
    channels,
    turns,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    strip, pair = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    size = num_pixels.to(tl.int64) * channels
    at = pairs + 6 * pair
    gradient = image_of(at, size, g0, g1, g2, g3, g4, g5, g6, g7)
    image = image_of(at + 2, size, i0, i1, i2, i3, i4, i5, i6, i7)
    kind = tl.load(at + 4)
    middles = centres
    if kind == 1:
        middles = linear_centres
    middle = tl.load(
        middles + tl.load(at + 5) * channels + channel, mask=inside & (kind < 2), other=0
    ).to(ACC)
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for turn in range(turns):
        pixel, some = tile_of(strip, turns, turn, num_pixels, PIXELS)
        known = some[:, None] & inside[None, :]
        here = places_of(pixel, channel, channels)
        g = tl.load(gradient + here, mask=known, other=0).to(ACC)
        by = tl.load(image + here, mask=known & (kind < 2), other=1).to(ACC) - middle[None, :]
        total += tl.where(known, g * by, 0)
    place = (strip.to(tl.int64) * tl.num_programs(1) + pair) * channels + channel
    tl.store(partial + place, tl.sum(total, axis=0), mask=inside)


@triton.jit(do_not_specialize=["num_pixels", "slots"])
def _linear_gradient_kernel(
    g0,
    g1,
    g2,
    g3,
    g4,
    g5,
    g6,
    g7,
    places,
    coefficients,
    out,
    num_pixels,
    channels,
    slots,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    number, num = tl.program_id(1), tl.num_programs(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    known = some[:, None] & inside[None, :]
    here = places_of(pixel, channel, channels)
    size = num_pixels.to(tl.int64) * channels
    total = tl.zeros([PIXELS, CHANNELS], ACC)
    for slot in range(slots):
        at = places + 2 * slot
        gradient = image_of(at, size, g0, g1, g2, g3, g4, g5, g6, g7)
        row = coefficients + (slot * num + number) * channels
        factor = tl.load(row + channel, mask=inside, other=0).to(ACC)
        total += tl.load(gradient + here, mask=known, other=0).to(ACC) * factor[None, :]
    tl.store(out + number * size + here, total, mask=known)


@lru_cache(maxsize=1024)
def _pairs(
    gradients: tuple[tuple[int, int], ...],
    images: tuple[tuple[int, int], ...],
    slot_of: tuple[int, ...],
    num_linear: int,
) -> tuple[int, ...]:
    """Of each row of sums: (run, number) of the gradient and of the image, kind, row of the centre.

    The kinds are 0 for parts, 1 for linear images (before the parts in `images`), and 2 for the sum
    of a gradient alone.
    """
    pairs = [
        (*gradients[slot], *images[num_linear + part], 0, part) for part, slot in enumerate(slot_of)
    ]
    pairs += [(*g, *images[q], 1, q) for g in gradients for q in range(num_linear)]
    pairs += [(*g, 0, 0, 2, 0) for g in gradients]
    return tuple(chain.from_iterable(pairs))


def mixture_backward(call: MixtureBackward) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """As `torch_backend.mixture_backward`."""
    images = [image.contiguous() for image in (*call.linear, *call.parts)]
    gradients = [g.contiguous() for g in call.gradients]
    like, slots, num_linear = gradients[0], len(gradients), len(call.linear)
    of_slots = Runs.of(gradients, like)
    channels, num_pixels = like.shape[-1], like[..., 0].numel()
    of_images = Runs.of(images, like)
    pairs = _pairs(of_slots.places, of_images.places, tuple(call.slot_of), num_linear)
    rows = len(pairs) // 6
    tiles = Tiles.of(num_pixels, channels, STRIPS)
    partial = like.new_empty(tiles.count, rows, channels)
    _products_kernel[tiles.count, rows, tiles.blocks](
        *of_slots.starts,
        *of_images.starts,
        table(pairs, like.device),
        call.centres.contiguous(),
        call.linear_centres.contiguous(),
        partial,
        num_pixels,
        channels,
        tiles.turns,
        **tiles.options(like.dtype),
    )
    totals = added(partial, like.new_empty(rows, channels))
    crossed, products, sums = totals.split([len(call.slot_of), slots * num_linear, slots])
    to_linear = [like.new_empty(0)] * num_linear
    if call.wants_linear and num_linear:
        to_linear = _linear_gradients(of_slots, call.coefficients, like)
    return to_linear, crossed, products.view(slots, num_linear, channels), sums


def _linear_gradients(gradients: Runs, coefficients: Tensor, like: Tensor) -> list[Tensor]:
    """Σ over the slots of coefficient · gradient, for each linear image."""
    slots, num_linear, channels = coefficients.shape
    num_pixels = like[..., 0].numel()
    out = like.new_empty(num_linear, *like.shape)
    tiles = Tiles.of(num_pixels, channels)
    _linear_gradient_kernel[tiles.count, num_linear, tiles.blocks](
        *gradients.starts,
        table(tuple(chain.from_iterable(gradients.places)), like.device),
        coefficients.contiguous(),
        out,
        num_pixels,
        channels,
        slots,
        **tiles.options(like.dtype),
    )
    return list(out.unbind())
