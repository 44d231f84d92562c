"""The figures of a study's runs: each strategy's seeds with their mean, and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sgas.reports.chart import Axes, add_frame, ticks
from sgas.reports.palette import NEUTRAL
from sgas.reports.svg import FAINT, INK, MUTED, Layer, Picture, fit, number, tag, text, tooltip
from sgas.studies.ranks import mark_of
from sgas.studies.results import Trial
from sgas.studies.summary import BASELINE, Summary

MARGIN, LEFT, TOP = 24.0, 150.0, 92.0
WIDTH, ROW, HEIGHT, GAP = 400.0, 46.0, 280.0, 110.0


def draw_figures(summary: Summary) -> str:
    """SVG of two charts: the seeds of each strategy, and the test figure against parameters.

    One run at least has a test figure. A bar is the 95 % interval of a mean (Student's t, of two
    seeds at least). Random cells are grey.
    """
    results = summary.results
    runs = [trial for trial in results.trials if trial.test is not None]
    costed = [trial for trial in runs if trial.parameters is not None]
    unit = f"{results.metric} {results.unit}".strip()
    title = f"{unit} on the test split"
    width = LEFT + WIDTH + (GAP + WIDTH if costed else 0) + 2 * MARGIN
    height = TOP + max(ROW * len(results.strategies), HEIGHT if costed else 0) + 50
    said = "; ".join(f"{run.name}: {run.test:.2f}" for run in runs)
    picture = Picture(width, height, title, said)
    subtitle = "a mark is a seed, the line their mean, the bar the 95 % interval of the mean"
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 17, bold=True), size=17, bold=True),
        text(MARGIN, 56, fit(subtitle, width - 2 * MARGIN, 11), size=11, fill=MUTED),
    )
    values = [run.test or 0.0 for run in runs]
    pad = 0.06 * (max(values) - min(values)) or 1.0
    span = min(values) - pad, max(values) + pad
    _add_seeds(picture, summary, runs, span)
    if costed:
        _add_costs(picture, summary, costed, span)
    return picture.to_svg()


def _add_seeds(
    picture: Picture, summary: Summary, runs: Sequence[Trial], span: tuple[float, float]
) -> None:
    """A row a strategy, marks where the figures of its seeds are."""
    strategies = summary.results.strategies
    axes = Axes(LEFT, TOP, WIDTH, ROW * len(strategies), span)
    add_frame(picture, axes, ticks(*span, 6), [])
    for index, strategy in enumerate(strategies):
        y = TOP + (index + 0.5) * ROW
        own = [run for run in runs if run.strategy == strategy]
        picture.add(
            text(LEFT - 12, y + 4, fit(strategy, LEFT - MARGIN - 12), size=12, anchor="end")
        )
        mean, low, high = mean_interval([run.test or 0.0 for run in own])
        if low is not None and high is not None:
            left, right = (axes.x(min(max(value, span[0]), span[1])) for value in (low, high))
            bar = f"M{number(left)} {number(y)}H{number(right)}"
            picture.add(tag("path", d=bar, stroke=FAINT, stroke_width=10), layer=Layer.LINES)
        for run in own:
            _add_run(picture, run, axes.x(run.test or 0.0), y, index)
        if mean is not None:
            line = f"M{number(axes.x(mean))} {number(y - 15)}v30"
            picture.add(tag("path", d=line, stroke=INK, stroke_width=2), layer=Layer.NODES)


def _add_costs(
    picture: Picture, summary: Summary, runs: Sequence[Trial], span: tuple[float, float]
) -> None:
    """The figures over parameters, random cells first, so that the others stand on them."""
    millions = [(run.parameters or 0) / 1e6 for run in runs]
    pad = 0.06 * (max(millions) - min(millions)) or max(millions) * 0.1
    across = max(min(millions) - pad, 0.0), max(millions) + pad
    axes = Axes(LEFT + WIDTH + GAP, TOP, WIDTH, HEIGHT, across, span)
    add_frame(picture, axes, ticks(*across, 6), ticks(*span, 6))
    middle = axes.left + axes.width / 2
    picture.add(text(middle, axes.bottom + 34, "million parameters", size=12, anchor="middle"))
    ordered = sorted(
        zip(runs, millions, strict=True), key=lambda pair: pair[0].strategy != BASELINE
    )
    for run, cost in ordered:
        index = summary.results.strategies.index(run.strategy)
        _add_run(picture, run, axes.x(cost), axes.y(run.test or 0.0), index)


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The mean, and the ends of its 95 % interval by Student's t; None where there are too few."""
    if len(values) < 2:
        return (values[0] if values else None), None, None
    from scipy.stats import t

    mean, n = statistics.fmean(values), len(values)
    reach = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
    return mean, mean - reach, mean + reach


def _add_run(picture: Picture, run: Trial, x: float, y: float, index: int) -> None:
    colour = NEUTRAL if run.strategy == BASELINE else None
    cost = "" if run.parameters is None else f", {run.parameters:,} parameters"
    said = tooltip(f"{run.name}: {run.test:.2f}{cost}")
    picture.add(tag("g", said, mark_of(x, y, index, colour)), layer=Layer.NODES)
