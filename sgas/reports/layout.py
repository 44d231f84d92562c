"""Where the arcs of a cell run and where their labels stand, so that labels do not collide.

All states stand in one row; an arc rises from the right half of one node to the left half of
another. Heights are above the row and positive; pictures mirror them for arcs below it. Arcs are
placed one after the other and never move again, so that a replay stays calm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

NODE_WIDTH, NODE_HEIGHT = 72.0, 34.0
NODE_DISTANCE = 138.0
DISC = 11.0
LABEL_SIZE = 11.5

_POSITIONS = (0.5, 0.42, 0.58, 0.34, 0.66, 0.27, 0.73)
_RAISE, _NUM_RAISES = 12.0, 3
_SAMPLES = [step / 28 for step in range(1, 28)]


@dataclass(frozen=True)
class Arc:
    """An edge to place: x of its ends, how many nodes it spans, its label's width (0: none)."""

    start: float
    end: float
    span: int
    label_width: float = 0.0
    has_disc: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """True where the two share an area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, point: tuple[float, float]) -> bool:
        """True where the point lies inside."""
        return self.left < point[0] < self.right and self.bottom < point[1] < self.top


@dataclass(frozen=True)
class Curve:
    """A placed arc: a cubic that reaches `rise`; its disc stands at parameter `at`."""

    arc: Arc
    rise: float
    at: float

    @property
    def control(self) -> float:
        """Height of the cubic's two inner points, which stand over its ends."""
        return self.rise / 0.75

    def point(self, t: float) -> tuple[float, float]:
        """The point at parameter t in [0, 1]."""
        forth = t * t * (3 - 2 * t)
        x = self.arc.start + (self.arc.end - self.arc.start) * forth
        return x, 3 * t * (1 - t) * self.control

    @cached_property
    def samples(self) -> list[tuple[float, float]]:
        """Points along the curve."""
        return [self.point(t) for t in _SAMPLES]

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The areas of its disc and its label."""
        x, y = self.point(self.at)
        boxes = []
        if self.arc.has_disc:
            boxes.append(Box(x - DISC - 2, y - DISC - 2, x + DISC + 2, y + DISC + 2))
        if self.arc.label_width:
            half, foot = self.arc.label_width / 2 + 3, y + self.label_offset - 3
            boxes.append(Box(x - half, foot, x + half, foot + LABEL_SIZE + 5))
        return tuple(boxes)

    @property
    def label_offset(self) -> float:
        """How far the label's baseline is above the curve."""
        return DISC + 6 if self.arc.has_disc else 7.0


def node_centre(state: int) -> float:
    """x of a state's node; the output stands where the next state would."""
    return NODE_WIDTH / 2 + 24 + state * NODE_DISTANCE


def natural_rise(span: int) -> float:
    """The height of an arc that has room: longer arcs are higher, but less than in proportion."""
    return 64.0 * span**0.86


def ceiling(span: int) -> float:
    """The height over the row within which all arcs of at most this span stay, labels included."""
    highest = natural_rise(span) + (_NUM_RAISES - 1) * _RAISE
    return highest + DISC + LABEL_SIZE + 14


def ports(pairs: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """x of both ends of each (source, target) state pair, ordered so that few arcs cross.

    Into a node the nearest source comes outermost; out of a node the nearest target does.
    """
    leaving: dict[int, list[int]] = {}
    entering: dict[int, list[int]] = {}
    for index, (source, target) in enumerate(pairs):
        leaving.setdefault(source, []).append(index)
        entering.setdefault(target, []).append(index)
    starts, ends = [0.0] * len(pairs), [0.0] * len(pairs)
    for state, indices in leaving.items():
        for rank, index in enumerate(sorted(indices, key=lambda i: -pairs[i][1])):
            starts[index] = node_centre(state) + 7 + rank * _port_distance(len(indices))
    for state, indices in entering.items():
        for rank, index in enumerate(sorted(indices, key=lambda i: pairs[i][0])):
            ends[index] = node_centre(state) - 7 - rank * _port_distance(len(indices))
    return list(zip(starts, ends, strict=True))


def _port_distance(count: int) -> float:
    return min(10.0, (NODE_WIDTH / 2 - 12) / max(count - 1, 1))


@lru_cache(maxsize=256)
def place(arcs: tuple[Arc, ...]) -> tuple[Curve, ...]:
    """The arcs as curves, in order: each takes the first way that hits no label, or the best."""
    placed: list[Curve] = []
    for arc in arcs:
        best, least = None, float("inf")
        for curve in _ways(arc):
            cost = _collisions(curve, placed)
            if cost < least:
                best, least = curve, cost
            if cost == 0:
                break
        assert best is not None
        placed.append(best)
    return tuple(placed)


def _ways(arc: Arc) -> list[Curve]:
    """All ways that an arc may run, from the plainest to the oddest."""
    ways = product(range(_NUM_RAISES), _POSITIONS)
    ordered = sorted(ways, key=lambda way: way[0] + 14 * abs(way[1] - 0.5))
    return [Curve(arc, natural_rise(arc.span) + lift * _RAISE, at) for lift, at in ordered]


def _collisions(curve: Curve, placed: Sequence[Curve]) -> float:
    """How badly a curve and its label collide with those that stand; labels on labels most."""
    label = curve.boxes[-1:] if curve.arc.label_width else ()
    cost = float(sum(box.holds(point) for box in label for point in curve.samples))
    for other in placed:
        if other.arc.start > curve.arc.end + 160 or other.arc.end < curve.arc.start - 160:
            continue
        for mine, theirs in product(curve.boxes, other.boxes):
            cost += 100 * mine.overlaps(theirs)
        cost += sum(box.holds(point) for box in curve.boxes for point in other.samples)
        cost += sum(box.holds(point) for box in other.boxes for point in curve.samples)
    return cost
