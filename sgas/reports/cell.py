"""Pictures of a cell: as a search has decided it so far, as a genotype, and epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sgas.cells.decisions import Status
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.errors import InputError
from sgas.reports.graph import (
    Link,
    add_link,
    add_nodes,
    curves_above,
    curves_below,
    height_of,
    panel_width,
)
from sgas.reports.layout import NODE_HEIGHT, ceiling
from sgas.reports.palette import NEUTRAL, Palette, add_legend, palette_for
from sgas.reports.story import EdgeStory, edge_stories, in_order, topology_of
from sgas.reports.svg import MUTED, Picture, fit, merge_frames, text, wrap
from sgas.reports.table import TABLE_WIDTH, add_table, table_height

MARGIN, HEADER = 24.0, 72.0
MOST_ROWS_BESIDE = 16


@dataclass(frozen=True)
class Replay:
    """A cell over time: one SVG with all frames (see `svg.merge_frames`) and a caption for each."""

    svg: str
    captions: tuple[str, ...]


def draw_genotype(
    genotype: Genotype, space: SearchSpace, kind: str, groups: Mapping[str, str] | None = None
) -> str:
    """SVG of one cell of a genotype; `groups` maps operations to the names that share a colour."""
    if kind not in genotype.cells:
        raise InputError(
            f"the genotype has no {kind!r} cell; choose from {', '.join(genotype.cells)}"
        )
    cell = genotype.cells[kind]
    topology = space.topology(cell.num_steps(space))
    palette = palette_for(space.operations + space.published_only, groups)
    links = [
        Link(edge.source, topology.state_of(step), palette.colour(edge.op), 4.0, label=edge.op)
        for step, edges in enumerate(cell.edges_by_step(space))
        for edge in edges
    ]
    above = curves_above(links, sorted(range(len(links)), key=lambda i: _span(links[i])))
    title = f"{kind} cell · {len(links)} edges"
    words = [
        f"{topology.state_name(link.source)}→{topology.state_name(link.target)}" for link in links
    ]
    said = "; ".join(f"{name} = {link.label}" for name, link in zip(words, links, strict=True))
    picture = Picture(panel_width(topology), 0, title, said)
    row_y = HEADER + height_of(above) + NODE_HEIGHT / 2
    add_nodes(picture, topology, cell.concat, row_y)
    for index, curve in above.items():
        add_link(picture, links[index], curve, row_y, above=True)
    _add_heading(picture, title, "sand tab: part of the output")
    used = tuple(entry for entry in palette.legend if entry[1] in {link.colour for link in links})
    used_palette = replace(palette, legend=used)
    bottom = row_y + NODE_HEIGHT / 2 + 26
    picture.height = add_legend(picture, used_palette, MARGIN, bottom, picture.width - MARGIN) + 8
    return picture.to_svg()


def draw_cell(
    records: Sequence[EpochRecord],
    space: SearchSpace,
    num_epochs: int,
    kind: str,
    next_decision_epoch: int | None = None,
    groups: Mapping[str, str] | None = None,
) -> str:
    """SVG of a cell after the last of `records` (all of this kind, in order of epochs).

    `next_decision_epoch` marks the open edge that leads now; None: no decision is ahead.
    InputError where there is no record.
    """
    scene = _scene(records, space, num_epochs, kind, next_decision_epoch, groups, steady=False)
    return _paint(scene).to_svg()


def draw_replay(
    records: Sequence[EpochRecord],
    space: SearchSpace,
    num_epochs: int,
    kind: str,
    groups: Mapping[str, str] | None = None,
) -> Replay:
    """The cell after the first scored epoch, after each decision and after the last epoch."""
    topology_of(records, space)
    wanted = {0, len(records) - 1}
    wanted |= {index for index, record in enumerate(records) if _changes(records, index)}
    frames, captions = [], []
    for index in sorted(wanted):
        ahead = [record.epoch for record in records[index + 1 :] if record.edge is not None]
        upcoming = ahead[0] if ahead else None
        so_far = records[: index + 1]
        scene = _scene(so_far, space, num_epochs, kind, upcoming, groups, steady=True)
        frames.append(_paint(scene))
        captions.append(f"epoch {shown_epoch(records[index].epoch)}")
    return Replay(merge_frames(frames), tuple(captions))


def _changes(records: Sequence[EpochRecord], index: int) -> bool:
    return index > 0 and records[index].states != records[index - 1].states


@dataclass(frozen=True)
class _Scene:
    """All that a picture of a cell shows; `steady` gives it a size that no decision changes."""

    topology: CellTopology
    stories: Sequence[EdgeStory]
    palette: Palette
    title: str
    next_decision_epoch: int | None
    steady: bool

    @property
    def ordered(self) -> list[EdgeStory]:
        """The edges in the order of the table."""
        return in_order(self.stories)

    @property
    def upcoming(self) -> EdgeStory | None:
        """The open edge that leads, where a decision is ahead."""
        still_open = [story for story in self.ordered if story.status is Status.UNDECIDED]
        return still_open[0] if still_open and self.next_decision_epoch is not None else None


def _scene(
    records: Sequence[EpochRecord],
    space: SearchSpace,
    num_epochs: int,
    kind: str,
    next_decision_epoch: int | None,
    groups: Mapping[str, str] | None,
    steady: bool,
) -> _Scene:
    topology, stories = topology_of(records, space), edge_stories(records, space)
    palette = palette_for(space.operations + space.published_only, groups)
    title = _title(kind, records[-1].epoch, num_epochs, stories)
    return _Scene(topology, stories, palette, title, next_decision_epoch, steady)


def _paint(scene: _Scene) -> Picture:
    ordered, graph_width = scene.ordered, panel_width(scene.topology)
    beside = len(ordered) <= MOST_ROWS_BESIDE
    width = graph_width + TABLE_WIDTH + MARGIN if beside else max(graph_width, 2 * TABLE_WIDTH + 96)
    picture = Picture(width, 0, scene.title, _words(ordered))
    bottom = _add_graph(picture, scene)
    if beside:
        tables = [(graph_width, HEADER - 8, ordered)]
    else:
        middle = _middle(ordered)
        columns = (MARGIN, ordered[:middle]), (width / 2 + 12, ordered[middle:])
        tables = [(x, bottom + 8, rows) for x, rows in columns]
    for x, y, rows in tables:
        upcoming = scene.upcoming
        add_table(picture, rows, scene.palette, x, y, upcoming, scene.next_decision_epoch)
        bottom = max(bottom, y + table_height(scene.stories if scene.steady and beside else rows))
    _add_heading(
        picture, scene.title, "above the row: decided · below: open or pruned · width = I × p"
    )
    foot = add_legend(picture, scene.palette, MARGIN, bottom + 16, width - MARGIN)
    picture.height = _add_signs(picture, scene.topology, foot - 5) + 14
    return picture


def _middle(rows: Sequence[EdgeStory]) -> int:
    """Where to cut a table so that both halves are about equally high."""
    return min(range(len(rows)), key=lambda n: abs(table_height(rows[:n]) - table_height(rows[n:])))


def _add_graph(picture: Picture, scene: _Scene) -> float:
    """The y below the graph."""
    topology, upcoming = scene.topology, scene.upcoming
    links = [_link(topology, story, scene.palette, story is upcoming) for story in scene.stories]
    decided = [s.edge.index for s in scene.ordered if s.status is Status.DECIDED]
    above, below = curves_above(links, decided), curves_below(links)
    if scene.steady:
        top = ceiling(max(map(_span, links)))
    else:
        below = {index: curve for index, curve in below.items() if index not in above}
        top = max(height_of(above), 40.0)
    row_y = HEADER + top + NODE_HEIGHT / 2
    concat = topology.outputs({scene.stories[index].edge.source for index in decided})
    add_nodes(picture, topology, concat, row_y)
    for index, link in enumerate(links):
        is_above = index in above
        curve = above[index] if is_above else below[index]
        add_link(picture, link, curve, row_y, is_above)
    return row_y + NODE_HEIGHT / 2 + height_of(below) + 8


def _link(topology: CellTopology, story: EdgeStory, palette: Palette, is_next: bool) -> Link:
    ends = story.edge.source, topology.state_of(story.edge.step)
    colour, width = palette.colour(story.operation), round(3 + 12 * story.strength) / 2
    if story.status is Status.DECIDED:
        return Link(*ends, colour, width, story.sign, story.operation)
    if story.status is Status.PRUNED:
        return Link(*ends, NEUTRAL, 1.4, story.sign, dash="2 5")
    return Link(*ends, colour, width, story.sign, dash="8 6", emphasised=is_next)


def _span(link: Link) -> int:
    return link.target - link.source


def _title(kind: str, epoch: int, num_epochs: int, stories: Sequence[EdgeStory]) -> str:
    count = {status: sum(story.status is status for story in stories) for status in Status}
    return (
        f"{kind} cell · after epoch {shown_epoch(epoch)} of {num_epochs} · "
        f"{count[Status.DECIDED]} decided · {count[Status.PRUNED]} pruned · "
        f"{count[Status.UNDECIDED]} open"
    )


def _words(ordered: Sequence[EdgeStory]) -> str:
    said = {
        Status.DECIDED: "{s.sign}: {s.name} = {s.operation}, epoch {s.epoch}",
        Status.UNDECIDED: "{s.name} open, {s.operation} leads",
        Status.PRUNED: "{s.name} pruned, epoch {s.epoch}",
    }
    return "; ".join(said[story.status].format(s=story) for story in ordered)


def _add_signs(picture: Picture, topology: CellTopology, y: float) -> float:
    """The y below the lines that explain the signs, which start below y."""
    parts = ["number in a disc: order of decision", "? open, in the colour of its leader"]
    if topology.in_degree is not None:
        parts.append(f"× pruned when its step had {topology.in_degree} edges")
    parts += [
        "yellow row: next decision if nothing changes",
        "sand tab: part of the output",
        "I importance, C certainty, S stability: what criteria multiply",
        "each from 0, the lowest of the cell's edges, to 1",
    ]
    for line in wrap(parts, picture.width - 2 * MARGIN, 10.5):
        y += 15
        picture.add(text(MARGIN, y, line, size=10.5, fill=MUTED))
    return y


def _add_heading(picture: Picture, title: str, subtitle: str) -> None:
    width = picture.width - 2 * MARGIN
    picture.add(
        text(MARGIN, 34, fit(title, width, 17, bold=True), size=17, bold=True),
        text(MARGIN, 56, fit(subtitle, width, 11), size=11, fill=MUTED),
    )
