"""The report: one file, complete, without any request."""

from __future__ import annotations

import re

import pytest
from drawn_searches import SEARCHES, SVG, parse, searched

from sgas.cells.decisions import CellDecisions, genotype_of
from sgas.reports import (
    CellReport,
    Fact,
    ReportData,
    Section,
    Snippet,
    Table,
    draw_alphas,
    draw_curves,
    draw_genotype,
    draw_margin,
    draw_replay,
    draw_timeline,
    render_report,
    write_report,
)


def full_report(name: str, kinds: tuple[str, ...]) -> ReportData:
    cells = []
    for seed, kind in enumerate(kinds):
        space, records = searched(name, kind=kind, seed=seed)
        cell = CellDecisions.from_strings(space.topology(SEARCHES[name][1]), records[-1].states)
        cells.append(
            CellReport(
                kind,
                draw_genotype(genotype_of(space, {kind: cell}), space, kind),
                draw_timeline(records, space, 50),
                draw_replay(records, space, 50, kind),
                draw_margin(records, space),
                draw_alphas(records, space),
            )
        )
    metrics = [{"train_loss": 1 / (e + 1), "val_accuracy": e / 50} for e in range(50)]
    return ReportData(
        title="shapes",
        verdict=[Fact("test accuracy", "92.9 ± 0.2", "10 seeds")],
        warning="under ten seeds",
        cells=cells,
        curves=draw_curves(metrics, {"loss": ["train_loss"]}, [9, 16]),
        sections=[
            Section("seeds", "Seeds", "of all", table=Table(["seed", "test"], [["0", "0.9"]]))
        ],
        usage=[Snippet("train it", "sgas-gcn train runs/x")],
        stamp=[Fact("torch", "2.13")],
        command="sgas-gcn search --preset demo",
        citation="Li et al., CVPR 2020",
    )


def test_report_is_one_small_file_that_asks_for_nothing(tmp_path):
    path = write_report(tmp_path / "report.html", full_report("point", ("normal",)))
    page = path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_size < 300_000
    assert page.startswith("<!DOCTYPE html>")
    assert re.findall(r"\b(?:src|href|srcset)\s*=\s*(\S+)", page) == ['"data:,">']
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page)
    assert set(re.findall(r"https?://[^\"' <]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page
    order = [
        page.index(f'id="{part}"') for part in ("cell", "why", "curves", "seeds", "usage", "stamp")
    ]
    assert order == sorted(order)
    assert page.index("92.9 ± 0.2") < order[0]
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        parse(svg)


def test_report_without_script_shows_the_final_cell():
    page = render_report(full_report("point", ("normal",)))
    controls = re.search(r'<div class="controls" hidden>.*?</div>', page, re.DOTALL)
    assert controls, "the slider appears with the script only"
    replay = re.search(r'<figure class="replay.*?</figure>', page, re.DOTALL)[0]
    svg = parse(re.search(r"<svg.*</svg>", replay, re.DOTALL)[0])
    hidden = {id(t) for g in svg.iter(f"{SVG}g") if g.get("display") for t in g.iter()}
    visible = [t.text for t in svg.iter(f"{SVG}text") if id(t) not in hidden]
    assert sum("after epoch 50 of 50" in text for text in visible) == 1
    assert "?" not in visible


def test_report_leaves_out_what_is_empty():
    page = render_report(ReportData(title="bare"))
    for part in ("cell", "why", "curves", "seeds", "usage"):
        assert f'id="{part}"' not in page


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_report(path, ReportData(title="x", cells=3))  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"
