"""The scatter of two ranks: does the order in the search predict the order after training?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgas.reports.chart import Axes, add_frame, epoch_ticks
from sgas.reports.palette import COLOURS
from sgas.reports.svg import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    Layer,
    Picture,
    fit,
    number,
    tag,
    text,
    text_width,
    tooltip,
)
from sgas.studies.results import Trial
from sgas.studies.statistics import Correlation, ranks
from sgas.studies.summary import POOLED, Summary, ranked

MARGIN, LEFT, TOP, SIDE = 24.0, 74.0, 108.0, 420.0
ASIDE = 286.0
MOST_LABELS = 24
MOST_LABEL = 60.0  # of the width of one
MARK = 7.0
SHAPES = ("disc", "square", "triangle", "diamond")


def draw_ranks(summary: Summary) -> str:
    """SVG of all runs with both figures: place in the search across, place after training down.

    Place 1 is the best and stands in the upper left; equal figures share the mean of their places.
    A run on the dashed diagonal kept its place.
    """
    results = summary.results
    runs = ranked(results.trials)
    title = f"{Path(results.dataset).name} · rank in the search, rank after training"
    width = LEFT + SIDE + MARGIN + ASIDE
    picture = Picture(width, TOP + SIDE + 62, title, _words(summary, runs))
    under = f"{results.metric} of the supernet, and of the trained network on the test split"
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 17, bold=True), size=17, bold=True),
        text(MARGIN, 56, fit(under, width - 2 * MARGIN, 11), size=11, fill=MUTED),
        text(MARGIN, 74, "1 is the best; on the dashed line a run kept its place", fill=MUTED),
    )
    if not runs:
        picture.add(text(MARGIN, TOP + 20, "no run has both figures yet", size=13))
        picture.height = TOP + 44
        return picture.to_svg()
    last = max(len(runs), 2)
    axes = Axes(LEFT, TOP, SIDE, SIDE, (0.4, last + 0.6), (last + 0.6, 0.4))
    _add_axes(picture, axes, last)
    higher = results.higher_is_better
    across = ranks([run.search or 0.0 for run in runs], higher)
    down = ranks([run.test or 0.0 for run in runs], higher)
    labels: dict[tuple[float, float], list[str]] = {}  # of runs with the same places, one for all
    for place, run in enumerate(runs):
        x, y = axes.x(across[place]), axes.y(down[place])
        labels.setdefault((x, y), []).append(_add_run(picture, run, x, y, _index(summary, run)))
    if len(runs) <= MOST_LABELS:
        for (x, y), names in labels.items():
            shown = fit(", ".join(names), MOST_LABEL, 9.5)
            picture.add(text(x + MARK + 4, y - 4, shown, size=9.5, fill=MUTED))
    _add_legend(picture, summary, LEFT + SIDE + MARGIN, TOP)
    return picture.to_svg()


def _index(summary: Summary, run: Trial) -> int:
    return summary.results.strategies.index(run.strategy)


def _words(summary: Summary, runs: Sequence[Trial]) -> str:
    """The picture for those who hear it."""
    said = [f"{run.name}: {run.search:.2f} in the search, {run.test:.2f} after" for run in runs]
    return "; ".join([*_taus(summary), *said]) or "no run has both figures yet"


def _taus(summary: Summary) -> list[str]:
    return [
        f"{row.strategy}: τ {row.correlation.tau:.2f}"
        for row in summary.ranks
        if row.of == "figures" and row.correlation.tau is not None
    ]


def _add_axes(picture: Picture, axes: Axes, last: int) -> None:
    marks = epoch_ticks(1, last, 12) if last > 12 else list(range(1, last + 1))
    marks = sorted({1, *(mark for mark in marks if mark >= 1)})
    add_frame(picture, axes, marks, marks)
    first, end = (axes.x(0.4), axes.y(0.4)), (axes.x(last + 0.6), axes.y(last + 0.6))
    line = f"M{number(first[0])} {number(first[1])}L{number(end[0])} {number(end[1])}"
    picture.add(
        tag("path", d=line, stroke=FAINT, stroke_width=1.5, stroke_dasharray="6 5"),
        layer=Layer.GROUND,
    )
    middle = axes.left + axes.width / 2
    picture.add(
        text(middle, axes.bottom + 36, "place in the search", size=12, anchor="middle"),
        text(MARGIN, axes.top - 10, "place after training", size=12),
    )


def _add_run(picture: Picture, run: Trial, x: float, y: float, index: int) -> str:
    """Adds the mark of a run; its label."""
    said = f"{run.name}: {run.search:.2f} in the search, {run.test:.2f} after training"
    mark = mark_of(x, y, index)
    picture.add(tag("g", tooltip(said), mark), layer=Layer.NODES)
    return str(run.seed) if run.seed is not None else run.name.rpartition("-")[2]


def mark_of(x: float, y: float, index: int, colour: str | None = None) -> str:
    """A strategy's mark: shape and colour, or another `colour`, both tell it apart."""
    style: dict[str, str | float | None] = {
        "fill": colour or COLOURS[index % len(COLOURS)],
        "stroke": PAPER,
        "stroke_width": 1.2,
    }
    shape, r = SHAPES[index % len(SHAPES)], MARK
    if shape == "disc":
        return tag("circle", cx=x, cy=y, r=r, **style)
    if shape == "square":
        return tag("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, **style)
    if shape == "triangle":
        d = f"M{number(x)} {number(y - r)}l{number(r)} {number(1.9 * r)}h{number(-2 * r)}z"
    else:
        big = 1.25 * r
        d = f"M{number(x)} {number(y - big)}l{number(big)} {number(big)}"
        d += f"l{number(-big)} {number(big)}l{number(-big)} {number(-big)}z"
    return tag("path", d=d, **style)


def _add_legend(picture: Picture, summary: Summary, x: float, y: float) -> None:
    """Which mark is which strategy, with its τ; then what the numbers at the marks are."""
    by_name = {row.strategy: row.correlation for row in summary.ranks if row.of == "figures"}
    for index, strategy in enumerate(summary.results.strategies):
        picture.add(
            mark_of(x + 8, y + 8, index), text(x + 26, y + 12, strategy, size=12, bold=True)
        )
        x_tau = x + 34 + text_width(strategy, 12, bold=True)
        picture.add(text(x_tau, y + 12, _tau_text(by_name.get(strategy)), size=11, fill=INK))
        y += 28
    if POOLED in by_name:
        shown = f"all, pooled: {_tau_text(by_name[POOLED])}"
        picture.add(text(x, y + 12, fit(shown, ASIDE, 11), size=11))
        y += 28
    has_seeds = any(trial.seed is not None for trial in summary.results.trials)
    legend = "number: seed" if has_seeds else "number: the cell's number"
    picture.add(text(x, y + 12, f"{legend} · [ ]: 95 % interval", size=10.5, fill=MUTED))


def _tau_text(correlation: Correlation | None) -> str:
    if correlation is None or correlation.tau is None:
        return "τ –"
    tau, low, high = correlation.tau, correlation.low, correlation.high
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"τ {tau:.2f}{interval}"
