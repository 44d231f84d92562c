"""A whole network as a sketch: its layers and cells from the input to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sgas.reports.graph import INPUT, OUTPUT, STEP
from sgas.reports.svg import FAINT, MUTED, RIM, Layer, Picture, Style, fit, number, tag, text

MARGIN, TOP = 24.0, 76.0
BOX, HEIGHT, GAP, ROW = 132.0, 66.0, 26.0, 92.0
MOST_IN_A_ROW = 7


@dataclass(frozen=True)
class LayerOfNetwork:
    """A part of a network: its name, what it gives for one sample where known, its parameters."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    is_cell: bool = False


def draw_network(layers: Sequence[LayerOfNetwork], title: str) -> str:
    """SVG of the layers in order; equal cells in a row share a box."""
    boxes = [[*group] for _, group in groupby(layers, key=_alike)]
    columns = min(len(boxes), MOST_IN_A_ROW)
    rows = -(-len(boxes) // MOST_IN_A_ROW)
    width = max(2 * MARGIN + columns * (BOX + GAP) - GAP, 440.0)
    said = "; ".join(f"{_name(box)}: {_shape(box) or '–'}, {_cost(box)}" for box in boxes)
    picture = Picture(width, TOP + rows * ROW, title, said)
    subtitle = "what a part gives for one sample · its parameters"
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 17, bold=True), size=17, bold=True),
        text(MARGIN, 56, subtitle, size=11, fill=MUTED),
    )
    for place, box in enumerate(boxes):
        row, column = divmod(place, MOST_IN_A_ROW)
        x, y = MARGIN + column * (BOX + GAP), TOP + row * ROW
        fill = INPUT if place == 0 else OUTPUT if place == len(boxes) - 1 else STEP
        rim: Style = {"stroke": RIM, "stroke_width": 3.0 if box[0].is_cell else 1.5}
        size: Style = {"width": BOX, "height": HEIGHT, "rx": 8}
        picture.add(tag("rect", x=x, y=y, fill=fill, **size, **rim), layer=Layer.NODES)
        middle = x + BOX / 2
        picture.add(
            text(middle, y + 22, fit(_name(box), BOX - 10, 13, bold=True), size=13, bold=True,
                 anchor="middle"),
            text(middle, y + 56, fit(_cost(box), BOX - 8, 10.5), size=10.5, fill=MUTED,
                 anchor="middle"),
        )  # fmt: skip
        if box[0].shape:
            shape = fit(_shape(box), BOX - 8, 11)
            picture.add(text(middle, y + 40, shape, size=11, anchor="middle"))
        if place:
            start = x - GAP if column else x - 12
            line = f"M{number(start)} {number(y + HEIGHT / 2)}H{number(x)}"
            picture.add(tag("path", d=line, stroke=FAINT, stroke_width=3), layer=Layer.GROUND)
    return picture.to_svg()


def _alike(layer: LayerOfNetwork) -> tuple[object, ...]:
    return (layer.is_cell, layer.shape, "" if layer.is_cell else layer.name)


def _name(box: Sequence[LayerOfNetwork]) -> str:
    if len(box) == 1:
        return box[0].name
    return f"{box[0].name}–{box[-1].name.rpartition(' ')[2]}"


def _shape(box: Sequence[LayerOfNetwork]) -> str:
    return " × ".join(map(str, box[0].shape))


def _cost(box: Sequence[LayerOfNetwork]) -> str:
    total = sum(layer.parameters for layer in box)
    return f"{total:,} parameters" if total < 1e6 else f"{total / 1e6:.3g} M parameters"
