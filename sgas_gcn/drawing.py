"""Which points of a cloud are taken where it has more than a network is asked about.

Dimensions: B clouds, P points of each, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def chosen_points(clouds: Tensor, num_points: int, seed: int) -> Tensor:
    """`num_points` points of each cloud float32 `[B, P, C]`, in their order: `[B, num_points, C]`.

    They are the first of `drawn_order`.
    """
    return points_of(clouds, drawn_order(clouds, seed)[:, :num_points].sort(dim=1).values)


def points_of(values: Tensor, numbers: Tensor) -> Tensor:
    """What `values` `[B, P, ...]` of points has for the points of these `numbers` `[B, n]`."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), numbers]


def drawn_order(clouds: Tensor, seed: int) -> Tensor:
    """The numbers of the points of each cloud float32 `[B, P, C]` by chance: int64 `[B, P]`.

    It follows from the points of the cloud and the seed alone: neither the order of the points nor
    other clouds change it.
    """
    bits = (clouds + 0.0).view(torch.int32).long()  # -0.0 + 0.0 is 0.0
    keys = torch.full(clouds.shape[:2], seed, device=clouds.device)
    for channel in bits.unbind(-1):
        keys = mixed(keys ^ channel)
    keys = mixed(keys + keys.sum(dim=1, keepdim=True))
    return keys.argsort(dim=1, stable=True)


def mixed(keys: Tensor) -> Tensor:
    """Whole numbers int64 whose bits all depend on all bits of the others.

    A multiplication and two shifts as in Steele et al., "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014.
    """
    keys = (keys ^ (keys >> 31)) * -7046029254386353131
    return keys ^ (keys >> 29)
