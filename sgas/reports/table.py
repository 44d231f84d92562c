"""The table beside a cell: each edge in order of decision with what spoke for it."""

from __future__ import annotations

from collections.abc import Sequence

from sgas.cells.decisions import Status
from sgas.deciding.schedule import shown_epoch
from sgas.reports.palette import Palette
from sgas.reports.story import EdgeStory
from sgas.reports.svg import FAINT, MUTED, Layer, Picture, disc, fit, number, tag, text

TABLE_WIDTH = 550.0
HEADER_HEIGHT = 26.0
NEXT = "#fff4d6"

_EDGE, _BARS, _BAR_LENGTH = 32.0, 128.0, 105.0
_NAME_ROOM = 190.0
_FIGURES = (366.0, 404.0, 442.0, 484.0, 528.0)


def row_height(story: EdgeStory) -> float:
    """The height of an edge's row: pruned edges need one line."""
    return 26.0 if story.status is Status.PRUNED else 42.0


def table_height(stories: Sequence[EdgeStory]) -> float:
    """The height of a table with its header."""
    return HEADER_HEIGHT + sum(map(row_height, stories))


def short(value: float) -> str:
    """A figure in [0, 1] with two digits and no leading zero: .44, 1.0, <.01."""
    if value >= 0.995:
        return f"{value:.1f}"
    if 0 < value < 0.005:
        return "<.01"
    return "0" if value == 0 else f"{value:.2f}".removeprefix("0")


def add_table(
    picture: Picture,
    stories: Sequence[EdgeStory],
    palette: Palette,
    x: float,
    y: float,
    upcoming: EdgeStory | None,
    next_epoch: int | None,
) -> None:
    """Adds a table, its upper left corner at (x, y); the `upcoming` decision's row is marked."""
    heads = ("#", "edge", "p(op | not none), best 3")
    for left, head in zip((11.0, _EDGE, _BARS), heads, strict=True):
        anchor = "middle" if head == "#" else None
        picture.add(text(x + left, y + 12, head, size=11, fill=MUTED, bold=True, anchor=anchor))
    for middle, head in zip(_FIGURES, ("I", "C", "S", "score", "epoch"), strict=True):
        picture.add(text(x + middle, y + 12, head, size=11, fill=MUTED, bold=True, anchor="middle"))
    top = y + HEADER_HEIGHT
    for story in stories:
        height = row_height(story)
        if story is upcoming:
            size = {"width": TABLE_WIDTH + 12, "height": height - 2, "rx": 6}
            mark = tag("rect", x=x - 8, y=top + 1, fill=NEXT, **size)
            picture.add(mark, layer=Layer.GROUND)
        epoch = _epoch_text(story, story is upcoming, next_epoch)
        _add_row(picture, story, palette, x, top + height / 2, epoch)
        top += height


def _epoch_text(story: EdgeStory, is_next: bool, next_epoch: int | None) -> str:
    if story.status is not Status.UNDECIDED:
        return str(story.epoch)
    return f"next: {shown_epoch(next_epoch)}" if is_next and next_epoch is not None else "–"


def _add_row(
    picture: Picture, story: EdgeStory, palette: Palette, x: float, middle: float, epoch: str
) -> None:
    pruned = story.status is Status.PRUNED
    values = (*story.factors.values(), story.score)
    figures = [(_FIGURES[-1], epoch)]
    if not pruned:
        figures += zip(_FIGURES, map(short, values), strict=False)
    picture.add(
        disc(x + 11, middle, story.sign, radius=10, hollow=story.status is not Status.DECIDED),
        tag(
            "g",
            text(_EDGE, 4, fit(story.name, _BARS - _EDGE - 6), size=12),
            tag("g", *_bars(story, palette), stroke_width=10),
            tag("g", *_bar_labels(story), font_size=9.5),
            tag("g", *(text(left, 4, figure) for left, figure in figures), text_anchor="middle"),
            transform=f"translate({number(x)} {number(middle)})",
            fill=MUTED if pruned else None,
        ),
    )


def _best(story: EdgeStory) -> list[tuple[float, str, float]]:
    """(y, operation, probability) of the bars of an edge: three, or one where it is pruned."""
    shown = story.ranking[:1] if story.status is Status.PRUNED else story.ranking[:3]
    top = -6 * (len(shown) - 1)
    return [(top + 12 * rank, *pair) for rank, pair in enumerate(shown)]


def _bar_length(prob: float) -> float:
    return max(round(prob * _BAR_LENGTH), 1)


def _bars(story: EdgeStory, palette: Palette) -> list[str]:
    pruned = story.status is Status.PRUNED
    return [
        tag(
            "path",
            d=f"M{number(_BARS)} {number(y)}h{number(_bar_length(prob))}",
            stroke=FAINT if pruned else palette.colour(operation),
        )
        for y, operation, prob in _best(story)
    ]


def _bar_labels(story: EdgeStory) -> list[str]:
    """The names of the bars with their probabilities; they take the size of their group."""
    markup = []
    for rank, (y, operation, prob) in enumerate(_best(story)):
        length = _bar_length(prob)
        label = f"{fit(operation, _NAME_ROOM - length, 9.5)} {short(prob)}"
        bold = rank == 0 and story.status is not Status.PRUNED
        markup.append(text(_BARS + length + 4, y + 3.5, label, bold=bold))
    return markup
