"""A map and its pooling over clouds as one compiled operator, which torch derives.

Dimensions: B clouds, N points of all clouds together, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sgas.native.backend import kernels_of
from sgas.native.precision import narrow_type, widened
from sgas_gcn.kernels.cpu_operators import operators
from sgas_gcn.library import LIBRARY


class Pooled(NamedTuple):
    """Of each cloud: the extremum by sign, Σ and Σ of squares, float64 these two; `[B, D]` each."""

    extremum: Tensor
    total: Tensor
    squares: Tensor


def pooled_activations(
    inputs: Sequence[Tensor], weight: Tensor, sign: Tensor, num_clouds: int, negative_slope: float
) -> Pooled | None:
    """Leaky ReLU(Σ W_i x_i), pooled; None where no kernel does that as the map is made.

    `weight` `[D, C]` are the W_i side by side. The extremum is the largest value where `sign` `[D]`
    is 1, the smallest where it is -1.
    """
    if kernels_of(inputs[0], LIBRARY) != "cpu":
        return None
    settings = (sign, num_clouds, negative_slope)
    if narrow_type(inputs[0]) is None:
        _, extremum, _, total, squares = operators().linear_pool(inputs, weight, *settings)
    else:
        y = torch.cat(tuple(inputs), dim=1) @ weight.t()
        extremum, _, total, squares = operators().pool_activation(widened(y), *settings)
    return Pooled(extremum, total, squares)
