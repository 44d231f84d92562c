"""The confusion matrix of a part: which class was taken for which.

Dimensions: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgas.reports.palette import COLOURS, ink_on
from sgas.reports.svg import (
    MUTED,
    PAPER,
    Layer,
    Picture,
    Style,
    fit,
    tag,
    text,
    text_width,
    tooltip,
)

MARGIN, TOP, LEAST_WIDTH = 24.0, 104.0, 440.0
FIELD, NARROW = 34.0, 20.0
MOST_NUMBERED = 16  # classes: more, and the fields are too narrow for figures
MOST_CLASSES = 60
RIGHT, WRONG = COLOURS[0], COLOURS[1]
LONGEST = 150.0


def draw_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> str:
    """SVG: one row a true class, one column a predicted one; strength is the share of the row.

    `counts` `[K, K]` of at most `MOST_CLASSES` classes.
    """
    size = FIELD if len(classes) <= MOST_NUMBERED else NARROW
    numbered = [f"{n} {name}" if name != str(n) else name for n, name in enumerate(classes)]
    names = [fit(name, LONGEST, 11) for name in numbered]
    left = MARGIN + max(text_width(name, 11) for name in names) + 10
    wide = left + size * len(classes) + MARGIN + 50
    width, height = max(wide, LEAST_WIDTH), TOP + size * len(classes) + 16
    right = sum(counts[number][number] for number in range(len(classes)))
    total = sum(map(sum, counts))
    picture = Picture(width, height, title, f"{right} of {total} right; {_words(counts, classes)}")
    subtitle = "row: true class · column: predicted · strength: share of the row"
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 15, bold=True), size=15, bold=True),
        text(MARGIN, 54, fit(subtitle, width - 2 * MARGIN, 11), size=11, fill=MUTED),
        text(left + size * len(classes) + 8, TOP - 10, "right", size=10, fill=MUTED),
    )
    for number, name in enumerate(names):
        x, y = left + (number + 0.5) * size, TOP + (number + 0.5) * size + 4
        row = sum(counts[number])
        share = f"{100 * counts[number][number] / row:.0f} %" if row else "–"
        picture.add(
            text(left - 8, y, name, size=11, anchor="end"),
            text(x, TOP - 10, str(number), size=10, fill=MUTED, anchor="middle"),
            text(left + size * len(classes) + 8, y, share, size=10, fill=MUTED),
        )
        for column, count in enumerate(counts[number]):
            if count:
                said = f"{classes[number]} taken for {classes[column]}: {count} of {row}"
                colour = RIGHT if column == number else WRONG
                at = left + column * size, TOP + number * size
                _add_field(picture, at, size, colour, count, count / row, said)
    return picture.to_svg()


def _add_field(
    picture: Picture,
    at: tuple[float, float],
    size: float,
    colour: str,
    count: int,
    share: float,
    said: str,
) -> None:
    (x, y), strength = at, 0.15 + 0.85 * share
    side: Style = {"x": x + 1, "y": y + 1, "width": size - 2, "height": size - 2, "rx": 3}
    ground = tag("rect", fill=PAPER, **side)
    parts = [
        tooltip(said),
        ground,
        tag("rect", fill=colour, fill_opacity=f"{strength:.2f}", **side),
    ]
    if size == FIELD:
        middle = x + size / 2, y + size / 2 + 4
        ink = ink_on(colour, strength)
        label = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
        parts.append(text(*middle, label, size=10, fill=ink, bold=True, anchor="middle"))
    picture.add(tag("g", *parts), layer=Layer.NODES)


def _words(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    wrong = [
        (count, classes[row], classes[column])
        for row, of_row in enumerate(counts)
        for column, count in enumerate(of_row)
        if count and row != column
    ]
    worst = sorted(wrong, key=lambda each: -each[0])[:5]
    return "; ".join(f"{true} taken for {other}: {count}" for count, true, other in worst)
