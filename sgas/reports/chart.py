"""What the charts share: axes, ticks, thinning, and heat cells' and lines' path data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sgas.reports.svg import (
    FAINT,
    GRID,
    MUTED,
    Layer,
    Picture,
    Style,
    number,
    polyline,
    tag,
    text,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Axes:
    """A rectangle of a picture with a linear scale in each direction."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        """The picture's x of a value."""
        low, high = self.x_range
        return self.left + self.width * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        """The picture's y of a value."""
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / ((high - low) or 1))

    @property
    def bottom(self) -> float:
        """y of the lower edge."""
        return self.top + self.height


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values from low to high, 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def epoch_ticks(low: int, high: int, most: int) -> list[int]:
    """At most `most` round epochs from low to high."""
    return sorted({round(tick) for tick in ticks(low, high, most)})


def thin(values: Sequence[T], most: int) -> list[T]:
    """At most about `most` of the values, evenly spread, first and last included."""
    if len(values) <= most:
        return list(values)
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


def simplify(points: Sequence[tuple[float, float]], tolerance: float) -> list[tuple[float, float]]:
    """The points without those within `tolerance` of the line through what is left.

    Ramer (1972), Douglas and Peucker (1973), with vertical distances: charts have one y for each x.
    """
    if len(points) < 3:
        return list(points)
    (x0, y0), (x1, y1) = points[0], points[-1]
    slope = (y1 - y0) / ((x1 - x0) or 1)
    errors = [abs(y - y0 - slope * (x - x0)) for x, y in points]
    worst = max(range(len(points)), key=errors.__getitem__)
    if errors[worst] <= tolerance:
        return [points[0], points[-1]]
    left, right = points[: worst + 1], points[worst:]
    return simplify(left, tolerance)[:-1] + simplify(right, tolerance)


def curve(points: Sequence[tuple[float, float]], style: Style) -> str:
    """A line through points in this style; a dot where there is one alone."""
    if len(points) == 1:
        style = {**style, "stroke_width": 5, "stroke_linecap": "round", "stroke_dasharray": None}
    return tag("path", d=polyline(points), fill="none", **style)


def tick_text(value: float) -> str:
    """The text of a tick: at most three digits that count."""
    return f"{value:.3g}"


def add_frame(
    picture: Picture, axes: Axes, x_ticks: Sequence[float], y_ticks: Sequence[float]
) -> None:
    """The lines and figures of a chart's axes."""
    grid = "".join(
        f"M{number(axes.left)} {number(axes.y(value))}h{number(axes.width)}" for value in y_ticks
    )
    picture.add(tag("path", d=grid, stroke=GRID, stroke_width=1), layer=Layer.GROUND)
    base = f"M{number(axes.left)} {number(axes.bottom)}h{number(axes.width)}"
    picture.add(tag("path", d=base, stroke=FAINT, stroke_width=1), layer=Layer.GROUND)
    for value in y_ticks:
        y = axes.y(value) + 3.5
        picture.add(text(axes.left - 6, y, tick_text(value), size=9.5, fill=MUTED, anchor="end"))
    for value in x_ticks:
        x, y = axes.x(value), axes.bottom + 14
        picture.add(text(x, y, tick_text(value), size=9.5, fill=MUTED, anchor="middle"))
