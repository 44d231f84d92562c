"""`table STUDY`: strategies side by side, rank correlation, comparisons; or the paper's runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.commands.common import command_of, open_study
from sgas.errors import ConfigError, RunError, unknown_name
from sgas.family import Family
from sgas.files import write_text
from sgas.options import PLUGIN, Flag, Positional, Words, parse, parser_for
from sgas.terminal import console, shown

if TYPE_CHECKING:
    from sgas.studies.summary import GivenRow, Summary

STUDY = Positional("study", "study folder that sweep wrote; none with --published")
FORMATS = ("text", "markdown", "latex", "csv", "json")
FLAGS = [
    PLUGIN,
    Flag("json", "print one JSON object, as --format json"),
    Flag("format", f"{', '.join(FORMATS)} (default: text)", is_switch=False),
    Flag("out", "file for the table instead of standard output", is_switch=False),
    Flag("metric", "figure to compare: accuracy, micro_f1, …, error, loss", is_switch=False),
    Flag("picture", "SVG file for the two ranks (default: ranks.svg in the study)", False),
    Flag(
        "add",
        "row of your own, marked as given: NAME,MEAN or NAME,MEAN,SD,N; may be given several times",
        is_switch=False,
    ),
    Flag("published", "the paper's runs on this data set instead of a study", is_switch=False),
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `table` and returns 0; errors are raised."""
    about = (
        "Say what a study found: per strategy mean ± SD, best and worst over the seeds; Kendall's "
        "τ-b between the figures of search and test split; strategies in pairs."
    )
    positionals = [] if Words.of(argv).value("published") else [STUDY]
    parser = parser_for(family.command, "table", about, {}, positionals, FLAGS)
    values = parse(parser, argv)
    shape = _format(values)
    from sgas.studies.results import published_results, results_of
    from sgas.studies.summary import summarise

    given = [_row(text) for name, text in Words.of(argv).options if name == "add" and text]
    picture = Path(values["picture"]) if values["picture"] else None
    if values["published"]:
        if values["metric"]:
            raise ConfigError("--metric has no meaning with --published: the paper chose its own")
        command = command_of(family, "table", argv)
        summary = summarise(published_results(family.package, values["published"], command), given)
    else:
        study = open_study(family, Path(values["study"]))
        summary = summarise(results_of(study, values["metric"]), given)
        picture = picture or study.folder / "ranks.svg"
    text = _TEXTS[shape](summary)
    if values["out"]:
        _write(Path(values["out"]), text)
    else:
        print(text, end="")
    drawn = _draw(summary, picture, asked=bool(values["picture"]))
    if drawn and (shape == "text" or values["out"]):
        print(f"picture  {drawn}")
    return 0


def _row(text: str) -> GivenRow:
    """The row that `--add` gives; ConfigError where it is none."""
    from sgas.studies.summary import GivenRow

    name, *figures = (part.strip() for part in text.split(","))
    try:
        if not name or len(figures) not in (1, 3):
            raise ValueError
        mean, sd, n = float(figures[0]), float([*figures, "0"][1]), int([*figures, "0", "1"][2])
        if not (math.isfinite(mean) and 0 <= sd < math.inf and n >= 1):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--add is {text!r}: give NAME,MEAN or NAME,MEAN,SD,N, such as DGCNN,92.9,0.2,10"
        ) from None
    return GivenRow(name, mean) if len(figures) == 1 else GivenRow(name, mean, sd, n)


def _format(values: dict[str, Any]) -> str:
    shape: str = values["format"] or ("json" if values["json"] else "text")
    if shape not in FORMATS:
        raise unknown_name("value of --format", shape, FORMATS, error=ConfigError)
    if values["json"] and shape != "json":
        raise ConfigError(f"--json and --format {shape} exclude each other; give one of them")
    return shape


def _draw(summary: Summary, path: Path | None, asked: bool) -> Path | None:
    """The path of the picture of ranks; None where there is nothing to draw or no room for it.

    A study that may only be read is no reason to fail, unless the picture was asked for.
    """
    from sgas.studies.ranks import draw_ranks

    if path is None or not (summary.ranks or asked):
        return None
    try:
        _write(path, draw_ranks(summary))
    except RunError:
        if asked:
            raise
        return None
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def _plain(summary: Summary) -> str:
    """The tables for a terminal, or for a file or pipe as wide as they need."""
    import sys

    from rich.table import Table

    from sgas.studies.standings import IN_WORDS, tables_of
    from sgas.studies.summary import stamp_of

    terminal = console().is_terminal
    out = console(width=None if terminal else 160, file=sys.stdout)
    with out.capture() as captured:
        out.print(shown(summary.results.title), style="bold")
        out.print(shown(summary.verdict))
        for warning in summary.warnings:
            out.print(shown(f"note  {warning}"))
        for title, table in tables_of(summary, runs=False).items():
            out.print(shown(f"\n{title}"), style="bold")
            drawn = Table()
            for head in table.header:
                left = head in (table.header[0], IN_WORDS)
                drawn.add_column(shown(head), justify="left" if left else "right")
            for row in table.rows:
                drawn.add_row(*map(shown, row))
            out.print(drawn)
        for line in summary.results.notes:
            out.print(shown(line))
        for name, value in stamp_of(summary).items():
            out.print(shown(f"{name:<10}  {value}"), soft_wrap=True)
    return captured.get()


def _markdown(summary: Summary) -> str:
    from sgas.studies.standings import to_markdown

    return shown(to_markdown(summary))


def _latex(summary: Summary) -> str:
    from sgas.studies.standings import to_latex

    return shown(to_latex(summary))


def _csv(summary: Summary) -> str:
    from sgas.studies.standings import to_csv

    return to_csv(summary)


def _json(summary: Summary) -> str:
    import json

    from sgas.studies.summary import stamp_of

    return json.dumps({**summary.to_dict(), "stamp": dict(stamp_of(summary))}, indent=2) + "\n"


_TEXTS: dict[str, Callable[[Summary], str]] = {
    "text": _plain,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}
