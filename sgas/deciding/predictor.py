"""A predictor of how cells rank, fitted to those that were trained.

    rank share ≈ mean + Σ over the edges of effect[kind, operation] + effect[kind, edge, operation]

by ridge regression. It is of ranks, since figures of cells that fail are far below all others, and
shrinks the effects of an operation on single edges more than what it is worth wherever it stands in
a kind of cell, since a search trains fewer cells than a space has edges and operations; pooling may
do in a normal cell what it does not in a reduction cell. Source: White et al., "How Powerful are
Performance Predictors in Neural Architecture Search?", NeurIPS 2021, on regression.
Dimensions: N trained cells, P asked cells, K kinds of cell, E edges, O candidate operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1.0  # how many cells the mean of all weighs
SINGLE_EDGE = 0.3  # scale of an operation's effect on one edge to that wherever it stands


def predicted_ranks(figures: Tensor, used: Tensor, asked: Tensor) -> Tensor:
    """The ranks that `asked` cells would have, as shares of N (1: the best): float64 `[P]`.

    `figures` `[N]` are those of cells that were trained alike, the more the better; `used`
    `[N, K, E, O]` and `asked` `[P, K, E, O]` say which operations cells use, float64 zeros, ones.
    """
    from scipy.stats import rankdata

    ranks, x = torch.from_numpy(rankdata(figures.numpy()) / len(figures)), _features(used)
    mean, centre = ranks.mean(), x.mean(0)
    gram = (x - centre) @ (x - centre).t()
    gram.diagonal().add_(RIDGE)
    effects = (x - centre).t() @ torch.linalg.solve(gram, ranks - mean)
    return mean + (_features(asked) - centre) @ effects


def _features(used: Tensor) -> Tensor:
    """How often a kind of cell uses each operation, and where: `[N, K·O + K·E·O]`."""
    return torch.cat([used.sum(2).flatten(1), SINGLE_EDGE * used.flatten(1)], 1)
