"""Statistics against scipy and against cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgas.errors import InputError
from sgas.studies.statistics import (
    FEWEST_FOR_INTERVAL,
    holm,
    kendall_tau,
    paired_difference,
    rank_correlation,
    ranks,
    spread,
)

few_values = st.lists(st.integers(0, 6), min_size=2, max_size=12)


def test_spread_of_three_values_by_hand() -> None:
    found = spread([1.0, 2.0, 6.0])
    assert (found.n, found.mean, found.best, found.worst) == (3, 3.0, 6.0, 1.0)
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert spread([1.0, 2.0, 6.0], higher_is_better=False).best == 1.0
    assert spread([5.0]).sd is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="finite values"):
        spread(values)
    with pytest.raises(InputError, match="finite values"):
        paired_difference(values)


def test_a_rank_correlation_needs_pairs() -> None:
    with pytest.raises(InputError, match="got 2 and 3 values"):
        kendall_tau([1, 2], [1, 2, 3])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_tau_is_that_of_scipy_ties_included(data: st.DataObject) -> None:
    x = data.draw(few_values)
    y = data.draw(st.lists(st.integers(0, 6), min_size=len(x), max_size=len(x)))
    expected, found = stats.kendalltau(x, y).statistic, kendall_tau(x, y)
    if math.isnan(expected):
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=1e-12)


def test_p_of_tau_over_all_pairings_by_hand() -> None:
    """Of the 24 orders of four things one has τ 1, three have τ 2/3 (one swap of neighbours)."""
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]).p_value == pytest.approx(1 / 24)
    swapped = rank_correlation([1, 2, 3, 4], [2, 1, 3, 4])
    assert swapped.tau == pytest.approx(2 / 3)
    assert swapped.p_value == pytest.approx(4 / 24)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]).p_value == 1.0


def test_p_of_tau_is_that_of_scipys_permutation_test() -> None:
    x, y = [3.0, 1.0, 2.0, 5.0, 4.0, 4.0], [2.0, 1.0, 1.0, 6.0, 3.0, 5.0]
    exact = stats.permutation_test(
        (x,),
        lambda order: stats.kendalltau(order, y).statistic,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert rank_correlation(x, y).p_value == pytest.approx(exact.pvalue)


def test_a_drawn_p_is_near_scipys_exact_one() -> None:
    draw = np.random.default_rng(5)
    x = draw.normal(size=10)
    y = x + draw.normal(size=10)
    exact = stats.kendalltau(x, y, method="exact", alternative="greater").pvalue
    found = rank_correlation(x, y).p_value
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))


def test_the_interval_of_tau_is_that_of_scipys_bootstrap() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=14)
    y = x + draw.normal(size=14)
    plain = stats.bootstrap(
        (x, y),
        lambda a, b: stats.kendalltau(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = rank_correlation(x, y)
    assert found.low == pytest.approx(plain.low, abs=0.06)
    assert found.high == pytest.approx(plain.high, abs=0.06)
    assert found.low < found.tau < found.high


def test_tau_has_no_value_for_two_pairs_or_for_ties_alone() -> None:
    for x, y in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3])):
        found = rank_correlation(x, y)
        assert (found.n, found.tau, found.low, found.p_value) == (len(x), None, None, None)


def test_resamples_of_many_values_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=20), draw.normal(size=20)
    whole = rank_correlation(x, y, resamples=50)
    monkeypatch.setattr("sgas.studies.statistics.MOST_ENTRIES", 7 * 400)
    assert rank_correlation(x, y, resamples=50) == whole


def test_the_same_seed_gives_the_same_figures() -> None:
    x, y = list(range(12)), [3, 1, 0, 9, 5, 4, 8, 6, 7, 11, 2, 10]
    found = [rank_correlation(x, y, seed=seed, resamples=400) for seed in (4, 4, 5)]
    assert found[0] == found[1] != found[2]


def test_sign_flips_of_three_differences_by_hand() -> None:
    """All of one sign: 2 of 8 signs are as far from 0. For 1, 1, -1 all 8 are (means 1/3 or 1)."""
    found = paired_difference([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.p_value, found.smallest_p) == (3, 2.0, 0.25, 0.25)
    assert found.low is None and found.high is None
    assert paired_difference([1.0, 1.0, -1.0]).p_value == 1.0


@pytest.mark.parametrize("n", [4, 9, 15])
def test_sign_flips_are_those_of_scipy(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    plain = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000 if n > 13 else np.inf,
        rng=np.random.default_rng(1),
    )
    tolerance = 0.02 if n > 13 else 1e-12
    assert paired_difference(differences).p_value == pytest.approx(plain.pvalue, abs=tolerance)


def test_the_interval_of_a_mean_is_that_of_scipys_bootstrap() -> None:
    differences = np.random.default_rng(2).normal(1, 2, 12)
    plain = stats.bootstrap(
        (differences,), np.mean, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    found = paired_difference(differences)
    assert found.low == pytest.approx(plain.low, abs=0.06)
    assert found.high == pytest.approx(plain.high, abs=0.06)
    assert paired_difference(differences[: FEWEST_FOR_INTERVAL - 1]).low is None


def test_holm_by_hand() -> None:
    """Holm: smallest times 3, next times 2, largest as it is, and never falling."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(few_values)
@settings(max_examples=30, deadline=None)
def test_ranks_are_those_of_scipy(values: list[int]) -> None:
    assert ranks(values, higher_is_better=False) == stats.rankdata(values).tolist()
    best = [value for value, rank in zip(values, ranks(values), strict=True) if rank == 1.0]
    assert not best or best == [max(values)]
