"""The pictures of a searched run: cells, timeline, alphas, and the report in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgas.cells.space import SearchSpace
from sgas.config import PERMUTED_LABELS
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import Schedule, shown_epoch
from sgas.errors import RunError
from sgas.family import Family
from sgas.files import write_text
from sgas.protocols import PAPER, protocol_of_search
from sgas.reports import (
    CellReport,
    Fact,
    ReportData,
    Snippet,
    draw_alphas,
    draw_cell,
    draw_curves,
    draw_margin,
    draw_replay,
    draw_timeline,
    render_report,
)
from sgas.running.companions import what_is_known
from sgas.running.runs import read_genotype, read_metrics, read_records
from sgas.running.settings import Settings, open_settings

CITATION = (
    "Li, G., Qian, G., Delgadillo, I. C., Müller, M., Thabet, A., Ghanem, B.: "
    "SGAS: Sequential Greedy Architecture Search. CVPR 2020. arXiv:1912.00195"
)


def draw_run(family: Family, folder: Path, out: Path) -> list[Path]:
    """Writes all pictures of a search and its report into `out` and returns their paths."""
    settings, config = open_settings(family, folder)
    records, metrics = read_records(folder), read_metrics(folder)
    if not records or not metrics:
        raise RunError(f"{folder} has no scored epoch yet; wait for the first to end")
    genotype = read_genotype(folder)
    space = family.search_space(genotype.space)
    schedule = Schedule.of(settings.loop, space.topology(settings.model.num_steps))
    texts: dict[str, str] = {}
    cells = []
    for kind in space.cell_kinds:
        own = [record for record in records if record.cell == kind]
        cell = _cell_report(family, space, schedule, kind, own)
        cells.append(cell)
        texts[f"cell-{kind}.svg"] = cell.final
        texts[f"timeline-{kind}.svg"] = cell.timeline
        texts[f"alphas-{kind}.svg"] = cell.alphas
    curves = draw_curves(metrics, panels_of(metrics), schedule.decision_epochs)
    texts["curves.svg"] = curves
    data_set = Path(str(settings.run.dataset)).name
    data = ReportData(
        title=f"{data_set} · {settings.loop.strategy} · seed {settings.run.seed}",
        verdict=[
            *_verdict(metrics, protocol_of_search(config), schedule),
            *what_is_known(folder, space),
        ],
        warning=_warning(settings, config, metrics, schedule),
        cells=cells,
        curves=curves,
        usage=(
            Snippet("Train what was found", f"{family.command} train {folder}"),
            Snippet("The genotype, for other tools", genotype.to_text()),
        ),
        stamp=[Fact(name, str(value)) for name, value in config["environment"].items()],
        command=config["command"],
        citation=CITATION,
    )
    texts["report.html"] = render_report(data)
    return write_pictures(out, texts)


def write_pictures(out: Path, texts: Mapping[str, str]) -> list[Path]:
    """The paths of texts written into a folder, by name; RunError where it cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {out}: {error.strerror}") from None
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def _cell_report(
    family: Family,
    space: SearchSpace,
    schedule: Schedule,
    kind: str,
    records: Sequence[EpochRecord],
) -> CellReport:
    groups, num_epochs = family.operation_groups, schedule.num_epochs
    ahead = [epoch for epoch in schedule.decision_epochs if epoch > records[-1].epoch]
    decided = any(record.edge is not None for record in records)
    return CellReport(
        kind,
        draw_cell(records, space, num_epochs, kind, ahead[0] if ahead else None, groups),
        draw_timeline(records, space, num_epochs, groups),
        draw_replay(records, space, num_epochs, kind, groups),
        draw_margin(records, space, groups) if decided else "",
        draw_alphas(records, space, groups),
    )


def panels_of(metrics: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The curves of one figure share a panel, whatever the part."""
    parts = ("train_", "validation_", "test_")
    keys = [key for key in metrics[-1] if key.startswith(parts)]
    names = dict.fromkeys(key.partition("_")[2] for key in keys)
    return {name: [key for key in keys if key.partition("_")[2] == name] for name in names}


def time_taken(seconds: float, of_what: str) -> Fact:
    """Hours of a loop, or minutes where these say more."""
    if seconds < 3600:
        return Fact("minutes", f"{seconds / 60:.1f}", of_what)
    return Fact("hours", f"{seconds / 3600:.2f}", of_what)


def _verdict(metrics: Sequence[dict[str, Any]], protocol: str, schedule: Schedule) -> list[Fact]:
    last = metrics[-1]
    of = "of the best cell, as trained in the search" if schedule.costs else "of the supernet"
    facts = [
        Fact(name.replace("_", " "), f"{value:.3f}", f"{of}, last epoch")
        for name, value in last.items()
        if name.startswith("validation_") and name != "validation_loss"
    ]
    facts.append(Fact("decided edges", str(last["decided"])))
    facts.append(Fact("epochs", f"{shown_epoch(last['epoch'])} of {schedule.num_epochs}"))
    facts.append(time_taken(last["seconds"], "of search on this machine"))
    facts.append(Fact("protocol", protocol))
    return facts


def _warning(
    settings: Settings,
    config: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    schedule: Schedule,
) -> str:
    """What a reader has to know before believing the page."""
    parts = ["One search with one seed; a claim about a method needs ten, beside random cells."]
    if protocol_of_search(config) == PAPER:
        parts.append(f"{str(config['parts']).capitalize()}.")
    if settings.loop.sees == PERMUTED_LABELS:
        parts.append("A control: the labels were permuted, and nothing here is about the data.")
    if metrics[-1]["epoch"] < schedule.last_epoch:
        parts.append("The search has not ended.")
    return " ".join(parts)
