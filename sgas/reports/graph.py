"""A cell as a row of nodes with arcs: decided edges above the row, open and pruned ones below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgas.cells.topology import CellTopology
from sgas.reports.layout import (
    DISC,
    LABEL_SIZE,
    NODE_HEIGHT,
    NODE_WIDTH,
    Arc,
    Curve,
    node_centre,
    place,
    ports,
)
from sgas.reports.svg import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    RIM,
    Layer,
    Picture,
    Style,
    disc,
    fit,
    number,
    tag,
    text,
    text_width,
    tooltip,
)

INPUT, STEP, OUTPUT = "#dce9f5", PAPER, "#f6e4b8"
LABEL_WIDTH = 112.0


@dataclass(frozen=True)
class Link:
    """An edge as it is drawn: its states, the arc's style, the sign in its disc and its label."""

    source: int
    target: int
    colour: str
    width: float
    sign: str = ""
    label: str = ""
    dash: str | None = None
    emphasised: bool = False


def panel_width(topology: CellTopology) -> float:
    """How wide the row of nodes is, output and margins included."""
    return node_centre(topology.num_states) + NODE_WIDTH / 2 + 24


def curves_above(links: Sequence[Link], order: Sequence[int]) -> dict[int, Curve]:
    """The curves of the links in `order`, which come to stand in this order, by link."""
    return _curves(links, order, labelled=True)


def curves_below(links: Sequence[Link]) -> dict[int, Curve]:
    """A place below the row for every link, the same whatever has been decided, by link."""
    order = sorted(range(len(links)), key=lambda i: (links[i].target - links[i].source, i))
    return _curves(links, order, labelled=False)


def height_of(curves: dict[int, Curve]) -> float:
    """How far curves and their labels reach from the nodes."""
    return max((box.top for curve in curves.values() for box in curve.boxes), default=0.0)


def add_nodes(
    picture: Picture, topology: CellTopology, concat: Sequence[int], row_y: float
) -> None:
    """Adds the row of nodes, its middle at `row_y`; states of the output carry a sand tab."""
    out_x = node_centre(topology.num_states)
    first = node_centre(min(concat))
    line = f"M{number(first)} {number(row_y)}H{number(out_x)}"
    picture.add(tag("path", d=line, stroke=FAINT, stroke_width=3), layer=Layer.GROUND)
    for state in range(topology.num_states):
        fill = INPUT if state < topology.num_inputs else STEP
        _add_node(picture, node_centre(state), row_y, topology.state_name(state), fill)
        if state in concat:
            x = node_centre(state) + NODE_WIDTH / 2 - 5
            tab: Style = {"rx": 3, "fill": OUTPUT, "stroke": RIM, "stroke_width": 1.2}
            rect = tag("rect", x=x, y=row_y - 8, width=10, height=16, **tab)
            picture.add(rect, layer=Layer.NODES)
    _add_node(picture, out_x, row_y, "out", OUTPUT)


def add_link(picture: Picture, link: Link, curve: Curve, row_y: float, above: bool) -> None:
    """Adds one link on its curve: line, arrow, disc and label."""
    side = -1 if above else 1
    base = row_y + side * NODE_HEIGHT / 2
    half, length = 3.5 + link.width * 0.5, 7 + link.width * 0.7
    start, end = number(curve.arc.start), number(curve.arc.end)
    inner, neck = number(base + side * curve.control), base + side * (length - 1)
    style: Style = {"stroke_width": link.width, "stroke_dasharray": link.dash}
    line = f"M{start} {number(base)}C{start} {inner} {end} {inner} {end} {number(neck)}"
    tip = f"M{end} {number(base)}l{number(-half)} {number(side * length)}h{number(2 * half)}z"
    picture.add(
        tag("path", d=line, fill="none", stroke=link.colour, **style),
        tag("path", d=tip, fill=link.colour),
        layer=Layer.LINES,
    )
    x, height = curve.point(curve.at)
    y = base + side * height
    if link.label:
        _add_label(picture, x, y - curve.label_offset, link.label)
    if link.sign:
        _add_sign(picture, link, x, y, above)


def _curves(links: Sequence[Link], order: Sequence[int], labelled: bool) -> dict[int, Curve]:
    ends = ports([(link.source, link.target) for link in links])
    arcs = []
    for index in order:
        link = links[index]
        shown = fit(link.label, LABEL_WIDTH, LABEL_SIZE, bold=True)
        width = text_width(shown, LABEL_SIZE, bold=True) if labelled else 0.0
        has_disc = bool(link.sign) or not labelled
        arcs.append(Arc(*ends[index], link.target - link.source, width, has_disc))
    return dict(zip(order, place(tuple(arcs)), strict=True))


def _add_node(picture: Picture, x: float, y: float, name: str, fill: str) -> None:
    box: Style = {"width": NODE_WIDTH, "height": NODE_HEIGHT, "rx": 8, "stroke": RIM}
    left, top = x - NODE_WIDTH / 2, y - NODE_HEIGHT / 2
    picture.add(
        tag("rect", x=left, y=top, fill=fill, stroke_width=1.5, **box),
        text(x, y + 4.5, name, size=13, bold=True, anchor="middle"),
        layer=Layer.NODES,
    )


def _add_label(picture: Picture, x: float, y: float, label: str) -> None:
    """An operation's name on a pale ground, so that a line behind it does not disturb it."""
    shown = fit(label, LABEL_WIDTH, LABEL_SIZE, bold=True)
    width = text_width(shown, LABEL_SIZE, bold=True)
    ground: Style = {"fill": PAPER, "fill_opacity": ".85", "rx": 3}
    name = text(x, y, shown, size=LABEL_SIZE, bold=True, anchor="middle")
    if shown != label:
        name = tag("g", tooltip(label), name)
    picture.add(
        tag("rect", x=x - width / 2, y=y - 10, width=width, height=13, **ground),
        name,
    )


def _add_sign(picture: Picture, link: Link, x: float, y: float, above: bool) -> None:
    if above:
        picture.add(disc(x, y, link.sign, radius=DISC))
        return
    faint = link.sign == "×"
    ring: Style = {"stroke": link.colour, "stroke_width": 3.0 if link.emphasised else 1.5}
    ink = MUTED if faint else INK
    picture.add(
        tag("circle", cx=x, cy=y, r=DISC - 1, fill=PAPER, **ring),
        text(x, y + 4, link.sign, size=12, fill=ink, bold=True, anchor="middle"),
    )
