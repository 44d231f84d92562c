"""What results say: strategies side by side, rank correlations, comparisons, and what they lack.

Every number that is compared is a trained network's figure on the test split. Sentences are built
here, so that terminal, Markdown, JSON and HTML say the same.
"""

from __future__ import annotations

import statistics as plain_statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from sgas.protocols import PAPER, UNKNOWN
from sgas.studies.results import Results, Trial
from sgas.studies.statistics import (
    FEWEST_FOR_INTERVAL,
    FEWEST_FOR_TAU,
    Correlation,
    PairedDifference,
    Spread,
    holm,
    paired_difference,
    rank_correlation,
    spread,
)

ENOUGH = 10
SIGNIFICANT = 0.05
BASELINE = "random"
POOLED = "all"


@dataclass(frozen=True)
class StrategySummary:
    """One strategy: its figures over the seeds that are done, means of what it costs.

    `asked` counts all its runs, `test.n` those with a test figure; `evidence` is the mean per cent
    of a cell's edges of which its search had evidence.
    """

    strategy: str
    asked: int
    seeds: tuple[int, ...]
    test: Spread | None
    best_epoch: Spread | None
    search: Spread | None
    best_run: str | None
    parameters: float | None
    flops: float | None
    search_seconds: float | None
    evidence: float | None = None


@dataclass(frozen=True)
class GivenRow:
    """A row of the user's own, such as a figure of a paper: nothing of it was run here."""

    name: str
    mean: float
    sd: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class RankRow:
    """How far the order in the search is the order after training, for one strategy or all.

    `of` is `figures` (ties counted as τ-b does) or `ranks` (those that the source gives).
    """

    strategy: str
    of: str
    correlation: Correlation


@dataclass(frozen=True)
class ComparisonRow:
    """Two strategies over the seeds that both have; positive: `first` is better.

    `p_holm` counts in how many comparisons stand beside this one. `verdict` says it in words.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    difference: PairedDifference | None
    p_holm: float | None
    verdict: str


@dataclass(frozen=True)
class Summary:
    """All that a table shows. `verdict` is one line, `warnings` what a reader must know first."""

    results: Results
    strategies: tuple[StrategySummary, ...]
    ranks: tuple[RankRow, ...]
    comparisons: tuple[ComparisonRow, ...]
    verdict: str
    warnings: tuple[str, ...]
    given: tuple[GivenRow, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        results = plain.pop("results")
        runs = results.pop("trials")
        return {**results, **plain, "runs": list(runs)}


def summarise(results: Results, given: Sequence[GivenRow] = ()) -> Summary:
    """The summary of results; the same results always give the same numbers.

    Rows that are `given` stand beside the strategies and are compared with nothing.
    """
    strategies = tuple(_strategy(results, name) for name in results.strategies)
    ranks = tuple(_ranks(results))
    return Summary(
        results,
        strategies,
        ranks,
        _comparisons(results),
        _verdict(results, strategies),
        tuple(_warnings(results, strategies, ranks)),
        tuple(given),
    )


def tested(trials: Sequence[Trial]) -> list[float]:
    """The test figures of the trials that have one."""
    return [trial.test for trial in trials if trial.test is not None]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have a figure of the search and one of the test split."""
    return [trial for trial in trials if trial.search is not None and trial.test is not None]


def _strategy(results: Results, name: str) -> StrategySummary:
    trials, higher = results.of(name), results.higher_is_better
    done = [trial for trial in trials if trial.test is not None]
    best = max if higher else min
    return StrategySummary(
        strategy=name,
        asked=len(trials),
        seeds=tuple(trial.seed for trial in done if trial.seed is not None),
        test=_spread(tested(trials), higher),
        best_epoch=_spread([t.best_epoch for t in trials if t.best_epoch is not None], higher),
        search=_spread([t.search for t in trials if t.search is not None], higher),
        best_run=best(done, key=lambda trial: trial.test or 0.0).name if done else None,
        parameters=_mean([trial.parameters for trial in trials]),
        flops=_mean([trial.flops for trial in trials]),
        search_seconds=_mean([trial.search_seconds for trial in trials]),
        evidence=_mean([trial.evidence for trial in trials]),
    )


def _spread(values: Sequence[float], higher_is_better: bool) -> Spread | None:
    return spread(values, higher_is_better) if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return plain_statistics.fmean(known) if known else None


def _ranks(results: Results) -> list[RankRow]:
    names = results.strategies
    groups = [(name, results.of(name)) for name in names]
    if len(names) > 1 and not results.published:
        groups.append((POOLED, list(results.trials)))
    rows = []
    for name, trials in groups:
        both = ranked(trials)
        if not both:
            continue
        first, second = [t.search or 0.0 for t in both], [t.test or 0.0 for t in both]
        rows.append(RankRow(name, "figures", rank_correlation(first, second)))
        with_ranks = [t for t in both if t.search_rank is not None and t.test_rank is not None]
        if with_ranks:
            first = [t.search_rank or 0.0 for t in with_ranks]
            second = [t.test_rank or 0.0 for t in with_ranks]
            rows.append(RankRow(name, "ranks", rank_correlation(first, second)))
    return rows


def _comparisons(results: Results) -> tuple[ComparisonRow, ...]:
    by_seed = {
        name: {
            t.seed: t.test for t in results.of(name) if t.seed is not None and t.test is not None
        }
        for name in results.strategies
    }
    if results.published:
        return ()
    sign = 1 if results.higher_is_better else -1
    compared: list[tuple[str, str, tuple[int, ...], PairedDifference | None]] = []
    for first, second in combinations(by_seed, 2):
        seeds = tuple(sorted(by_seed[first].keys() & by_seed[second].keys()))
        pairs = [sign * (by_seed[first][seed] - by_seed[second][seed]) for seed in seeds]
        compared.append((first, second, seeds, paired_difference(pairs) if pairs else None))
    made = [difference for *_, difference in compared if difference is not None]
    p_values = [difference.p_value for difference in made]
    adjusted = iter(zip(holm(p_values), _smallest_holm(made), strict=True))
    rows = []
    for first, second, seeds, difference in compared:
        p_holm, smallest = next(adjusted) if difference is not None else (None, 1.0)
        words = _in_words(first, second, difference, p_holm, smallest, len(made), results)
        rows.append(ComparisonRow(first, second, seeds, difference, p_holm, words))
    return tuple(rows)


def _smallest_holm(made: Sequence[PairedDifference]) -> list[float]:
    """The smallest p (Holm) that each comparison could have had, the others as they are."""
    p_values = [difference.p_value for difference in made]
    return [
        holm([*p_values[:place], difference.smallest_p, *p_values[place + 1 :]])[place]
        for place, difference in enumerate(made)
    ]


def _in_words(
    first: str,
    second: str,
    difference: PairedDifference | None,
    p_holm: float | None,
    smallest: float,
    count: int,
    results: Results,
) -> str:
    """What a comparison says, in one plain sentence."""
    if difference is None or p_holm is None:
        return f"{first} and {second} have no finished seed in common."
    n = difference.n
    if smallest > SIGNIFICANT:
        among = f" ({smallest:.2g} among {count} comparisons)" if count > 1 else ""
        return (
            f"n = {n} is too small to tell {first} from {second}: no outcome could have given p "
            f"below {min(1.0, difference.smallest_p):.2g}{among}."
        )
    if p_holm > SIGNIFICANT:
        return f"{n} seeds do not tell {first} from {second} (p {p_holm:.2g})."
    winner, loser = (first, second) if difference.mean > 0 else (second, first)
    by = f"{abs(difference.mean):.2f} {results.unit}".strip()
    return f"{winner} is better than {loser} by {by} over {n} seeds (p {p_holm:.2g})."


def _verdict(results: Results, strategies: Sequence[StrategySummary]) -> str:
    """The best mean, and what stands beside it; of fewer than ten seeds all means, and no best."""
    done = [row for row in strategies if row.test is not None]
    if not done:
        return "No run has been evaluated on the test split yet."
    metric, unit = results.metric, f" {results.unit}".rstrip()
    if len(done) > 1 and any(row.test and row.test.n < ENOUGH for row in done):
        tests = [(row.strategy, row.test) for row in done if row.test is not None]
        means = (f"{name} {spread_text(test)} (n {test.n})" for name, test in tests)
        return f"{metric}{unit and ' in'}{unit}: {', '.join(means)}; too few seeds to name a best."
    best = max if results.higher_is_better else min
    first = best(done, key=lambda row: row.test.mean if row.test else 0.0)
    assert first.test is not None
    beside = f", the best mean of {len(done)} strategies" if len(done) > 1 else ""
    shown = f"{metric} {spread_text(first.test)}{unit}"
    return f"{first.strategy}: {shown} (n {first.test.n}){beside}."


def _warnings(
    results: Results,
    strategies: Sequence[StrategySummary],
    ranks: Sequence[RankRow],
) -> list[str]:
    """What the numbers cannot carry, in words."""
    counts = {row.strategy: row.test.n if row.test else 0 for row in strategies}
    lines = []
    few = {name: n for name, n in counts.items() if n < ENOUGH}
    if few:
        listed = ", ".join(f"{name} {n}" for name, n in few.items())
        lines.append(
            f"Fewer than ten seeds ({listed}): mean and SD are rough, bootstrap intervals too "
            f"narrow (under {FEWEST_FOR_INTERVAL} there are none); a claim about a method needs "
            "ten."
        )
    if not counts.get(BASELINE):
        lines.append(
            "No random baseline stands beside these figures: what they owe to the search, and what "
            "to the space and the training, they cannot say."
        )
    missing = sum(row.asked - counts[row.strategy] for row in strategies)
    if missing and not results.published:
        total = sum(row.asked for row in strategies)
        lines.append(f"{missing} of {total} runs have no test figure yet and are left out.")
    return [*lines, *_more_warnings(results, counts, ranks)]


def _more_warnings(
    results: Results, counts: Mapping[str, int], ranks: Sequence[RankRow]
) -> list[str]:
    """What failed, what cannot be compared, and what the protocol and τ leave open."""
    lines = [trial.failure for trial in results.trials if trial.failure]
    if results.published and len(counts) > 1:
        lines.append(
            "The file names no seeds, so nothing can be paired and strategies are not compared."
        )
    if results.protocol == UNKNOWN:
        lines.append("Protocol unknown: not every cell says what it was searched on.")
    if results.protocol == PAPER:
        lines.append(
            "Protocol paper: the authors' splits and choices; the test split may have taken part "
            "in the search or in the choice of an epoch."
        )
    if any(row.strategy == POOLED for row in ranks):
        lines.append(
            "τ over all strategies pooled also counts what the strategies differ by, and supernets "
            "of different strategies are not on one scale; read it beside the others."
        )
    if any(row.correlation.tau is None for row in ranks):
        lines.append(f"A rank correlation needs {FEWEST_FOR_TAU} runs that are not all equal.")
    return lines


def spread_text(spread: Spread, digits: int = 2) -> str:
    """mean ± SD, or the mean alone for a single run."""
    return mean_text(spread.mean, spread.sd, digits)


def mean_text(mean: float, sd: float | None, digits: int = 2) -> str:
    """mean ± SD, or the mean alone where no SD is known."""
    return f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def stamp_of(summary: Summary) -> Mapping[str, str]:
    """What every table names: n, seeds, and the stamp of its results."""
    ns = ", ".join(f"{row.strategy} {row.test.n if row.test else 0}" for row in summary.strategies)
    seeds = sorted({seed for row in summary.strategies for seed in row.seeds})
    listed = ", ".join(map(str, seeds)) if seeds else "not named"
    return {"n": ns, "seeds": listed, **summary.results.stamp}
