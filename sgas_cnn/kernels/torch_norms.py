"""Batch norms and the weights of edges, folded into one factor and one constant for each channel.

For y over P pixels with mean m and variance v, σ = sqrt(v + eps), and the weight a of the edge:

    a (γ (y - m) / σ + β) = s y + b,  s = a γ / σ,  b = a β - s m

With the gradient g of the output, X = Σ g (y - m) and G = Σ g:

    ds = X,  da = Σ (X γ / σ + β G),  dγ = a X / σ,  dβ = a G,  dv = -s X / (2 σ²)
    dy = s g + S y + c,  S = 2 dv / P,  c = -s G / P - S m

With running moments (evaluation mode), and where no norm follows (m = 0, σ = 1), S = c = 0.

What is taken says protocol.py. Dimensions: n rows, C channels, W weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgas_cnn.kernels.protocol import Fold, Follow, Numbers, Unfold


def fold(call: Fold) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The factors s `[n, C]`, the sums of b by slot `[slots, C]`, and m and 1/σ of each row."""
    mean, var, gamma, beta = call.mean, call.var, call.gamma, call.beta
    rows = _index(tuple(call.row_of), mean.device)
    centres = torch.cat([mean, mean.new_zeros(1, mean.shape[1])])[rows]
    inverse = torch.cat([torch.rsqrt(var + call.eps), var.new_ones(1, var.shape[1])])[rows]
    scales = _scales(call.weights, call.places, mean)
    factors = scales * inverse if gamma is None else scales * inverse * gamma
    constants = -factors * centres if beta is None else scales * beta - factors * centres
    bias = mean.new_zeros(call.slots, mean.shape[1])
    bias = bias.index_add(0, _index(tuple(call.slot_of), mean.device), constants)
    return factors, bias, centres, inverse


def unfold(call: Unfold) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `fold`: those of the weights `[W]`, of γ and β `[n, C]`, and S and c.

    From X `crossed` `[n, C]` and G `sums` `[slots, C]`; `pixels` is P, 0 with running moments.
    """
    factors, weights, pixels, device = call.factors, call.weights, call.pixels, call.factors.device
    scales = _scales(weights, call.places, factors)
    total = call.sums[_index(tuple(call.slot_of), device)]
    normalised = call.crossed * call.inverse
    to_scales = normalised if call.gamma is None else normalised * call.gamma
    if call.beta is not None:
        to_scales = to_scales + call.beta * total
    count = 0 if weights is None else weights.numel()
    ends = _index(tuple(place % (count + 2) for place in call.places), device)
    to_weights = factors.new_zeros(count + 2).index_add(0, ends, to_scales.sum(1))[:count]
    normed = _index(tuple(int(row >= 0) for row in call.row_of), device).unsqueeze(1)
    per_pixel = -factors * normed / max(1, pixels) if pixels else torch.zeros_like(factors)
    slopes = per_pixel * call.inverse * normalised
    constants = per_pixel * total - slopes * call.centres
    return to_weights, normalised * scales, total * scales, slopes, constants


@torch.no_grad()
def follow(call: Follow) -> None:
    """Running moments follow rows of `mean` and `unbiased` · `var` on some channels.

    running = (1 - momentum) running + momentum moment.
    """
    if not call.running_means:
        return
    ends = list(zip(call.first_channels, call.last_channels, strict=True))
    pairs = (call.running_means, call.mean), (call.running_vars, call.var * call.unbiased)
    for running, moments in pairs:
        rows = moments.unbind()
        torch._foreach_lerp_(
            [r[a:b] for r, (a, b) in zip(running, ends, strict=True)],
            [rows[i][a:b] for i, (a, b) in zip(call.row_of, ends, strict=True)],
            call.momentum,
        )


def _scales(weights: Tensor | None, places: Numbers, like: Tensor) -> Tensor:
    """The weight a of each row `[n, 1]`."""
    ends = [like.new_zeros(1), like.new_ones(1)]  # where -2 and -1 point to
    table = torch.cat(ends if weights is None else [weights, *ends])
    return table[_index(tuple(places), like.device)].unsqueeze(1)


def _index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers on a device; a plan's are always the same, and to send them there takes a sync."""
    index = _INDICES.get((numbers, device))
    if index is None:
        with torch.inference_mode(False):  # a training may take it later
            index = torch.tensor(numbers, dtype=torch.int64, device=device)
        if type(index) is Tensor and not torch.compiler.is_compiling():  # none of a trace
            _INDICES[numbers, device] = index
    return index


# None is ever dropped: a captured graph reads it where it lies.
_INDICES: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
