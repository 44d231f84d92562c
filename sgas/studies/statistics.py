"""How sure a study can be: spread, rank correlation and paired comparison, with their uncertainty.

Dimensions: n values, R resamples. Everything is seeded; where all permutations or all signs are
few, all of them are taken and nothing is drawn. No torch, and not `scipy.stats`, whose tau takes
one ranking at a time: the tests hold these functions to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sgas.errors import InputError

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_FOR_TAU = 3
FEWEST_FOR_INTERVAL = 5  # four values have 35 different resamples, too few for a tail of 2.5 %
MOST_ENTRIES = 4_000_000  # of an array of resamples; larger ones are taken piece by piece
ROUNDING = 1e-12  # sums in another order are the same sum

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Spread:
    """n values in short: `sd` divides by n − 1 and is None for a single value."""

    n: int
    mean: float
    sd: float | None
    best: float
    worst: float


@dataclass(frozen=True)
class Correlation:
    """Kendall's τ-b of n pairs, its 95 % bootstrap interval and its one-sided p-value.

    All but `n` are None where τ has no value: under three pairs, or a side without two different
    values. Under five pairs there is no interval.
    """

    n: int
    tau: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class PairedDifference:
    """The mean of n differences, its 95 % bootstrap interval, and its two-sided p-value.

    Under five differences there is no interval.
    `smallest_p` is the smallest p-value that n differences can give at all: 2 / 2ⁿ.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    p_value: float
    smallest_p: float


def spread(values: Sequence[float], higher_is_better: bool = True) -> Spread:
    """The spread of one or more values; InputError for none or for one that is not finite."""
    array = _finite(values)
    ordered = sorted(values, reverse=higher_is_better)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(len(array), float(array.mean()), sd, ordered[0], ordered[-1])


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b of two lists of equal length; None where one holds no two different values.

    τ-b = Σ sign(xᵢ − xⱼ) sign(yᵢ − yⱼ) / √(number of pairs untied in x · untied in y); Kendall,
    Biometrika 33 (1945).
    """
    signs = _sign_tables(first, second)
    every = np.arange(len(first))[None]
    tau = float(_taus(*signs, every, every)[0])
    return None if math.isnan(tau) else tau


def rank_correlation(
    first: Sequence[float], second: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> Correlation:
    """τ-b of two lists, its interval (percentiles over pairs drawn anew) and its p-value.

    The p-value is the share of pairings whose τ is at least the one found (one-sided: does the
    first predict the second?). It counts all n! pairings where they are at most `resamples`.
    Resamples in which one side is all ties have no τ and are left out of the interval.
    """
    tables, n = _sign_tables(first, second), len(first)
    tau = kendall_tau(first, second)
    if tau is None or n < FEWEST_FOR_TAU:
        return Correlation(n)
    draw = np.random.default_rng(seed)
    pairs = draw.integers(0, n, (resamples, n))
    drawn = _taus(*tables, pairs, pairs)
    low, high = _interval(drawn[~np.isnan(drawn)], n)
    orders, exact = _permutations(n, draw, resamples)
    reached = _taus(*tables, np.arange(n)[None], orders) >= tau - ROUNDING
    return Correlation(n, tau, low, high, _share(reached, exact))


def paired_difference(
    differences: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """The mean of differences between paired runs, with interval and sign-flip p-value.

    If the two strategies were alike, each difference could as well have had the other sign: the
    p-value is the share of signs whose mean is at least as far from 0. It counts all 2ⁿ where they
    are at most `resamples`. InputError for no difference.
    """
    array = _finite(differences)
    n, mean = len(array), float(array.mean())
    draw = np.random.default_rng(seed)
    low, high = _interval(array[draw.integers(0, n, (resamples, n))].mean(1), n)
    exact = 2**n <= resamples
    if exact:
        signs = np.array(list(itertools.product((1, -1), repeat=n)))
    else:
        signs = draw.choice((1, -1), (resamples, n))
    reached = np.abs((signs * array).mean(1)) >= abs(mean) - ROUNDING * (1 + abs(mean))
    return PairedDifference(n, mean, low, high, _share(reached, exact), 2.0 ** (1 - n))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values as they stand when so many comparisons are made at once (Holm, 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def ranks(values: Sequence[float], higher_is_better: bool = True) -> list[float]:
    """The place of each value, 1 for the best; equal values share the mean of their places."""
    keys = [-value if higher_is_better else value for value in values]
    return [
        sum(other < key for other in keys) + (1 + sum(other == key for other in keys)) / 2
        for key in keys
    ]


def _finite(values: Sequence[float]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all():
        raise InputError(f"statistics need finite values and at least one, got {list(values)}")
    return array


def _sign_tables(first: Sequence[float], second: Sequence[float]) -> tuple[Array, Array]:
    """sign(xᵢ − xⱼ) of both lists, each `[n, n]` of int8."""
    x, y = _finite(first), _finite(second)
    if len(x) != len(y):
        raise InputError(f"a rank correlation needs pairs, got {len(x)} and {len(y)} values")
    return _signs(x), _signs(y)


def _signs(values: Array) -> Array:
    return np.sign(values[:, None] - values[None, :]).astype(np.int8)


def _taus(x_signs: Array, y_signs: Array, x_index: Array, y_index: Array) -> Array:
    """τ-b `[R]` of rearranged lists: `x_index` and `y_index` are `[R, n]` or `[1, n]`.

    NaN where one side of a rearrangement is all ties.
    """
    count, n = max(len(x_index), len(y_index)), x_index.shape[1]
    most = max(1, MOST_ENTRIES // (n * n))
    taus = []
    for start in range(0, count, most):
        x = _table_of(x_signs, x_index[start : start + most] if len(x_index) > 1 else x_index)
        y = _table_of(y_signs, y_index[start : start + most] if len(y_index) > 1 else y_index)
        agreement = (x * y).sum((1, 2), dtype=np.int64)
        untied = np.abs(x).sum((1, 2), dtype=np.int64) * np.abs(y).sum((1, 2), dtype=np.int64)
        with np.errstate(invalid="ignore"):  # 0 / 0 for ties alone, which is NaN as promised
            taus.append(agreement / np.sqrt(untied))
    return np.concatenate(taus)


def _table_of(signs: Array, index: Array) -> Array:
    return signs[index[:, :, None], index[:, None, :]]


def _permutations(n: int, draw: np.random.Generator, resamples: int) -> tuple[Array, bool]:
    """Orders `[R, n]` of n things, and whether they are all that there are."""
    if math.factorial(n) <= resamples:
        return np.array(list(_orders(n))), True
    return draw.permuted(np.tile(np.arange(n), (resamples, 1)), axis=1), False


def _orders(n: int) -> Iterator[tuple[int, ...]]:
    return itertools.permutations(range(n))


def _share(reached: Array, exact: bool) -> float:
    """The share that is reached; where they were drawn, the data themselves count as one more."""
    if exact:
        return float(reached.mean())
    return float((reached.sum() + 1) / (len(reached) + 1))


def _interval(values: Array, n: int) -> tuple[float, float] | tuple[None, None]:
    """The middle 95 % of resampled values; none where n originals allow no such tail."""
    if n < FEWEST_FOR_INTERVAL:
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
