"""Searches with a criterion of one's own: the edge whose two best operations are furthest apart.

It is a function that scores the edges; what decides when as well is a class with the methods of
`sgas.deciding.strategies.Strategy`.
"""

from torch import Tensor

import sgas_cnn
from sgas.deciding.scoring import edge_importance, min_max, operation_probs
from sgas.registry import strategy


@strategy("gap", help="importance and the gap of the two best operations")
def gap(alphas: Tensor, history: Tensor) -> Tensor:
    """The score `[E]` of alphas `[E, O]`."""
    best = operation_probs(alphas).topk(2, dim=-1).values
    return min_max(edge_importance(alphas)) * min_max(best[:, 0] - best[:, 1])


if __name__ == "__main__":
    short = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0}
    small = {"space": "nasbench201", "channels": 4, "num_cells": 1, "batch_size": 90}
    print(sgas_cnn.search("digits", plugins=[__file__], strategy="gap", **short, **small))
