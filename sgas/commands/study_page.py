"""`show STUDY`: one HTML page of a study, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgas.cells.genotype import Genotype
from sgas.commands.common import open_study, print_json
from sgas.errors import RunError
from sgas.family import Family
from sgas.files import write_text
from sgas.options import PLUGIN, Flag, Positional, parse, parser_for
from sgas.reports import (
    Fact,
    Group,
    Snippet,
    StudyData,
    draw_agreement,
    draw_genotype,
    render_study,
)
from sgas.running.pictures import CITATION
from sgas.studies.figures import draw_figures
from sgas.studies.ranks import draw_ranks
from sgas.studies.results import results_of
from sgas.studies.standings import tables_of
from sgas.studies.study import Entry, Study
from sgas.studies.summary import StrategySummary, Summary, spread_text, stamp_of, summarise
from sgas.terminal import tell

TARGET = Positional("target", "study folder that sweep wrote")
FLAGS = [
    PLUGIN,
    Flag("json", "print one JSON object"),
    Flag("metric", "figure to compare: accuracy, micro_f1, …, error, loss", is_switch=False),
    Flag("out", "folder for page and pictures (default: the study)", is_switch=False),
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `show` on a study and returns 0; errors are raised."""
    about = "Write one page of a study: tables, ranks, every cell, agreement over seeds."
    values = parse(parser_for(family.command, "show", about, {}, [TARGET], FLAGS), argv)
    study = open_study(family, Path(values["target"]))
    summary = summarise(results_of(study, values["metric"]))
    out = Path(values["out"]) if values["out"] else study.folder
    written = draw_study(family, study, summary, out)
    if values["json"]:
        print_json({**summary.to_dict(), "pictures": [str(path) for path in written]})
        return 0
    tell(summary.verdict)
    for path in written:
        print(f"picture  {path}")
    return 0


def draw_study(family: Family, study: Study, summary: Summary, out: Path) -> list[Path]:
    """Writes report.html, ranks.svg and the agreement's pictures and returns their paths."""
    texts = {"ranks.svg": draw_ranks(summary)} if summary.ranks else {}
    if any(trial.test is not None for trial in summary.results.trials):
        texts["figures.svg"] = draw_figures(summary)
    agreement: list[str] = []
    for strategy in summary.results.strategies:
        drawn = _agreement(family, study, strategy)
        texts.update({f"agreement-{strategy}-{kind}.svg": svg for kind, svg in drawn.items()})
        agreement += drawn.values()
    data = StudyData(
        title=f"{summary.results.title}: {', '.join(summary.results.strategies)}",
        sentence=summary.verdict,
        verdict=[_fact(row, summary) for row in summary.strategies],
        warnings=summary.warnings,
        figures=texts.get("figures.svg", ""),
        tables=tables_of(summary),
        scatter=texts.get("ranks.svg", ""),
        agreement=agreement,
        cells=[_cell(family, entry, summary) for entry in study.entries if entry.genotype],
        commands=[
            Snippet("The study; the same command goes on where it stopped", study.info.command),
            Snippet("Its tables", f"{family.command} table {study.folder} --format markdown"),
        ],
        stamp=[Fact(name, value) for name, value in stamp_of(summary).items() if name != "command"],
        citation=CITATION,
    )
    texts["report.html"] = render_study(data)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(out / name, text)
    except OSError as error:
        raise RunError(f"cannot write in {out}: {error.strerror}") from None
    return [out / name for name in texts]


def _agreement(family: Family, study: Study, strategy: str) -> dict[str, str]:
    """A picture for each kind of cell that the searches of a strategy have found."""
    genotypes = [e.genotype for e in study.entries if e.strategy == strategy and e.genotype]
    if not genotypes:
        return {}
    space = family.search_space(study.info.space)
    return {
        kind: draw_agreement(genotypes, space, kind, strategy, family.operation_groups)
        for kind in space.cell_kinds
    }


def _fact(row: StrategySummary, summary: Summary) -> Fact:
    if row.test is None:
        return Fact(row.strategy, "–", "no run evaluated yet")
    value = f"{spread_text(row.test)} {summary.results.unit}".rstrip()
    note = f"{summary.results.metric} · n {row.test.n} · best {row.test.best:.2f}"
    return Fact(row.strategy, value, note)


def _cell(family: Family, entry: Entry, summary: Summary) -> Group:
    genotype: Genotype | None = entry.genotype
    assert genotype is not None
    space, groups = family.search_space(genotype.space), family.operation_groups
    pictures = [draw_genotype(genotype, space, kind, groups) for kind in space.cell_kinds]
    trial = next(t for t in summary.results.trials if t.name == entry.name)
    figures = (
        ("test", trial.test, ".2f"),
        ("in search", trial.search, ".2f"),
        ("parameters", trial.parameters, ",d"),
    )
    said = [f"{name} {value:{form}}" for name, value, form in figures if value is not None]
    return Group(entry.name, " · ".join(said), pictures)
