"""What the processor at hand gives at most: FLOPs of a matrix product, bytes of large reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

REPEATS = 5
PRODUCTS = ((2048, 1024, 1024), (28672, 256, 1024))  # whose rates are measured: rows, depth, width
READ_BYTES = 1 << 28


def best_rate(work: float, action: Callable[[], Any]) -> float:
    """Work a second of the fastest of some runs, after one to warm up."""
    action()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return work / min(taken)


def rates() -> tuple[float, float]:
    """FLOP/s of the fastest product, by torch or by our own kernels; bytes/s of large reads."""
    found = []
    for rows, depth, width in PRODUCTS:
        x, weight = torch.randn(rows, depth), torch.randn(width, depth)
        for product in products_of(x, weight):
            found.append(best_rate(2.0 * rows * depth * width, product))
    large = torch.ones(READ_BYTES // 4)
    return max(found), best_rate(READ_BYTES, large.sum)


def products_of(x: Tensor, weight: Tensor) -> list[Callable[[], Any]]:
    """Ways to compute x · weightᵀ: torch's, and our linear layer where it is compiled."""
    from sgas.native.backend import kernels_of
    from sgas_gcn.kernels.cpu_operators import operators
    from sgas_gcn.library import LIBRARY

    ways: list[Callable[[], Any]] = [lambda: torch.mm(x, weight.t())]
    if kernels_of(x, LIBRARY) == "cpu":
        one = [torch.ones(len(weight))]
        norms = one, one, [one[0].clone()], [one[0].clone()], False, 0.1, 1e-5
        ways.append(lambda: operators().linear_norm([x], weight, None, 0.0, *norms))
    return ways
