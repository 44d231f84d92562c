"""Colours of operations that colour-blind readers can tell apart: the palette of Okabe and Ito.

Colours follow from the position of an operation (or of its group) alone, after what all families
share: the same space has the same colours in every picture. Dashes tell apart what shares a colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sgas.cells.space import NONE
from sgas.reports.svg import BLACK, IN_THE_DARK, INK, PAPER, WHITE, Picture, tag, text, text_width

# Yellow is darkened, black is grey: lines of the originals cannot be seen on white, or in the dark.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#767676",
    "#dccb1f",
)
DASHES = (None, "6 3", "2 2", "9 3 2 3")
NEUTRAL = "#9aa0a8"
SHARED = "skip"  # the group that all families have comes first: it has one colour in all of them


@dataclass(frozen=True)
class Palette:
    """The colour and the dash of each operation, and the legend's groups with their colours."""

    colours: Mapping[str, str]
    dashes: Mapping[str, str | None]
    legend: tuple[tuple[str, str], ...]

    def colour(self, operation: str) -> str:
        """The operation's colour; grey for `none` and for a name that the palette does not know."""
        return self.colours.get(operation, NEUTRAL)


def palette_for(operations: Sequence[str], groups: Mapping[str, str] | None = None) -> Palette:
    """The palette of a space: one colour a group, where an operation without one is its own.

    `operations` in the order of the columns; `none` is grey and not in the legend.
    """
    members: dict[str, list[str]] = {}
    for operation in sorted(operations, key=lambda name: (groups or {}).get(name) != SHARED):
        if operation != NONE:
            members.setdefault((groups or {}).get(operation, operation), []).append(operation)
    colours, legend = {NONE: NEUTRAL}, []
    dashes: dict[str, str | None] = {NONE: DASHES[2]}
    for position, (group, names) in enumerate(members.items()):
        legend.append((group, _colour_at(position)))
        for rank, name in enumerate(names):
            colours[name] = _colour_at(position)
            dashes[name] = DASHES[(position + rank) % len(DASHES)]
    return Palette(colours, dashes, tuple(legend))


def ink_on(colour: str, opacity: float) -> str:
    """Black or white, whichever reads better on a colour laid over the paper with an opacity.

    A weak colour is nearly the paper: what stands on it turns from black to white in the dark.
    """
    light, dark = (_contrast(colour, opacity, paper) for paper in (PAPER, IN_THE_DARK[PAPER]))
    return light if light == dark else INK


def _contrast(colour: str, opacity: float, paper: str) -> str:
    """Black or white on a colour laid over the paper, by the brightness of ITU-R BT.601."""
    red, green, blue = (
        ground + opacity * (channel - ground)
        for channel, ground in zip(_channels(colour), _channels(paper), strict=True)
    )
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE


def add_legend(
    picture: Picture, palette: Palette, x: float, y: float, right: float, dashed: bool = False
) -> float:
    """The y below a legend that starts at (x, y) and wraps before `right`.

    `dashed` shows each operation as its line; otherwise each group is a square.
    """
    left = x
    entries = (
        [(name, palette.colour(name)) for name in palette.dashes] if dashed else palette.legend
    )
    for name, colour in entries:
        mark = 30 if dashed else 14
        width = mark + 6 + text_width(name, 11)
        if x > left and x + width > right:
            x, y = left, y + 20
        if dashed:
            line = {"stroke_width": 2.2, "stroke_dasharray": palette.dashes[name]}
            picture.add(
                tag("path", d=f"M{x:.0f} {y + 6:.0f}h26", stroke=colour, fill="none", **line)
            )
        else:
            picture.add(tag("rect", x=x, y=y, width=12, height=12, rx=2, fill=colour))
        picture.add(text(x + mark + 4, y + 10, name, size=11))
        x += width + 22
    return y + 20


def _colour_at(position: int) -> str:
    """The colour of a position; each round through the palette is darker than the one before."""
    rounds, index = divmod(position, len(COLOURS))
    darker = (round(channel * 0.55**rounds) for channel in _channels(COLOURS[index]))
    return "#" + "".join(f"{channel:02x}" for channel in darker)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
