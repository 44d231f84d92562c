"""Pictures as SVG text: elements, painting order, text that fits, dark where a reader asks so.

Lengths are in user units, one a CSS pixel at natural size. Nothing in a picture refers to anything
else, so that several of them can stand in one HTML file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import TypeAlias
from xml.sax.saxutils import escape, quoteattr

INK = "#222222"
MUTED = "#5a6068"
FAINT = "#c3c8cf"
PAPER = "#ffffff"
GRID, RIM = "#e8eaed", "#333333"
WHITE, BLACK = "#fefefe", "#212121"  # the same in the dark: on the colours of tiles
BASE_SIZE = 11.0
FONT = "DejaVu Sans,Verdana,Arial,sans-serif"

# What of a picture another colour has in the dark. Colours of operations stay.
IN_THE_DARK = {
    INK: "#e6e9ee",
    MUTED: "#a3abb6",
    FAINT: "#4b535e",
    PAPER: "#1b1f25",
    GRID: "#2e343c",
    RIM: "#8d96a2",
    "#dce9f5": "#213a52",  # inputs
    "#f6e4b8": "#54461c",  # outputs
    "#fff4d6": "#3a3320",  # the next decision
    "#e6e8ec": "#2a3038",  # pruned
}
DARK_RULES = "".join(
    f'svg [{name}="{light}"]{{{name}:{dark}}}'
    for light, dark in IN_THE_DARK.items()
    for name in ("fill", "stroke")
)
DARK = f"@media(prefers-color-scheme:dark){{svg{{fill:{IN_THE_DARK[INK]}}}{DARK_RULES}}}"

Style: TypeAlias = dict[str, str | float | None]

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW, _WIDE = set("iljtfr.,:;'|!()[] ·"), set("mwMW@%→…")


class Layer(IntEnum):
    """What is painted over what, lowest first."""

    GROUND = 0
    LINES = 1
    NODES = 2
    LABELS = 3


def number(value: float) -> str:
    """The shortest text of a length, to a tenth: 3, 2.5, .5, -1.2."""
    text = f"{value:.1f}".removesuffix(".0")
    if text == "-0":
        return "0"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def plain(text: str) -> str:
    """The text with every character that XML forbids replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def tag(name: str, *children: str, **attributes: str | float | None) -> str:
    """One element; `children` are markup, attribute values are escaped, None leaves one out."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else number(value)
            parts.append(f"{key.replace('_', '-')}={quoteattr(plain(shown))}")
    head = " ".join(parts)
    return f"<{head}>{''.join(children)}</{name}>" if children else f"<{head}/>"


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: float = BASE_SIZE,
    fill: str = INK,
    bold: bool = False,
    anchor: str | None = None,
) -> str:
    """Text with its baseline at y; `anchor` is None (x is its start), `middle` or `end`."""
    return tag(
        "text",
        escape(plain(content)),
        x=x,
        y=y,
        font_size=None if size == BASE_SIZE else size,
        fill=None if fill == INK else fill,
        font_weight="bold" if bold else None,
        text_anchor=anchor,
    )


def tooltip(content: str) -> str:
    """The title of a group: read aloud, and shown under a resting pointer."""
    return tag("title", escape(plain(content)))


def disc(x: float, y: float, content: str, *, radius: float = 11, hollow: bool = False) -> str:
    """A disc with a short text in it: black with white text, or hollow with black text."""
    return tag(
        "circle",
        cx=x,
        cy=y,
        r=radius,
        fill=PAPER if hollow else INK,
        stroke=INK,
        stroke_width=1.5,
    ) + text(
        x,
        y + radius * 0.38,
        content,
        size=radius * (1.1 if len(content) < 2 else 0.95),
        fill=INK if hollow else PAPER,
        bold=True,
        anchor="middle",
    )


def text_width(content: str, size: float = 12, bold: bool = False) -> float:
    """About how wide a text is, on the safe side for the widest font of `FONT`."""
    ems = sum(0.4 if c in _NARROW else 1.0 if c in _WIDE else 0.64 for c in content)
    return ems * size * (1.1 if bold else 1.0)


def fit(content: str, width: float, size: float = 12, bold: bool = False) -> str:
    """The text, shortened with … until it is at most `width` wide."""
    if text_width(content, size, bold) <= width:
        return content
    while content and text_width(content + "…", size, bold) > width:
        content = content[:-1]
    return content + "…"


def wrap(parts: Sequence[str], width: float, size: float = 12) -> list[str]:
    """Lines of parts joined by a dot, each at most `width` wide where a single part allows it."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]} · {part}" if lines else part
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Path data through points, in relative moves of a tenth, which are short."""
    tenths = [(round(x * 10), round(y * 10)) for x, y in points]
    start = tenths[0]
    moves = [
        f"{number((x - last_x) / 10)} {number((y - last_y) / 10)}"
        for (last_x, last_y), (x, y) in pairwise(tenths)
    ]
    return f"M{number(start[0] / 10)} {number(start[1] / 10)}l{' '.join(moves) or '0 0'}"


@dataclass
class Picture:
    """A picture in the making: its size, what it says in words, and its elements by layer."""

    width: float
    height: float
    title: str
    description: str
    elements: list[tuple[Layer, str]] = field(default_factory=list)

    def add(self, *markup: str, layer: Layer = Layer.LABELS) -> None:
        """Puts elements on a layer, over what the layer holds already."""
        self.elements += [(layer, element) for element in markup]

    def to_svg(self) -> str:
        """The whole SVG element, painted layer by layer."""
        ordered = sorted(self.elements, key=lambda pair: pair[0])
        return document(self, "\n".join(element for _, element in ordered))


def document(picture: Picture, body: str) -> str:
    """An SVG element of the size and with the words of `picture` around painted elements."""
    width, height = number(picture.width), number(picture.height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="{FONT}" '
        f'font-size="{number(BASE_SIZE)}" fill="{INK}" role="img">'
        f"<title>{escape(plain(picture.title))}</title>"
        f"<desc>{escape(plain(picture.description))}</desc>"
        f"<style>{DARK}</style>"
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )


def merge_frames(frames: Sequence[Picture]) -> str:
    """One SVG of several pictures of equal size: what frames share is stored once.

    An element that is not in all frames stands in a group whose `data-frames` lists its frames;
    the last frame is the visible one.
    """
    places: dict[tuple[Layer, str], list[int]] = {}
    for index, frame in enumerate(frames):
        for pair in dict.fromkeys(frame.elements):
            places.setdefault(pair, []).append(index)
    by_frames: dict[tuple[Layer, tuple[int, ...]], list[str]] = {}
    for (layer, element), indices in places.items():
        by_frames.setdefault((layer, tuple(indices)), []).append(element)
    body, last = [], len(frames) - 1
    for (_, shown_in), elements in sorted(by_frames.items(), key=lambda item: item[0][0]):
        if len(shown_in) == len(frames):
            body += elements
        else:
            shown = " ".join(map(str, shown_in))
            hidden = None if last in shown_in else "none"
            body.append(tag("g", *elements, data_frames=shown, display=hidden))
    return document(frames[-1], "\n".join(body))
