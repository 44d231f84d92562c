"""How the alphas moved: one panel an edge, one line an operation, up to the edge's decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sgas.cells.decisions import Status
from sgas.cells.space import SearchSpace
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.reports.chart import Axes, add_frame, curve, epoch_ticks, simplify, thin, ticks
from sgas.reports.palette import Palette, add_legend, palette_for
from sgas.reports.story import EdgeStory, edge_stories, softmax
from sgas.reports.svg import (
    INK,
    MUTED,
    PAPER,
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
PANEL_WIDTH, PANEL_HEIGHT, GAP_X, GAP_Y = 340.0, 118.0, 46.0, 64.0
MOST_POINTS = 64


def draw_alphas(
    records: Sequence[EpochRecord],
    space: SearchSpace,
    groups: Mapping[str, str] | None = None,
) -> str:
    """SVG of softmax(alphas) of each edge over the epochs, all panels on one scale.

    `records` are all of one kind of cell, in order of epochs. Lines end where their edge is decided
    (black disc) or pruned.
    """
    stories = edge_stories(records, space)
    palette = palette_for(space.operations, groups)
    columns = 3 if len(stories) <= 9 else 4
    title = f"{records[-1].cell} cell · how the alphas moved"
    said = "; ".join(f"{story.name}: {_outcome(story)}" for story in stories)
    width = 2 * MARGIN + columns * (PANEL_WIDTH + GAP_X) - GAP_X + 20
    picture = Picture(width, 0, title, said)
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 17, bold=True), size=17, bold=True),
        text(MARGIN, 56, "softmax over all operations · disc = decision", size=11, fill=MUTED),
    )
    lines = {story.edge.index: _lines(records, story) for story in stories}
    values = [prob for line in lines.values() for _, row in line for prob in row]
    pad = 0.06 * (max(values) - min(values)) or 0.01
    probs = max(min(values) - pad, 0.0), min(max(values) + pad, 1.0)
    first, last = shown_epoch(records[0].epoch), shown_epoch(records[-1].epoch)
    epochs = first, max(last, first + 1)
    for index, story in enumerate(stories):
        row, column = divmod(index, columns)
        axes = Axes(
            MARGIN + 20 + column * (PANEL_WIDTH + GAP_X),
            TOP + 26 + row * (PANEL_HEIGHT + GAP_Y),
            PANEL_WIDTH,
            PANEL_HEIGHT,
            epochs,
            probs,
        )
        _add_panel(picture, axes, story, lines[story.edge.index], space, palette)
    rows = -(-len(stories) // columns)
    bottom = TOP + rows * (PANEL_HEIGHT + GAP_Y)
    foot = add_legend(picture, palette, MARGIN, bottom, width - MARGIN, dashed=True)
    picture.height = foot + 6
    return picture.to_svg()


def _lines(records: Sequence[EpochRecord], story: EdgeStory) -> list[tuple[int, list[float]]]:
    """(epoch from 1, probabilities) of an edge until it is decided or pruned."""
    alive = [record for record in records if record.epoch <= story.record.epoch]
    return [
        (shown_epoch(record.epoch), softmax(record.alphas[story.edge.index]))
        for record in thin(alive, MOST_POINTS)
    ]


def _add_winner(picture: Picture, axes: Axes, end: tuple[float, float], operation: str) -> None:
    """The name of the operation that leads in the end, at the end of its line."""
    shown = fit(operation, axes.width, 10, bold=True)
    width = text_width(shown, 10, bold=True)
    right = max(end[0] - 5, axes.left + width)
    y = end[1] - 5 if end[1] > axes.top + 22 else end[1] + 14
    ground: Style = {"fill": PAPER, "fill_opacity": ".8", "rx": 3}
    picture.add(
        tag("rect", x=right - width, y=y - 9, width=width, height=12, **ground),
        text(right, y, shown, size=10, bold=True, anchor="end"),
    )


def _outcome(story: EdgeStory) -> str:
    if story.status is Status.PRUNED:
        return "pruned"
    return story.operation if story.status is Status.DECIDED else f"open, {story.operation} leads"


def _add_panel(
    picture: Picture,
    axes: Axes,
    story: EdgeStory,
    lines: Sequence[tuple[int, list[float]]],
    space: SearchSpace,
    palette: Palette,
) -> None:
    first, last = axes.x_range
    add_frame(picture, axes, epoch_ticks(int(first), int(last), 6), ticks(*axes.y_range, 4))
    title = fit(f"{story.name}: {_outcome(story)}", axes.width, 12, bold=True)
    fill = MUTED if story.status is Status.PRUNED else INK
    picture.add(text(axes.left, axes.top - 15, title, size=12, bold=True, fill=fill))
    for column in reversed(range(len(space.operations))):
        operation = space.operations[column]
        drawn = [(axes.x(epoch), axes.y(probs[column])) for epoch, probs in lines]
        points = simplify(drawn, 0.8)
        is_best = operation == story.operation
        style: Style = {
            "stroke": palette.colour(operation),
            "stroke_width": 2.6 if is_best else 1.3,
            "stroke_dasharray": palette.dashes.get(operation),
        }
        layer = Layer.NODES if is_best else Layer.LINES
        picture.add(curve(points, style), layer=layer)
        if is_best and story.status is not Status.PRUNED:
            _add_winner(picture, axes, points[-1], operation)
    if story.status is Status.UNDECIDED:
        return
    x = axes.x(story.epoch)
    mark = f"M{number(x)} {number(axes.top)}v{number(axes.height)}"
    dash = None if story.status is Status.DECIDED else "2 3"
    picture.add(tag("path", d=mark, stroke=INK, stroke_width=1, stroke_dasharray=dash))
    hollow = story.status is not Status.DECIDED
    picture.add(disc(x, axes.top, story.sign, radius=8.5, hollow=hollow))
