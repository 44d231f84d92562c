"""Who was winning: edges × epochs, each cell in the colour of the leading operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sgas.cells.decisions import Status
from sgas.cells.space import SearchSpace
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.reports.chart import epoch_ticks
from sgas.reports.palette import Palette, add_legend, ink_on, palette_for
from sgas.reports.story import EdgeStory, edge_stories, ranking
from sgas.reports.svg import (
    INK,
    MUTED,
    PAPER,
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

LEFT, TOP, WIDTH, MARGIN = 124.0, 76.0, 1056.0, 24.0
ROW, CELL = 29.0, 24.0
DISC = 12.0  # half a decision's disc, with room
MOST_COLUMNS = 132
PRUNED_FILL = "#e6e8ec"


@dataclass(frozen=True)
class _Columns:
    """Epochs as columns of equal width; one column holds several where there are many epochs."""

    num_epochs: int

    @property
    def epochs_each(self) -> int:
        return -(-self.num_epochs // MOST_COLUMNS)

    @property
    def count(self) -> int:
        return -(-self.num_epochs // self.epochs_each)

    @property
    def width(self) -> float:
        return WIDTH / self.count

    def of(self, epoch: int) -> int:
        return epoch // self.epochs_each

    def x(self, column: float) -> float:
        return LEFT + column * self.width


@dataclass(frozen=True)
class _Tile:
    """What one edge shows in one column: an operation with its strength, or None: pruned."""

    operation: str | None
    strength: float


def draw_timeline(
    records: Sequence[EpochRecord],
    space: SearchSpace,
    num_epochs: int,
    groups: Mapping[str, str] | None = None,
) -> str:
    """SVG of the leading operation of each edge over the epochs; discs mark the decisions.

    `records` are all of one kind of cell, in order of epochs. More than 132 epochs share columns,
    each showing its last epoch.
    """
    stories = edge_stories(records, space)
    columns = _Columns(max(num_epochs, records[-1].epoch + 1))
    palette = palette_for(space.operations + space.published_only, groups)
    title = f"{records[-1].cell} cell · who was winning each edge, epoch by epoch"
    picture = Picture(LEFT + WIDTH + MARGIN, 0, title, _words(stories))
    picture.add(
        text(MARGIN, 34, fit(title, LEFT + WIDTH - MARGIN, 17, bold=True), size=17, bold=True),
        text(MARGIN, 56, _subtitle(columns), size=11, fill=MUTED),
    )
    last_records = {columns.of(record.epoch): record for record in records}
    rows = [{c: _tile(r, story, space) for c, r in last_records.items()} for story in stories]
    names = [_names(columns, story, tiles) for story, tiles in zip(stories, rows, strict=True)]
    _add_tiles(picture, columns, rows, palette)
    _add_hairs(picture, columns, names)
    for row, (story, tiles) in enumerate(zip(stories, rows, strict=True)):
        y = TOP + row * ROW
        name = fit(story.name, LEFT - MARGIN - 10)
        picture.add(text(LEFT - 10, y + CELL / 2 + 4, name, size=12, anchor="end"))
        _add_names(picture, names[row], tiles, palette, y)
        _add_decision(picture, columns, story, y)
    bottom = TOP + len(stories) * ROW
    _add_epochs(picture, columns, bottom)
    picture.height = add_legend(picture, palette, MARGIN, bottom + 34, LEFT + WIDTH) + 6
    return picture.to_svg()


def _subtitle(columns: _Columns) -> str:
    each = columns.epochs_each
    shared = "" if each == 1 else f" · a column is {each} epochs and shows the last"
    return (
        "colour = leading operation · strength = p(op | not none), full once decided · "
        f"disc = decided · grey = pruned{shared}"
    )


def _words(stories: Sequence[EdgeStory]) -> str:
    return "; ".join(f"{s.name}: {s.state}, {s.operation}, epoch {s.epoch}" for s in stories)


def _tile(record: EpochRecord, story: EdgeStory, space: SearchSpace) -> _Tile:
    edge, counts = story.edge.index, story.record.epoch
    if story.status is Status.PRUNED and record.epoch >= counts:
        return _Tile(None, 1.0)
    if story.status is Status.DECIDED and record.epoch >= counts:
        return _Tile(story.operation, 1.0)
    operation, prob = ranking(record.alphas[edge], space.operations)[0]
    return _Tile(operation, max(round(prob / 0.04) * 0.04, 0.12))


def _add_tiles(
    picture: Picture, columns: _Columns, rows: Sequence[Mapping[int, _Tile]], palette: Palette
) -> None:
    """All rows of tiles: one path for each colour and strength."""
    strokes: dict[_Tile, list[str]] = {}
    for row, tiles in enumerate(rows):
        y = TOP + row * ROW + CELL / 2
        for tile, first, count in _runs(tiles):
            line = f"M{number(columns.x(first))} {number(y)}h{number(count * columns.width)}"
            strokes.setdefault(tile, []).append(line)
    ground = f"M{number(LEFT)} {number(TOP)}h{number(WIDTH)}v{number(len(rows) * ROW - ROW + CELL)}"
    picture.add(tag("path", d=f"{ground}H{number(LEFT)}z", fill=PAPER), layer=Layer.GROUND)
    for tile, lines in strokes.items():
        style: Style = {"stroke": _colour(tile, palette), "stroke_width": CELL}
        opacity = f"{tile.strength:.2f}" if tile.strength < 1 else None
        path = tag("path", d="".join(lines), stroke_opacity=opacity, **style)
        picture.add(path, layer=Layer.GROUND)


@dataclass(frozen=True)
class _Name:
    """A leader's name on the run of columns from `first`, around `x`, and how wide it is."""

    shown: str
    first: int
    count: int
    x: float
    width: float


def _names(columns: _Columns, story: EdgeStory, tiles: Mapping[int, _Tile]) -> list[_Name]:
    """The names of leaders on runs that are wide enough, beside the disc of the decision."""
    leaders = {c: _Tile(tile.operation, float(tile.strength == 1)) for c, tile in tiles.items()}
    decided = columns.of(story.record.epoch) if story.status is Status.DECIDED else None
    names = []
    for leader, first, count in _runs(leaders):
        shown = leader.operation or "pruned"
        left, right = columns.x(first), columns.x(first + count)
        if decided is not None and first <= decided < first + count:
            left = columns.x(decided + 0.5) + DISC
        width = text_width(shown, 9.5)
        if width + 8 <= right - left:
            names.append(_Name(shown, first, count, (left + right) / 2, width))
    return names


def _add_hairs(picture: Picture, columns: _Columns, names: Sequence[Sequence[_Name]]) -> None:
    """Hairlines between the columns of each row, but for those that would cross a name."""
    if columns.width <= 12:
        return
    hairs = [
        f"M{number(x)} {number(TOP + row * ROW)}v{number(CELL)}"
        for row, own in enumerate(names)
        for x in map(columns.x, range(1, columns.count))
        if not any(abs(x - name.x) < name.width / 2 + 3 for name in own)
    ]
    path = tag("path", d="".join(hairs), stroke=PAPER, stroke_width=1)
    picture.add(path, layer=Layer.LINES)


def _add_names(
    picture: Picture,
    names: Sequence[_Name],
    tiles: Mapping[int, _Tile],
    palette: Palette,
    y: float,
) -> None:
    """The names of one row, in the ink that reads on their tiles."""
    for name in names:
        middle = tiles[name.first + name.count // 2]
        fill = INK
        if middle.operation is not None:
            fill = ink_on(palette.colour(middle.operation), middle.strength)
        line = text(name.x, y + CELL / 2 + 3.5, name.shown, size=9.5, fill=fill, anchor="middle")
        picture.add(line)


def _colour(tile: _Tile, palette: Palette) -> str:
    return PRUNED_FILL if tile.operation is None else palette.colour(tile.operation)


def _runs(tiles: Mapping[int, _Tile]) -> list[tuple[_Tile, int, int]]:
    """(tile, first column, number of columns) of each run of equal tiles without a gap."""
    runs = []
    numbered = enumerate(tiles.items())
    for (tile, _), group in groupby(numbered, key=lambda item: (item[1][1], item[1][0] - item[0])):
        columns = [column for _, (column, _) in group]
        runs.append((tile, columns[0], len(columns)))
    return runs


def _add_decision(picture: Picture, columns: _Columns, story: EdgeStory, y: float) -> None:
    if story.status is not Status.DECIDED:
        return
    x = columns.x(columns.of(story.record.epoch) + 0.5)
    said = f"{story.name} = {story.operation}, epoch {story.epoch}"
    picture.add(tag("g", tooltip(said), disc(x, y + CELL / 2, story.sign, radius=9.5)))


def _add_epochs(picture: Picture, columns: _Columns, y: float) -> None:
    first = shown_epoch(0)
    for shown in epoch_ticks(first, columns.num_epochs, 12):
        x = columns.x(columns.of(shown - first) + 0.5)
        picture.add(text(x, y + 12, str(shown), size=10, fill=MUTED, anchor="middle"))
    picture.add(text(LEFT - 10, y + 12, "epoch", size=10, fill=MUTED, anchor="end"))
