"""Pictures of searches: well-formed, complete, escaped, in their frame."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
import torch
from drawn_searches import (
    BENCH,
    HOSTILE,
    IMAGE,
    POINT,
    SEARCHES,
    SVG,
    all_pictures,
    assert_apart,
    assert_inside,
    drifting_alphas,
    parse,
    search_records,
    searched,
    words,
)

from sgas.cells.genotype import FORMAT, CellGene, EdgeGene, Genotype
from sgas.deciding.records import EpochRecord
from sgas.deciding.scoring import operation_probs
from sgas.errors import InputError
from sgas.reports import (
    CellReport,
    Fact,
    ReportData,
    Section,
    Snippet,
    Table,
    draw_alphas,
    draw_cell,
    draw_curves,
    draw_genotype,
    draw_margin,
    draw_replay,
    draw_timeline,
    render_report,
)
from sgas.reports.chart import simplify, thin, ticks
from sgas.reports.graph import Link, curves_above, curves_below
from sgas.reports.palette import COLOURS, palette_for
from sgas.reports.svg import BLACK, IN_THE_DARK, WHITE
from sgas.reports.table import short
from sgas.reports.timeline import PRUNED_FILL
from sgas_cnn.family import FAMILY as IMAGES
from sgas_gcn.family import FAMILY as GRAPHS


@pytest.mark.parametrize("name", SEARCHES)
def test_every_picture_is_well_formed_and_keeps_its_text_inside(name):
    space, records = searched(name)
    for picture, svg in all_pictures(space, records).items():
        assert_inside(svg)
        if picture != "replay":  # whose frames stand on one another
            assert_apart(svg)


@pytest.mark.parametrize("name", SEARCHES)
def test_cell_shows_order_operation_and_status_of_every_edge(name):
    space, records = searched(name)
    decisions = [record for record in records if record.edge is not None]
    topology = space.topology(SEARCHES[name][1])
    assert len(decisions) == topology.num_decisions

    shown = words(parse(draw_cell(records, space, 50, "normal")))
    for order, record in enumerate(decisions, start=1):
        assert shown.count(str(order)) >= 2, "one disc on the arc, one in the table"
        assert topology.edge_name(topology.edges[record.edge]) in shown
        assert str(record.epoch + 1) in shown
    operations = sorted(record.op for record in decisions)
    assert sorted(text for text in shown if text in set(operations)) == sorted(
        operations
        + [name for name, _ in palette_for(space.operations).legend if name in operations]
    )
    assert shown.count("×") == 2 * records[-1].states.count("pruned")
    assert "?" not in shown


def test_table_lists_decided_edges_in_order_of_decision_and_then_marks_the_leader():
    space, records = searched("point")
    so_far = records[:25]
    topology = space.topology(3)
    root = parse(draw_cell(so_far, space, 50, "normal", 30))
    rows = [group for group in root.iter(f"{SVG}g") if group.get("transform")]
    names = [row.find(f"{SVG}text").text for row in rows]
    decided = [record.edge for record in so_far if record.edge is not None]
    still_open = [e for e, state in enumerate(so_far[-1].states) if state == "undecided"]
    leader = max(still_open, key=lambda edge: so_far[-1].score[edge])
    expected = [topology.edge_name(topology.edges[edge]) for edge in [*decided, leader]]
    assert names[: len(expected)] == expected
    assert [text for text in words(root) if text.startswith("next")] == ["next: 31"]
    assert "next: 31" in words(rows[len(decided)])
    assert not any("next:" in text for text in words(parse(draw_cell(so_far, space, 50, "normal"))))


def test_figures_of_a_decided_edge_are_those_of_its_decision():
    space, records = searched("point")
    first = next(record for record in records if record.edge is not None)
    root = parse(draw_cell(records, space, 50, "normal"))
    row = next(group for group in root.iter(f"{SVG}g") if group.get("transform"))
    probs = operation_probs(torch.tensor(first.alphas))[first.edge]
    best = f"{first.op} {probs.max():.2f}".replace(" 0.", " .")
    assert best in words(row)
    for values in (first.importance, first.certainty, first.stability):
        scaled = (np.array(values) - min(values)) / (max(values) - min(values))
        assert short(scaled[first.edge]) in words(row), "what the criterion multiplies"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_steps", [3, 4, 6, 8])
def test_labels_of_distinct_edges_do_not_collide(num_steps, seed):
    topology = IMAGE.topology(num_steps)
    links = [
        Link(edge.source, topology.state_of(edge.step), "#000000", 4.0, "1", "max_pool_3x3")
        for edge in topology.edges
    ]
    generator = np.random.default_rng(seed)
    kept = [
        generator.choice([edge.index for edge in topology.edges_into(step)], 2, replace=False)
        for step in range(num_steps)
    ]
    order = generator.permutation(np.concatenate(kept)).tolist()
    for curves in (curves_above(links, order), curves_below(links)):
        for one, other in combinations(curves.values(), 2):
            hits = [a for a in one.boxes for b in other.boxes if a.overlaps(b)]
            assert not hits, (one.arc, other.arc)


def test_a_replay_moves_no_arc_once_it_is_decided():
    space, records = searched("image")
    links = [
        Link(edge.source, space.topology(4).state_of(edge.step), "#000000", 4.0, "1", "gat")
        for edge in space.topology(4).edges
    ]
    order = [record.edge for record in records if record.edge is not None]
    final = curves_above(links, order)
    for count in range(1, len(order)):
        for edge, curve in curves_above(links, order[:count]).items():
            assert curve == final[edge]


def test_replay_holds_a_frame_for_start_decisions_and_end_and_shows_the_last():
    space, records = searched("point")
    replay = draw_replay(records, space, 50, "normal")
    decision_epochs = [record.epoch + 1 for record in records if record.edge is not None]
    assert replay.captions == tuple(f"epoch {epoch}" for epoch in [1, *decision_epochs, 50])
    last = str(len(replay.captions) - 1)
    root = parse(replay.svg)
    groups = [group for group in root.iter(f"{SVG}g") if group.get("data-frames")]
    assert groups
    for group in groups:
        assert (group.get("display") is None) == (last in group.get("data-frames").split())
    for frame in range(len(replay.captions)):
        visible = [g for g in groups if str(frame) in g.get("data-frames").split()]
        discs = {text for group in visible for text in words(group)}
        assert discs >= {str(n) for n in range(1, min(frame, 6) + 1) if frame}


def test_genotype_draws_its_edges_duplicates_included():
    edges = tuple(EdgeGene(op, s) for op, s in [("gat", 0), ("gin", 0), ("sage", 2), ("gat", 1)])
    genotype = Genotype(FORMAT, "point", {"normal": CellGene(edges, (2, 3))})
    svg = draw_genotype(genotype, POINT, "normal")
    assert_inside(svg)
    shown = words(parse(svg))
    assert [shown.count(op) for op in ("gat", "gin", "sage")] == [3, 2, 2], "arcs and legend"
    with pytest.raises(InputError, match="no 'reduce' cell; choose from normal"):
        draw_genotype(genotype, POINT, "reduce")


def test_hostile_names_are_escaped_everywhere():
    alphas = drifting_alphas(HOSTILE, 3, 50)
    records = search_records(alphas, HOSTILE, 3, 7, kind="<b>&kind</b>")
    groups = {HOSTILE.operations[2]: "<i>group</i>"}
    pictures = {
        "cell": draw_cell(records, HOSTILE, 50, "<b>&kind</b>", groups=groups),
        "timeline": draw_timeline(records, HOSTILE, 50, groups),
        "alphas": draw_alphas(records, HOSTILE, groups),
        "margin": draw_margin(records, HOSTILE, groups),
        "curves": draw_curves([{"<a>": 1.0}, {"<a>": 2.0}], {"<u>": ["<a>"]}),
    }
    for svg in pictures.values():
        assert "<script" not in svg and "<b>" not in svg and "<i>" not in svg and "<a>" not in svg
        parse(svg)
    attack = "<script>alert(1)</script>"
    data = ReportData(
        title=attack,
        verdict=[Fact(attack, attack, attack)],
        cells=[CellReport(attack, pictures["cell"])],
        sections=[Section(attack, attack, attack, table=Table([attack], [[attack]]))],
        usage=[Snippet(attack, attack)],
        stamp=[Fact(attack, attack)],
        command=attack,
        citation=attack,
    )
    assert attack not in render_report(data)


@pytest.mark.parametrize("scale", [1e-12, 1e3, 1e8])
def test_alphas_of_any_size_can_be_drawn(scale):
    alphas = drifting_alphas(POINT, 3, 50) * scale
    records = search_records(alphas, POINT, 3, 7)
    for svg in all_pictures(POINT, records).values():
        assert "nan" not in svg and "inf" not in svg
        assert_inside(svg)


def test_edges_cut_all_at_once_have_no_order():
    space, records = searched("point", 6)
    cut = ["gat", "gat", "gin", "gin", "pruned", "sage", "sage", "pruned", "pruned"]
    fields = {name: getattr(records[-1], name) for name in records[-1].__struct_fields__}
    last = EpochRecord(**{**fields, "states": cut})
    shown = words(parse(draw_cell([*records[:-1], last], space, 6, "normal")))
    assert shown.count("•") == 12
    assert "•" in words(parse(draw_timeline([*records[:-1], last], space, 6)))


def test_timeline_marks_every_decision_and_stays_small_for_many_epochs():
    space, records = searched("point")
    root = parse(draw_timeline(records, space, 50))
    assert {str(n) for n in range(1, 7)} <= set(words(root))
    alphas = drifting_alphas(POINT, 3, 2000) / 10
    many = search_records(alphas, POINT, 3, 300)
    svg = draw_timeline(many, POINT, 2000)
    assert "a column is 16 epochs" in svg
    assert_inside(svg)
    assert len(svg) < 60_000


def test_margin_shows_figures_ties_and_the_last_candidate():
    space, records = searched("bench")
    decisions = [record for record in records if record.edge is not None]
    shown = words(parse(draw_margin(records, space)))
    pairs = [(r.score[r.edge], r.score[r.runner_up]) for r in decisions if r.margin]
    expected = [f"margin {round(one, 3) - round(two, 3):.3f}" for one, two in pairs]
    assert [text for text in shown if text.startswith("margin ")] == expected
    assert "no rival left" in shown
    assert "no decision yet" in words(parse(draw_margin(records[:5], space)))


def test_curves_leave_gaps_and_mark_decisions():
    metrics = [{"epoch": e, "loss": 1 / (e + 1), "accuracy": e / 50} for e in range(50)]
    metrics[10]["loss"] = float("nan")
    del metrics[20]["loss"]
    svg = draw_curves(metrics, {"loss": ["loss"], "quality": ["accuracy", "absent"]}, [9, 16, 30])
    assert_inside(svg)
    root = parse(svg)
    blue = [p for p in root.iter(f"{SVG}path") if p.get("stroke") == COLOURS[0]]
    assert len(blue) == 3 + 1 + 2, "pieces of the loss, the accuracy, two lines of the legends"
    assert [words(root).count(order) for order in ("2", "3")] == [2, 2]
    parse(draw_curves([], {"loss": ["loss"]}))


def test_pictures_are_dark_where_a_reader_asks_so() -> None:
    space, records = searched("point")
    for svg in all_pictures(space, records).values():
        assert svg.count("prefers-color-scheme:dark") == 1
        colours = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]+)"', svg.partition("</style>")[2]))
        palette = palette_for(space.operations + space.published_only)
        assert colours <= {*IN_THE_DARK, *palette.colours.values(), WHITE, BLACK, PRUNED_FILL}


def test_families_have_one_colour_for_what_they_share() -> None:
    colours = {
        palette_for(family.search_space(space).operations, family.operation_groups).colour(skip)
        for family, space, skip in (
            (GRAPHS, "point", "skip_connect"),
            (GRAPHS, "nasbenchgraph", "skip"),
            (IMAGES, "image", "skip_connect"),
            (IMAGES, "nasbench201", "skip_connect"),
        )
    }
    assert len(colours) == 1


def test_palette_follows_positions_and_groups():
    palette = palette_for(POINT.operations)
    colours = [palette.colour(op) for op in POINT.operations[1:]]
    assert len(set(colours)) == 9
    assert colours[:8] == list(COLOURS)
    grouped = palette_for(POINT.operations, {"sage": "sage", "rel_sage": "sage"})
    assert grouped.colour("sage") == grouped.colour("rel_sage") != grouped.colour("gin")
    assert grouped.dashes["sage"] != grouped.dashes["rel_sage"]
    assert len(grouped.legend) == 8


def test_records_of_another_space_or_none_are_refused():
    space, records = searched("point")
    with pytest.raises(InputError, match="no epoch was scored yet"):
        draw_cell([], space, 50, "normal")
    with pytest.raises(InputError, match="a record scores 9 edges; a cell of space 'bench'"):
        draw_cell(records, BENCH, 50, "normal")


def test_chart_helpers():
    assert ticks(0, 1, 6) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 3, 5) == [3]
    assert thin(list(range(100)), 5) == [0, 25, 50, 74, 99]
    points = [(x, 0.0) for x in range(50)] + [(50, 9.0), (51, 0.0)]
    assert simplify(points, 0.5) == [(0, 0.0), (49, 0.0), (50, 9.0), (51, 0.0)]
