"""Agreement over seeds: how often each edge and each operation was chosen.

Dimensions: E edges that can be chosen, O operations; n genotypes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sgas.cells.genotype import CellGene, Genotype
from sgas.cells.space import NONE, SearchSpace
from sgas.cells.topology import CellTopology
from sgas.errors import InputError
from sgas.reports.palette import ink_on, palette_for
from sgas.reports.svg import (
    FAINT,
    GRID,
    INK,
    MUTED,
    PAPER,
    Layer,
    Picture,
    Style,
    fit,
    tag,
    text,
    tooltip,
)

MARGIN, TOP = 24.0, 82.0
NAMES, CELL_WIDTH, CELL_HEIGHT, SUM_WIDTH = 84.0, 58.0, 25.0, 52.0
SLANT = 13.0


def choices_of(cells: Sequence[CellGene], space: SearchSpace) -> Counter[tuple[int, int, str]]:
    """How many of the cells have an edge: by (source state, step, operation)."""
    counts: Counter[tuple[int, int, str]] = Counter()
    for cell in cells:
        for step, edges in enumerate(cell.edges_by_step(space)):
            counts.update({(edge.source, step, edge.op) for edge in edges})
    return counts


def draw_agreement(
    genotypes: Sequence[Genotype],
    space: SearchSpace,
    kind: str,
    label: str,
    groups: Mapping[str, str] | None = None,
) -> str:
    """SVG: one row an edge, one column an operation, in each field how many genotypes chose it.

    `label` says whose genotypes these are. InputError where there is none, or where their cells
    have different numbers of steps.
    """
    cells = [genotype.cells[kind] for genotype in genotypes if kind in genotype.cells]
    steps = {cell.num_steps(space) for cell in cells}
    if len(steps) != 1:
        raise InputError(f"agreement needs cells of one number of steps, got {sorted(steps)}")
    topology, n = space.topology(steps.pop()), len(cells)
    choices = choices_of(cells, space)
    used = {op for *_, op in choices}
    operations = [op for op in space.operations if op != NONE]
    operations += [op for op in space.published_only if op in used]
    title = f"{label} · {kind} cell · chosen by how many of {n}"
    width = max(MARGIN + NAMES + SUM_WIDTH + CELL_WIDTH * len(operations) + MARGIN, 420.0)
    head = 18.0 + SLANT * len(operations)
    height = TOP + head + CELL_HEIGHT * topology.num_edges + 14
    picture = Picture(width, height, title, _words(topology, choices, n))
    picture.add(
        text(MARGIN, 34, fit(title, width - 2 * MARGIN, 15, bold=True), size=15, bold=True),
        text(MARGIN, 54, fit(_verdict(choices, n), width - 2 * MARGIN, 11), size=11, fill=MUTED),
    )
    palette = palette_for(space.operations + space.published_only, groups)
    _add_heads(picture, operations, TOP, head)
    _add_rules(picture, topology.num_edges, len(operations), TOP + head)
    columns = [(op, palette.colour(op)) for op in operations]
    _add_rows(picture, topology, choices, columns, n, TOP + head)
    return picture.to_svg()


def _add_rows(
    picture: Picture,
    topology: CellTopology,
    choices: Counter[tuple[int, int, str]],
    columns: Sequence[tuple[str, str]],
    n: int,
    top: float,
) -> None:
    """A row for each edge: its name, how often it was kept, and a field for each choice of it."""
    for row, edge in enumerate(topology.edges):
        y, name = top + row * CELL_HEIGHT, topology.edge_name(edge)
        counts = [choices[edge.source, edge.step, op] for op, _ in columns]
        picture.add(text(MARGIN, y + 17, name, size=11), _sum(sum(counts), n, y))
        for column, ((op, colour), count) in enumerate(zip(columns, counts, strict=True)):
            if count:
                said = f"{name} = {op}: {count} of {n}"
                _add_field(picture, column, y, count / n, str(count), colour, said)


def _words(topology: CellTopology, choices: Counter[tuple[int, int, str]], n: int) -> str:
    names = {(edge.source, edge.step): topology.edge_name(edge) for edge in topology.edges}
    return "; ".join(
        f"{names[source, step]} = {op}: {count} of {n}"
        for (source, step, op), count in choices.most_common()
    )


def _verdict(choices: Counter[tuple[int, int, str]], n: int) -> str:
    """How alike the cells are, in words."""
    always = sum(count == n for count in choices.values())
    if n < 2:
        return "one cell alone: nothing to agree with"
    return f"{len(choices)} different choices of edge and operation; {always} of them in every cell"


def _add_heads(picture: Picture, operations: Sequence[str], top: float, head: float) -> None:
    """The operations' names as stairs, each to the left of the hair that leads to its column."""
    picture.add(text(MARGIN, top + head - 10, "edge", size=10.5, fill=MUTED))
    for column, op in enumerate(operations):
        x = _left(column) + CELL_WIDTH / 2
        y = top + 10 + SLANT * (len(operations) - 1 - column)
        picture.add(text(x - 4, y, op, size=10.5, anchor="end"))
        hair = f"M{x:.0f} {y - 8:.0f}V{top + head - 4:.0f}"
        picture.add(tag("path", d=hair, stroke=FAINT, stroke_width=1), layer=Layer.GROUND)


def _add_rules(picture: Picture, num_rows: int, num_columns: int, top: float) -> None:
    """Hairs between the rows, all in one path: the page of a study holds many of these pictures."""
    length = SUM_WIDTH + NAMES + num_columns * CELL_WIDTH
    rules = (f"M{MARGIN:.0f} {top + row * CELL_HEIGHT:.0f}h{length:.0f}" for row in range(num_rows))
    picture.add(tag("path", d="".join(rules), stroke=GRID), layer=Layer.GROUND)


def _left(column: int) -> float:
    return MARGIN + NAMES + SUM_WIDTH + column * CELL_WIDTH


def _sum(count: int, n: int, y: float) -> str:
    bold = count == n
    x = MARGIN + NAMES
    return text(x, y + 17, f"{count}/{n}", size=11, fill=INK if count else MUTED, bold=bold)


def _add_field(
    picture: Picture, column: int, y: float, share: float, shown: str, colour: str, said: str
) -> None:
    x = _left(column)
    strength = 0.2 + 0.8 * share
    place: Style = {"x": x + 1, "y": y + 1, "width": CELL_WIDTH - 2, "height": CELL_HEIGHT - 2}
    ground = tag("rect", rx=3, fill=PAPER, **place)
    box = tag("rect", rx=3, fill=colour, fill_opacity=f"{strength:.2f}", **place)
    ink = ink_on(colour, strength)
    mark = text(x + CELL_WIDTH / 2, y + 17, shown, size=11, fill=ink, bold=True, anchor="middle")
    picture.add(tag("g", tooltip(said), ground, box, mark), layer=Layer.NODES)
