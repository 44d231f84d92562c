"""Scores of the edges of a cell: importance, certainty, stability and the two criteria.

Source: Li et al., "SGAS: Sequential Greedy Architecture Search", CVPR 2020, equations 3 to 9.
Dimensions: E edges, O candidate operations (column 0 is `none`), K epochs of history; leading
dimensions (`...`) batch over cells or searches. Everything is computed in float64: while the alphas
are still close together, min-max scaling magnifies the rounding of float32 until it decides.
Nothing here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def edge_importance(alphas: Tensor) -> Tensor:
    """Softmax mass on operations other than `none`, `[..., E, O]` to `[..., E]` in [0, 1]."""
    return torch.softmax(alphas.double(), dim=-1)[..., 1:].sum(-1)


def operation_probs(alphas: Tensor) -> Tensor:
    """Softmax probabilities renormalised without `none`, for `[..., E, O]`: `[..., E, O-1]`.

    They are the softmax over the other operations, which stays finite where `none` takes all.
    """
    return torch.softmax(alphas.double()[..., 1:], dim=-1)


def selection_certainty(probs: Tensor) -> Tensor:
    """1 - H(p) / log(O-1) for probabilities `[..., E, O-1]`: `[..., E]` in [0, 1]."""
    probs = probs.double()
    entropy = -torch.special.xlogy(probs, probs).sum(-1)
    num_operations = probs.shape[-1]
    if num_operations == 1:
        return torch.ones_like(entropy)
    return 1 - entropy / math.log(num_operations)


def selection_stability(probs: Tensor, history: Tensor) -> Tensor:
    """Mean over the K past epochs of the histogram intersection with now: `[..., E]` in [0, 1].

    `probs` is `[..., E, O-1]`, `history` `[K, ..., E, O-1]`; 0 where there is no history.
    """
    probs = probs.double()
    if history.shape[0] == 0:
        return probs.new_zeros(probs.shape[:-1])
    return torch.minimum(history.double(), probs).sum(-1).mean(0)


def min_max(score: Tensor) -> Tensor:
    """`[..., E]` scaled to [0, 1] over the edges of each cell; zeros where all are equal."""
    low, high = score.aminmax(dim=-1, keepdim=True)
    span = high - low
    flat = span == 0
    return torch.where(flat, 0.0, (score - low) / torch.where(flat, 1.0, span))


def criterion_1(alphas: Tensor, history: Tensor) -> Tensor:
    """Importance × certainty, each min-max scaled over all edges: `[..., E]`. No use of history."""
    certainty = selection_certainty(operation_probs(alphas))
    return min_max(edge_importance(alphas)) * min_max(certainty)


def criterion_2(alphas: Tensor, history: Tensor) -> Tensor:
    """Criterion 1 × min-max scaled stability: `[..., E]`; `history` is `[K, ..., E, O-1]`."""
    stability = selection_stability(operation_probs(alphas), history)
    return criterion_1(alphas, history) * min_max(stability)


Criterion = Callable[[Tensor, Tensor], Tensor]
