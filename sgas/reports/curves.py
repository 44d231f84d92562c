"""Charts of a search: the photo finish of each decision, and its training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from sgas.cells.space import SearchSpace
from sgas.deciding.evidence import in_words
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.reports.chart import Axes, add_frame, curve, epoch_ticks, thin, tick_text, ticks
from sgas.reports.palette import COLOURS, DASHES, palette_for
from sgas.reports.story import decisions_in, factors_of, topology_of
from sgas.reports.svg import (
    FAINT,
    INK,
    MUTED,
    Layer,
    Picture,
    Style,
    disc,
    fit,
    number,
    tag,
    text,
    text_width,
)

MARGIN, TOP = 24.0, 76.0
BAR_LEFT, BAR_WIDTH, BAR_ROW, ASIDE = 270.0, 360.0, 40.0, 420.0
PANEL_WIDTH, PANEL_HEIGHT, GAP, MOST_BESIDE = 500.0, 220.0, 64.0, 2
MOST_POINTS = 400


def draw_margin(
    records: Sequence[EpochRecord],
    space: SearchSpace,
    groups: Mapping[str, str] | None = None,
) -> str:
    """SVG of the photo finish: at each decision the winner's score over the runner-up's.

    `records` are all of one kind of cell, in order of epochs.
    """
    topology, decisions = topology_of(records, space), decisions_in(records)
    palette = palette_for(space.operations, groups)
    title = f"{records[-1].cell} cell · photo finish: margin to the runner-up"
    width = BAR_LEFT + BAR_WIDTH + ASIDE + MARGIN
    said = "; ".join(f"decision {n}: {_margin(r)}" for n, r in enumerate(decisions, 1))
    picture = Picture(width, TOP + len(decisions) * BAR_ROW + 16, title, said or "no decision yet")
    subtitle = (
        "score of the edge that was decided, and of the open edge that came second · I importance, "
        "C certainty, S stability as they are multiplied"
    )
    highest = max((max(row.score[row.edge or 0], 0) for row in decisions), default=0) or 1.0
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 17, bold=True), size=17, bold=True),
        text(
            MARGIN,
            56,
            fit(subtitle if decisions else "no decision yet", width - 2 * MARGIN, 11),
            size=11,
            fill=MUTED,
        ),
    )
    for index, record in enumerate(decisions):
        assert record.edge is not None
        middle = TOP + (index + 0.5) * BAR_ROW
        name = topology.edge_name(topology.edges[record.edge])
        second = record.runner_up
        rival = "" if second is None else topology.edge_name(topology.edges[second])
        colour = palette.colour(record.op or "")
        _add_finish(picture, record, index + 1, (name, rival), colour, middle, highest)
    return picture.to_svg()


def draw_curves(
    metrics: Sequence[Mapping[str, float]],
    panels: Mapping[str, Sequence[str]],
    marked_epochs: Sequence[int] = (),
) -> str:
    """SVG of training curves: one panel a title, one line a key of `metrics`, some epochs marked.

    A metric's epoch is its `epoch`, or its place in the sequence; these and `marked_epochs`
    (those of decisions, or the one that is kept) count from 0. Values that are missing or not
    finite leave a gap.
    """
    epochs = [shown_epoch(int(row.get("epoch", place))) for place, row in enumerate(metrics)]
    marked = [shown_epoch(epoch) for epoch in marked_epochs]
    first = min(epochs, default=shown_epoch(0))
    x_range = first, max([first + 1, *epochs])
    beside, row_height = min(max(len(panels), 1), MOST_BESIDE), TOP + PANEL_HEIGHT + 56
    width = 2 * MARGIN + 30 + beside * (PANEL_WIDTH + GAP) - GAP
    title = "training curves · " + ", ".join(panels)
    said = f"epochs {x_range[0]} to {x_range[1]}; marks at {marked}"
    picture = Picture(width, max(math.ceil(len(panels) / beside), 1) * row_height, title, said)
    for index, (name, keys) in enumerate(panels.items()):
        row, column = divmod(index, beside)
        left, top = MARGIN + 30 + column * (PANEL_WIDTH + GAP), row * row_height
        lines = {key: _finite_runs(metrics, epochs, key) for key in keys}
        values = [y for runs in lines.values() for run in runs for _, y in run]
        y_range = _padded(values)
        axes = Axes(left, top + TOP, PANEL_WIDTH, PANEL_HEIGHT, x_range, y_range)
        add_frame(picture, axes, epoch_ticks(*x_range, 9), ticks(*y_range, 6))
        picture.add(text(left, top + 30, fit(name, PANEL_WIDTH, 14, bold=True), size=14, bold=True))
        _add_lines(picture, axes, lines, f"_{name}")
        _add_marks(picture, axes, marked)
    return picture.to_svg()


def _margin(record: EpochRecord) -> str:
    if record.margin is None:
        return "no rival left"
    if record.margin == 0:
        return "tie"
    assert record.edge is not None and record.runner_up is not None
    first, second = (round(record.score[edge], 3) for edge in (record.edge, record.runner_up))
    return f"margin {first - second:.3f}"


def _score(record: EpochRecord, edge: int) -> str:
    """A score, and what it is the product of where it is that of a criterion."""
    score, factors = record.score[edge], factors_of(record, edge)
    names = [*factors]
    for used in (names, names[:2]):
        if math.isclose(math.prod(factors[name] for name in used), score, abs_tol=1e-6):
            product = " × ".join(f"{name} {factors[name]:.3f}" for name in used)
            return f"{score:.3f} = {product}"
    return f"{score:.3f}"


def _add_finish(
    picture: Picture,
    record: EpochRecord,
    order: int,
    names: tuple[str, str],
    colour: str,
    middle: float,
    highest: float,
) -> None:
    """One decision: two bars, the winner's in the colour of its operation, and the margin.

    `names` are the edge that was decided and the one that came second; a bar of the `highest` score
    fills its place.
    """
    assert record.edge is not None
    name, rival = names
    length = max(BAR_WIDTH * max(record.score[record.edge], 0) / highest, 1.5)
    label = fit(f"{name} = {record.op}", BAR_LEFT - MARGIN - 40)
    picture.add(
        disc(MARGIN + 11, middle, str(order)),
        text(MARGIN + 30, middle + 4, label, size=12),
        tag("rect", x=BAR_LEFT, y=middle - 12, width=length, height=12, fill=colour),
        text(BAR_LEFT + length + 6, middle - 2.5, _score(record, record.edge), size=10),
    )
    if record.runner_up is not None:
        second = max(record.score[record.runner_up], 0)
        behind = max(BAR_WIDTH * min(second / highest, 1), 1.5)
        second_text = fit(f"{_score(record, record.runner_up)} · {rival}", 290, 10)
        picture.add(
            tag("rect", x=BAR_LEFT, y=middle + 2, width=behind, height=9, fill=FAINT),
            text(BAR_LEFT + behind + 6, middle + 10, second_text, size=10, fill=MUTED),
        )
    x = BAR_LEFT + BAR_WIDTH + ASIDE
    evidence = in_words(record.evidence)
    picture.add(
        text(x, middle - 2, _margin(record), size=11, anchor="end", bold=True),
        text(x, middle + 11, evidence, size=10, anchor="end", fill=MUTED),
    )


def _finite_runs(
    metrics: Sequence[Mapping[str, float]], epochs: Sequence[int], key: str
) -> list[list[tuple[int, float]]]:
    """The points of a curve, cut where a value is missing or not finite."""
    runs: list[list[tuple[int, float]]] = [[]]
    for epoch, row in zip(epochs, metrics, strict=True):
        value = row.get(key)
        if value is not None and math.isfinite(value):
            runs[-1].append((epoch, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low <= pad else low - pad), high + pad


def _add_lines(
    picture: Picture,
    axes: Axes,
    lines: Mapping[str, Sequence[Sequence[tuple[int, float]]]],
    of_title: str,
) -> None:
    """The curves of one panel, and above it which is which with the last value.

    Names are told without `of_title`, the end that says what the title does.
    """
    x, above = axes.left, axes.top - TOP
    room = (PANEL_WIDTH + GAP) / max(len(lines), 1) - 100
    for index, (key, runs) in enumerate(lines.items()):
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        style: Style = {
            "stroke": colour,
            "stroke_width": 2,
            "stroke_dasharray": dash,
        }
        for run in runs:
            points = [(axes.x(epoch), axes.y(value)) for epoch, value in thin(run, MOST_POINTS)]
            picture.add(curve(points, style), layer=Layer.NODES)
        last = f" {tick_text(runs[-1][-1][1])}" if runs else " –"
        label = fit(key.removesuffix(of_title), room, 11) + last
        picture.add(
            tag("path", d=f"M{number(x)} {number(above + 46)}h24", fill="none", **style),
            text(x + 30, above + 50, label, size=11),
        )
        x += 30 + text_width(label, 11) + 20


def _add_marks(picture: Picture, axes: Axes, epochs: Sequence[int]) -> None:
    """Dotted lines, with numbered discs where they have room beside each other."""
    marks = [axes.x(epoch) for epoch in epochs]
    room = min((right - left for left, right in pairwise(marks)), default=axes.width)
    radius = min(9.0, room / 2 - 0.5)
    for order, epoch in enumerate(epochs, start=1):
        if axes.x_range[0] <= epoch <= axes.x_range[1]:
            x = axes.x(epoch)
            mark = f"M{number(x)} {number(axes.top)}v{number(axes.height)}"
            line = tag("path", d=mark, stroke=INK, stroke_width=1, stroke_dasharray="2 4")
            picture.add(line, layer=Layer.LINES)
            if radius >= 5:
                picture.add(disc(x, axes.top - 4, str(order), radius=radius))
