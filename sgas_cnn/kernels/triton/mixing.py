"""The sums of all slots: before + bias + Σ coefficient · linear + Σ factor · part, in one launch.

Dimensions: P pixels, C channels, E slots, Q linear images.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgas_cnn.kernels.protocol import Mixture
from sgas_cnn.kernels.triton.runs import Runs, image_of, table
from sgas_cnn.kernels.triton.tiles import Tiles, places_of, tile_of

SLOTS = 4  # of a launch, each with an output of its own


@triton.jit
def _slot(number, first, second, third, fourth):
    """The pointer of a slot."""
    pointer = first
    if number == 1:
        pointer = second
    if number == 2:
        pointer = third
    if number == 3:
        pointer = fourth
    return pointer


@triton.jit(do_not_specialize=["num_pixels", "first_slot", "started"])
def _mixture_kernel(
    i0,
    i1,
    i2,
    i3,
    i4,
    i5,
    i6,
    i7,
    b0,
    b1,
    b2,
    b3,
    o0,
    o1,
    o2,
    o3,
    ranges,
    terms,
    factors,
    coefficients,
    bias,
    num_pixels,
    channels,
    first_slot,
    started,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    number = tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    pixel, some = tile_of(tl.program_id(0), 1, 0, num_pixels, PIXELS)
    known = some[:, None] & inside[None, :]
    here = places_of(pixel, channel, channels)
    size = num_pixels.to(tl.int64) * channels
    slot = first_slot + number
    adds = ((started >> number) & 1) == 1
    total = tl.load(_slot(number, b0, b1, b2, b3) + here, mask=known & adds, other=0).to(ACC)
    total += tl.load(bias + slot * channels + channel, mask=inside, other=0).to(ACC)[None, :]
    for term in range(tl.load(ranges + slot), tl.load(ranges + slot + 1)):
        at = terms + 4 * term
        image = image_of(at, size, i0, i1, i2, i3, i4, i5, i6, i7)
        by = factors
        if tl.load(at + 2) == 1:
            by = coefficients
        factor = tl.load(by + tl.load(at + 3) * channels + channel, mask=inside, other=0).to(ACC)
        total += tl.load(image + here, mask=known, other=0).to(ACC) * factor[None, :]
    tl.store(_slot(number, o0, o1, o2, o3) + here, total, mask=known)


@lru_cache(maxsize=1024)
def _terms(
    places: tuple[tuple[int, int], ...], slot_of: tuple[int, ...], num_linear: int, slots: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the terms of each slot begin and end; of each term (run, number, kind, row).

    The kind is 1 for a linear image, whose row is one of the coefficients, else 0. Linear images
    come first in `places`, and each is a term of every slot.
    """
    ranges, terms = [0], list[int]()
    for slot in range(slots):
        for q in range(num_linear):
            terms += [*places[q], 1, slot * num_linear + q]
        for part, target in enumerate(slot_of):
            if target == slot:
                terms += [*places[num_linear + part], 0, part]
        ranges.append(len(terms) // 4)
    return tuple(ranges), tuple(terms)


def mixture(call: Mixture) -> list[Tensor]:
    """As `torch_backend.mixture`."""
    images = [image.contiguous() for image in (*call.linear, *call.parts)]
    like, slots = images[0], len(call.bias)
    runs = Runs.of(images, like)
    ranges, terms = _terms(runs.places, tuple(call.slot_of), len(call.linear), slots)
    pairs = zip(call.before_slots, call.before, strict=True)
    before = {slot: image.contiguous() for slot, image in pairs}
    outs = [torch.empty_like(like) for _ in range(slots)]
    num_pixels, channels = like[..., 0].numel(), like.shape[-1]
    tiles = Tiles.of(num_pixels, channels)
    for first in range(0, slots, SLOTS):
        ours = outs[first : first + SLOTS]
        missing = [like] * (SLOTS - len(ours))
        _mixture_kernel[tiles.count, len(ours), tiles.blocks](
            *runs.starts,
            *[before.get(first + i, like) for i in range(SLOTS)],
            *ours,
            *missing,
            table(ranges, like.device),
            table(terms, like.device),
            call.factors.contiguous(),
            call.coefficients.contiguous(),
            call.bias.contiguous(),
            num_pixels,
            channels,
            first,
            sum(1 << i for i in range(len(ours)) if first + i in before),
            **tiles.options(like.dtype),
        )
    return outs
