"""Our own SVG pictures as pixels, for viewers that take nothing else. Needs Pillow.

This draws what `svg.py` writes and no more: rectangles, circles, text, and paths of M L H V C Z,
with strokes, dashes, opacity over white, and groups that are moved. Dimensions: height H, width W.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

SUPERSAMPLED = 2  # drawn larger and reduced, which smooths the edges
CURVE_STEPS = 24
INHERITED = ("fill", "stroke", "stroke-width", "font-size", "font-weight", "text-anchor")
ANCHORS = {"middle": "ms", "end": "rs"}

Point: TypeAlias = tuple[float, float]
Attributes: TypeAlias = Mapping[str, str]
Shade: TypeAlias = tuple[int, int, int]


def rasterise(svg: str) -> NDArray[np.uint8]:
    """The picture of an SVG text of ours, uint8 `[H, W, 3]`, hidden groups left out."""
    from PIL import Image, ImageDraw

    root = ElementTree.fromstring(svg)
    width, height = (round(float(root.attrib[name])) for name in ("width", "height"))
    large = (width * SUPERSAMPLED, height * SUPERSAMPLED)
    image = Image.new("RGB", large, "white")
    painter = _Painter(ImageDraw.Draw(image))
    painter.paint(root, {})
    return np.asarray(image.reduce(SUPERSAMPLED))


class _Painter:
    """Paints elements one after the other; attributes of groups hold for what is in them."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw, self.fonts = draw, dict[tuple[float, bool], "ImageFont.FreeTypeFont"]()
        self.origin = (0.0, 0.0)

    def paint(self, element: ElementTree.Element, outer: Attributes) -> None:
        """Paints an element and all that is in it."""
        if element.get("display") == "none":
            return
        own = {**outer, **element.attrib}
        kind = element.tag.rpartition("}")[2]
        paints = {
            "rect": self._rect,
            "circle": self._circle,
            "path": self._path,
        }
        if kind in paints:
            paints[kind](own)
        elif kind == "text":
            self._text(own, element.text or "")
        inherited = {name: own[name] for name in INHERITED if name in own}
        before, self.origin = self.origin, self._moved(element)
        for child in element if kind in ("svg", "g") else ():
            self.paint(child, inherited)
        self.origin = before

    def _moved(self, element: ElementTree.Element) -> Point:
        """The origin inside an element; AssertionError for a transform that we do not write."""
        transform = element.get("transform")
        if transform is None:
            return self.origin
        found = re.fullmatch(r"translate\((\S+) (\S+)\)", transform)
        assert found, f"our pictures move groups and do nothing else to them, got {transform}"
        x, y = (SUPERSAMPLED * float(value) for value in found.groups())
        return self.origin[0] + x, self.origin[1] + y

    def _place(self, own: Attributes, x: str, y: str) -> Point:
        return self.origin[0] + _length(own, x), self.origin[1] + _length(own, y)

    def _rect(self, own: Attributes) -> None:
        x, y = self._place(own, "x", "y")
        box = (x, y, x + _length(own, "width"), y + _length(own, "height"))
        self.draw.rounded_rectangle(box, _length(own, "rx"), **_paint(own))

    def _circle(self, own: Attributes) -> None:
        (x, y), r = self._place(own, "cx", "cy"), _length(own, "r")
        self.draw.ellipse((x - r, y - r, x + r, y + r), **_paint(own))

    def _path(self, own: Attributes) -> None:
        paint = _paint(own)
        dashes = [SUPERSAMPLED * float(part) for part in own.get("stroke-dasharray", "").split()]
        dx, dy = self.origin
        for drawn, closed in _lines(own["d"]):
            line = [(x + dx, y + dy) for x, y in drawn]
            if paint["fill"] is not None and len(line) > 2:
                self.draw.polygon(line, fill=paint["fill"])
            if paint["outline"] is not None:
                whole = [*line, line[0]] if closed else line
                for piece in _dashed(whole, dashes) if dashes else [whole]:
                    self.draw.line(piece, paint["outline"], paint["width"], joint="curve")

    def _text(self, own: Attributes, content: str) -> None:
        size = SUPERSAMPLED * float(own.get("font-size", "11"))
        bold = own.get("font-weight") == "bold"
        if (size, bold) not in self.fonts:
            self.fonts[size, bold] = _font(size, bold)
        place = self._place(own, "x", "y")
        anchor = ANCHORS.get(own.get("text-anchor", ""), "ls")
        self.draw.text(place, content, _paint(own)["fill"], self.fonts[size, bold], anchor)


def _font(size: float, bold: bool) -> Any:
    """DejaVu, which the pictures ask for, or the font that Pillow brings."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _length(own: Attributes, name: str) -> float:
    return SUPERSAMPLED * float(own.get(name, 0))


def _paint(own: Attributes) -> dict[str, Any]:
    """Fill, outline and width as Pillow takes them."""
    stroke = own.get("stroke", "none")
    width = max(1, round(SUPERSAMPLED * float(own.get("stroke-width", 1))))
    return {
        "fill": _shade(own.get("fill", "#000000"), own.get("fill-opacity")),
        "outline": _shade(stroke, own.get("stroke-opacity")),
        "width": width if stroke != "none" else 0,
    }


def _shade(colour: str, opacity: str | None) -> Shade | None:
    """A colour laid over white; None for `none`."""
    if colour == "none":
        return None
    strength = 1.0 if opacity is None else float(opacity)
    channels = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    red, green, blue = (round(255 - strength * (255 - channel)) for channel in channels)
    return red, green, blue


def _lines(data: str) -> Iterator[tuple[list[Point], bool]]:
    """The lines of a path's data, curves in short steps, and whether each is closed."""
    line: list[Point] = []
    here = start = (0.0, 0.0)
    for command, numbers in _commands(data):
        relative, kind = command.islower(), command.upper()
        if kind == "Z":
            yield line, True
            line, here = [], start
            continue
        base = here if relative else (0.0, 0.0)
        points = _points(kind, numbers, base, here)
        if kind == "M":
            if len(line) > 1:
                yield line, False
            here = start = points[0]
            line = [here]
            points = points[1:]
        line = line or [here]
        line += _curve(here, points) if kind == "C" else points
        here = line[-1]
    if len(line) > 1:
        yield line, False


def _commands(data: str) -> Iterator[tuple[str, list[float]]]:
    """Each command of a path with its numbers; l with many pairs comes pair by pair."""
    for command, text in re.findall(r"([A-Za-z])([^A-Za-z]*)", data):
        numbers = [float(found) for found in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", text)]
        if command in "lL":
            for place in range(0, len(numbers), 2):
                yield command, numbers[place : place + 2]
        else:
            yield command, numbers


def _points(kind: str, numbers: list[float], base: Point, here: Point) -> list[Point]:
    """Where a command leads, in the picture's pixels."""
    scaled = [SUPERSAMPLED * value for value in numbers]
    if kind == "H":
        return [(base[0] + scaled[0], here[1])]
    if kind == "V":
        return [(here[0], base[1] + scaled[0])]
    return [
        (base[0] + scaled[place], base[1] + scaled[place + 1]) for place in range(0, len(scaled), 2)
    ]


def _curve(start: Point, controls: list[Point]) -> list[Point]:
    """A cubic of Bézier in short lines."""
    t = np.linspace(0, 1, CURVE_STEPS + 1)[1:, None]
    p0, p1, p2, p3 = np.array([start, *controls])
    way = (1 - t) ** 3 * p0 + 3 * t * (1 - t) ** 2 * p1 + 3 * t**2 * (1 - t) * p2 + t**3 * p3
    return [(float(x), float(y)) for x, y in way]


def _dashed(line: list[Point], dashes: list[float]) -> Iterator[list[Point]]:
    """The drawn pieces of a line with dashes and gaps in turn."""
    index, left = 0, dashes[0]
    piece = [line[0]]
    for (x0, y0), (x1, y1) in pairwise(line):
        length, done = float(np.hypot(x1 - x0, y1 - y0)), 0.0
        while length - done > left:
            done += left
            share = done / length
            point = (x0 + share * (x1 - x0), y0 + share * (y1 - y0))
            if index % 2 == 0:
                yield [*piece, point]
            piece, index = [point], index + 1
            left = dashes[index % len(dashes)]
        left -= length - done
        piece.append((x1, y1))
    if index % 2 == 0 and len(piece) > 1:
        yield piece
