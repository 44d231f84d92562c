"""Lists of images as kernels take them: a few pointers, and a table of where each image stands.

Images that a kernel made together are slices of one buffer. Such a run is one pointer; a kernel
takes eight. Dimensions: N images, P pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

RUNS = 8  # pointers that a kernel takes for a list of images


@triton.jit
def image_of(place, size, first, second, third, fourth, fifth, sixth, seventh, eighth):
    """The pointer of an image of `size` numbers, whose run and number stand at `place`."""
    run, number = tl.load(place), tl.load(place + 1)
    pointer = first
    if run == 1:
        pointer = second
    if run == 2:
        pointer = third
    if run == 3:
        pointer = fourth
    if run == 4:
        pointer = fifth
    if run == 5:
        pointer = sixth
    if run == 6:
        pointer = seventh
    if run == 7:
        pointer = eighth
    return pointer + number * size


class Runs(NamedTuple):
    """Images of one size: eight tensors, of which some may not count, and (run, number) of each."""

    starts: tuple[Tensor, ...]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, images: Sequence[Tensor], like: Tensor) -> Runs:
        """The runs of `images`, each contiguous; `like` stands in their place where there are none.

        They are copied into one where there are more than eight.
        """
        starts, places = list[Tensor](), list[tuple[int, int]]()
        for image in images:
            number = places[-1][1] + 1 if places else 0
            if not starts or not _follows(starts[-1], image, number):
                starts.append(image)
                number = 0
            places.append((len(starts) - 1, number))
        if len(starts) > RUNS:
            return cls.of(list(torch.stack(list(images))), like)
        return cls((*starts, *[like] * (RUNS - len(starts))), tuple(places))


def stacked(images: Sequence[Tensor]) -> Tensor:
    """The images as `[n, …]`: the buffer that they are slices of, else a copy."""
    runs = Runs.of([image.contiguous() for image in images], images[0])
    first = runs.starts[0]
    if runs.places[-1] != (0, len(images) - 1):
        return torch.stack(list(images))
    return first.as_strided((len(images), *first.shape), (first.numel(), *first.stride()))


def _follows(first: Tensor, image: Tensor, number: int) -> bool:
    """Whether `image` is the slice `number` of the buffer of which `first` is one.

    Neighbours by chance, of two buffers, are not told from strangers: what is a run has to depend
    on the program alone, for a CUDA graph to meet what its warm-up met.
    """
    distance = number * first.numel() * first.element_size()
    return (
        image.data_ptr() == first.data_ptr() + distance
        and image.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
    )


@cache
def table(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers on a device, int32; a plan's are always the same, and to send them takes a sync.

    They stay: a captured step goes on to read them where they are.
    """
    return torch.tensor(numbers or (0,), dtype=torch.int32, device=device)
