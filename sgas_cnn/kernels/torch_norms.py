"""Batch norms and the weights of edges, folded into one factor and one constant for each channel.

For y over P pixels with mean m and variance v, σ = sqrt(v + eps), and the weight a of the edge:

    a (γ (y - m) / σ + β) = s y + b,  s = a γ / σ,  b = a β - s m

With the gradient g of the output, X = Σ g (y - m) and G = Σ g:

    ds = X,  da = Σ (X γ / σ + β G),  dγ = a X / σ,  dβ = a G,  dv = -s X / (2 σ²)
    dy = s g + S y + c,  S = 2 dv / P,  c = -s G / P - S m

With running moments (evaluation mode), and where no norm follows (m = 0, σ = 1), S = c = 0.

A row is one image times its factor on one slot. `row_of` is the row of the moments that norms it,
-1 where none does; `places` are those of the weights a, -1 where a = 1 and -2 where a = 0.
Dimensions: n rows, C channels, W weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Numbers = Sequence[int]


def fold(
    mean: Tensor,
    var: Tensor,
    row_of: Numbers,
    gamma: Tensor | None,
    beta: Tensor | None,
    weights: Tensor | None,
    places: Numbers,
    slot_of: Numbers,
    slots: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The factors s `[n, C]`, the sums of b by slot `[slots, C]`, and m and 1/σ of each row.

    `mean` and `var` `[R, C]` are the moments, `weights` `[W]`; `gamma` and `beta` `[n, C]` stand
    for ones and zeros where None.
    """
    rows = _index(tuple(row_of), mean.device)
    centres = torch.cat([mean, mean.new_zeros(1, mean.shape[1])])[rows]
    inverse = torch.cat([torch.rsqrt(var + eps), var.new_ones(1, var.shape[1])])[rows]
    scales = _scales(weights, places, mean)
    factors = scales * inverse if gamma is None else scales * inverse * gamma
    constants = -factors * centres if beta is None else scales * beta - factors * centres
    bias = mean.new_zeros(slots, mean.shape[1])
    bias = bias.index_add(0, _index(tuple(slot_of), mean.device), constants)
    return factors, bias, centres, inverse


def unfold(
    factors: Tensor,
    centres: Tensor,
    inverse: Tensor,
    row_of: Numbers,
    gamma: Tensor | None,
    beta: Tensor | None,
    weights: Tensor | None,
    places: Numbers,
    slot_of: Numbers,
    crossed: Tensor,
    sums: Tensor,
    pixels: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `fold`: those of the weights `[W]`, of γ and β `[n, C]`, and S and c.

    From X `crossed` `[n, C]` and G `sums` `[slots, C]`; `pixels` is P, 0 with running moments.
    """
    scales = _scales(weights, places, factors)
    total = sums[_index(tuple(slot_of), sums.device)]
    normalised = crossed * inverse
    to_scales = normalised if gamma is None else normalised * gamma
    if beta is not None:
        to_scales = to_scales + beta * total
    count = 0 if weights is None else weights.numel()
    ends = _index(tuple(place % (count + 2) for place in places), factors.device)
    to_weights = factors.new_zeros(count + 2).index_add(0, ends, to_scales.sum(1))[:count]
    normed = _index(tuple(int(row >= 0) for row in row_of), factors.device).unsqueeze(1)
    per_pixel = -factors * normed / max(1, pixels) if pixels else torch.zeros_like(factors)
    slopes = per_pixel * inverse * normalised
    constants = per_pixel * total - slopes * centres
    return to_weights, normalised * scales, total * scales, slopes, constants


@torch.no_grad()
def follow(
    running_means: Sequence[Tensor],
    running_vars: Sequence[Tensor],
    mean: Tensor,
    var: Tensor,
    row_of: Numbers,
    first_channels: Numbers,
    last_channels: Numbers,
    unbiased: float,
    momentum: float,
) -> None:
    """Running moments `[C]` follow rows of `mean` and `unbiased` · `var` on some channels.

    running = (1 - momentum) running + momentum found, from the first to before the last channel.
    """
    if not running_means:
        return
    ends = list(zip(first_channels, last_channels, strict=True))
    for running, found in ((running_means, mean), (running_vars, var * unbiased)):
        rows = found.unbind()
        torch._foreach_lerp_(
            [r[a:b] for r, (a, b) in zip(running, ends, strict=True)],
            [rows[i][a:b] for i, (a, b) in zip(row_of, ends, strict=True)],
            momentum,
        )


def _scales(weights: Tensor | None, places: Numbers, like: Tensor) -> Tensor:
    """The weight a of each row `[n, 1]`."""
    ends = [like.new_zeros(1), like.new_ones(1)]  # where -2 and -1 point to
    table = torch.cat(ends if weights is None else [weights, *ends])
    return table[_index(tuple(places), like.device)].unsqueeze(1)


def _index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers on a device; a plan's are always the same, and to send them there takes a sync."""
    found = _INDICES.get((numbers, device))
    if found is None:
        with torch.inference_mode(False):  # a training may take it later
            found = torch.tensor(numbers, dtype=torch.int64, device=device)
        if type(found) is Tensor and not torch.compiler.is_compiling():  # none of a trace
            _INDICES[numbers, device] = found
    return found


# None is ever dropped: a captured graph reads it where it lies.
_INDICES: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
