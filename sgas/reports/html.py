"""The report of a run and the page of a study: one HTML file each, with everything in it.

Neither asks any network for anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sgas.files import write_text
from sgas.reports.cell import Replay
from sgas.reports.svg import DARK, plain

if TYPE_CHECKING:
    from jinja2 import Environment

NUMERIC = re.compile(
    r"–|[-+−]?[\d.,]+( ± [\d.,]+)?( %)?( \[.*\])?"
)  # cells that stand on the right


@dataclass(frozen=True)
class Fact:
    """A named value and what one has to know to read it: ("accuracy", "92.9 ± 0.2", "n 10")."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts: the header and rows of the same length."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Snippet:
    """A command or a piece of code, and what it is for."""

    caption: str
    code: str


@dataclass(frozen=True)
class CellReport:
    """The pictures of one kind of cell, as SVG; an empty one is left out."""

    kind: str
    final: str
    timeline: str = ""
    replay: Replay | None = None
    margin: str = ""
    alphas: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with a line below it, a picture and a table; `key` is its place in the page."""

    key: str
    title: str
    caption: str = ""
    picture: str = ""
    table: Table | None = None


@dataclass(frozen=True)
class ReportData:
    """All that a report shows, as plain values; what is empty has no section.

    `network` is the picture of a whole network. `stamp` holds versions, seed, device and commit;
    `command` is the exact command of the run. SVGs come from this package and go in as they are;
    everything else is escaped.
    """

    title: str
    verdict: Sequence[Fact] = ()
    warning: str = ""
    network: str = ""
    cells: Sequence[CellReport] = ()
    curves: str = ""
    sections: Sequence[Section] = ()
    usage: Sequence[Snippet] = ()
    stamp: Sequence[Fact] = ()
    command: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Group:
    """Pictures under one heading, and a line on what they are."""

    title: str
    caption: str
    pictures: Sequence[str]


@dataclass(frozen=True)
class StudyData:
    """All that the page of a study shows; what is empty has no section.

    `figures` is the picture of all runs; `tables` by their titles; `scatter` is the picture of
    ranks; `agreement` are pictures for each strategy and kind of cell, and `cells` has a group a
    run.
    """

    title: str
    sentence: str
    verdict: Sequence[Fact] = ()
    warnings: Sequence[str] = ()
    figures: str = ""
    tables: Mapping[str, Table] = field(default_factory=dict)
    scatter: str = ""
    agreement: Sequence[str] = ()
    cells: Sequence[Group] = ()
    commands: Sequence[Snippet] = ()
    stamp: Sequence[Fact] = ()
    citation: str = ""


def render_report(data: ReportData) -> str:
    """The HTML text of a report."""
    return _render("report.html.j2", report=data)


def render_study(data: StudyData) -> str:
    """The HTML text of the page of a study."""
    return _render("study.html.j2", study=data)


def _render(template: str, **data: object) -> str:
    return plain(_environment().get_template(template).render(**data))


@cache  # which keeps compiled templates: of a small report they take a third of its time
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sgas.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A page has the rules of its pictures once.
    environment.filters["svg"] = lambda svg: Markup(svg.replace(f"<style>{DARK}</style>", ""))
    environment.globals["dark"] = Markup(DARK)
    environment.tests["numeric"] = lambda value: NUMERIC.fullmatch(value) is not None
    return environment


def write_report(path: str | Path, data: ReportData) -> Path:
    """The path of the report, which is written whole or not at all."""
    path = Path(path)
    write_text(path, render_report(data))
    return path
