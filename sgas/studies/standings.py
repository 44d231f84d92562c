"""A summary as tables of texts, and these as Markdown, LaTeX and CSV.

The tables' texts are made once, so that terminal, Markdown and page show the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sgas.files import csv_text
from sgas.reports.html import Table
from sgas.studies.statistics import Spread
from sgas.studies.summary import (
    POOLED,
    ComparisonRow,
    RankRow,
    StrategySummary,
    Summary,
    mean_text,
    spread_text,
    stamp_of,
)

MISSING = "–"
IN_WORDS = "in words"
EVIDENCE = "edges with evidence"
GIVEN = " (given)"  # after the name of a row of the user's own
CSV_COLUMNS = (
    "row", "name", "n", "seeds", "metric", "unit", "mean", "sd", "best", "worst",
    "best_epoch_mean", "search_mean", "search_sd", "tau", "low", "high", "p_value", "p_holm",
    "parameters", "flops", "search_seconds", "evidence", "says",
)  # fmt: skip


def tables_of(summary: Summary, runs: bool = True) -> dict[str, Table]:
    """The tables of a summary by their titles; `runs` adds the one with a row for each run."""
    metric = f"{summary.results.metric} {summary.results.unit}".rstrip()
    tables = {f"Strategies ({metric}, test split)": _strategies(summary)}
    if summary.ranks:
        title = "Does the order in the search predict the order after training? (Kendall τ-b)"
        tables[title] = Table(
            ("strategy", "τ-b", "95 % interval", "p (one-sided)", "n", "of"),
            [_rank_row(row) for row in summary.ranks],
        )
    if summary.comparisons:
        tables["Strategies in pairs, over the seeds that both have"] = Table(
            ("pair", "n", "mean difference", "95 % interval", "p", "p (Holm)", IN_WORDS),
            [_comparison_row(row, summary.results.unit) for row in summary.comparisons],
        )
    if runs:
        tables["Runs"] = _runs(summary)
    return tables


def to_markdown(summary: Summary) -> str:
    """The whole summary as Markdown: verdict, what to know first, tables, stamp."""
    lines = [f"## {summary.results.title}", "", summary.verdict, ""]
    lines += [f"> {warning}\n>" for warning in summary.warnings]
    if summary.warnings:
        lines[-1] = lines[-1].removesuffix("\n>")
        lines.append("")
    for title, table in tables_of(summary).items():
        lines += [f"**{title}**", "", *markdown_table(table), ""]
    lines += [f"- {note}" for note in summary.results.notes]
    lines += [f"- {name}: {_code(name, value)}" for name, value in stamp_of(summary).items()]
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> list[str]:
    """The lines of a Markdown table: first column and words to the left, figures to the right."""
    left = {table.header[0], IN_WORDS}
    rule = ["---" if head in left else "---:" for head in table.header]
    return [_markdown_row(row) for row in (table.header, rule, *table.rows)]


def to_csv(summary: Summary) -> str:
    """One row a strategy, a rank correlation and a comparison; stamp in the last columns."""
    stamp = stamp_of(summary)
    own = {"n", "seeds"}
    named = [key for key in stamp if key not in own]
    shared = {key: stamp[key] for key in named}
    common = {"metric": summary.results.metric, "unit": summary.results.unit, **shared}
    warnings = " ".join(summary.warnings)
    rows: list[dict[str, Any]] = [
        {**common, **_strategy_values(strategy), "says": warnings}
        for strategy in summary.strategies
    ]
    for row in summary.given:
        figures = {"n": row.n, "mean": row.mean, "sd": row.sd}
        rows.append({"row": "given", "name": row.name, **figures})
    rows += [{**common, **_rank_values(rank)} for rank in summary.ranks]
    rows += [{**common, **_comparison_values(each)} for each in summary.comparisons]
    header = [*CSV_COLUMNS, *named]
    return csv_text([header, *([row.get(name, "") for name in header] for row in rows)])


def _strategies(summary: Summary) -> Table:
    metric = summary.results.metric
    has_best = any(row.best_epoch for row in summary.strategies)
    header = ["strategy", "n", "mean ± SD", "best", "worst"]
    header += ["best test epoch"] if has_best else []
    header += [f"{metric} in search", "parameters", "FLOPs", "search seconds"]
    told = any(row.evidence is not None for row in summary.strategies)
    header += [EVIDENCE] if told else []
    rows = []
    for row in summary.strategies:
        evidence = [_percent(row.evidence)] if told else []
        best = [_spread(row.best_epoch)] if has_best else []
        rows.append(
            [
                row.strategy,
                _count(row),
                _spread(row.test),
                _figure(row.test.best if row.test else None),
                _figure(row.test.worst if row.test else None),
                *best,
                _spread(row.search),
                _whole(row.parameters),
                _whole(row.flops),
                _whole(row.search_seconds),
                *evidence,
            ]
        )
    for given in summary.given:
        known = [_known(given.n), mean_text(given.mean, given.sd)]
        rows.append([given.name + GIVEN, *known, *[MISSING] * (len(header) - 3)])
    return Table(header, rows)


def _known(n: int | None) -> str:
    return MISSING if n is None else str(n)


def to_latex(summary: Summary) -> str:
    """The strategies as a LaTeX table of booktabs, the best mean in bold; rows given are marked.

    What it rests on stands above as comments and below as the caption.
    """
    results = summary.results
    named: list[tuple[str, float, float | None, str]] = [
        (_latex(row.strategy), row.test.mean, row.test.sd, str(row.test.n))
        for row in summary.strategies
        if row.test is not None
    ]
    for given in summary.given:
        n = "--" if given.n is None else str(given.n)
        named.append((_latex(given.name) + "$^\\dagger$", given.mean, given.sd, n))
    means = [mean for _, mean, _, _ in named]
    best = (max if results.higher_is_better else min)(means, default=None)
    rows = []
    for name, mean, sd, n in named:
        figure = f"{mean:.2f}"
        figure = f"\\mathbf{{{figure}}}" if mean == best else figure
        figure += "" if sd is None else f" \\pm {sd:.2f}"
        rows.append(f"    {name} & ${figure}$ & {n} \\\\")
    metric = f"{results.metric} ({results.unit})" if results.unit else results.metric
    caption = f"Mean $\\pm$ SD over $n$ seeds, test split, protocol {results.protocol}."
    caption += " $^\\dagger$Given, not run here." if summary.given else ""
    lines = [
        *(f"% {name}: {value}" for name, value in stamp_of(summary).items()),
        *(f"% note: {warning}" for warning in summary.warnings),
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_latex(results.title)}. {caption}}}",
        "  \\begin{tabular}{lrr}",
        "    \\toprule",
        f"    strategy & {_latex(metric)} & $n$ \\\\",
        "    \\midrule",
        *rows,
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(" ".join(line.splitlines()) for line in lines) + "\n"


def _latex(text: str) -> str:
    """A text with the characters escaped that mean something to LaTeX."""
    named = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "·": "$\\cdot$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
    return "".join(named.get(character, character) for character in text)


def _runs(summary: Summary) -> Table:
    metric = summary.results.metric
    header = ("run", f"{metric} in search", f"test {metric}", "parameters", "search seconds")
    return Table(
        header,
        [
            (
                trial.name,
                _figure(trial.search),
                _figure(trial.test),
                _whole(trial.parameters),
                _whole(trial.search_seconds),
            )
            for trial in summary.results.trials
        ],
    )


def _rank_row(row: RankRow) -> Sequence[str]:
    correlation = row.correlation
    name = "all, pooled" if row.strategy == POOLED else row.strategy
    of = "the figures" if row.of == "figures" else "the source's ranks"
    return (
        name,
        _figure(correlation.tau, 3),
        _interval(correlation.low, correlation.high, 2),
        _p(correlation.p_value),
        str(correlation.n),
        of,
    )


def _comparison_row(row: ComparisonRow, unit: str) -> Sequence[str]:
    difference, pair = row.difference, f"{row.first} over {row.second}"
    if difference is None:
        return (pair, "0", MISSING, MISSING, MISSING, MISSING, row.verdict)
    return (
        pair,
        str(difference.n),
        f"{difference.mean:+.2f} {unit}".rstrip(),
        _interval(difference.low, difference.high, 2),
        _p(difference.p_value),
        _p(row.p_holm),
        row.verdict,
    )


def _strategy_values(row: StrategySummary) -> dict[str, Any]:
    test = row.test
    return {
        "row": "strategy",
        "name": row.strategy,
        "n": test.n if test else 0,
        "seeds": _seeds(row.seeds),
        "mean": test.mean if test else None,
        "sd": test.sd if test else None,
        "best": test.best if test else None,
        "worst": test.worst if test else None,
        "best_epoch_mean": row.best_epoch.mean if row.best_epoch else None,
        "search_mean": row.search.mean if row.search else None,
        "search_sd": row.search.sd if row.search else None,
        "parameters": row.parameters,
        "flops": row.flops,
        "search_seconds": row.search_seconds,
        "evidence": row.evidence,
    }


def _rank_values(row: RankRow) -> Mapping[str, Any]:
    correlation = row.correlation
    return {
        "row": f"rank correlation of {row.of}",
        "name": row.strategy,
        "n": correlation.n,
        "tau": correlation.tau,
        "low": correlation.low,
        "high": correlation.high,
        "p_value": correlation.p_value,
    }


def _comparison_values(row: ComparisonRow) -> dict[str, Any]:
    difference = row.difference
    figures: dict[str, Any] = {"n": 0}
    if difference is not None:
        figures = {
            "n": difference.n,
            "mean": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p_value": difference.p_value,
            "p_holm": row.p_holm,
        }
    name = f"{row.first} over {row.second}"
    seeds = _seeds(row.seeds)
    return {"row": "comparison", "name": name, "seeds": seeds, **figures, "says": row.verdict}


def _seeds(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))


def _count(row: StrategySummary) -> str:
    n = row.test.n if row.test else 0
    return str(n) if n == row.asked else f"{n} of {row.asked}"


def _spread(spread: Spread | None) -> str:
    return MISSING if spread is None else spread_text(spread)


def _figure(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _whole(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f} %"


def _interval(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None:
        return MISSING
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _p(value: float | None) -> str:
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _code(name: str, value: str) -> str:
    return f"`{value}`" if name == "command" else value


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
