"""A table of the paper: what it is made of at each scale, and its column beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sgas.reports import Table
from sgas.studies.results import published_results
from sgas.studies.standings import markdown_table, to_markdown
from sgas.studies.summary import Summary, spread_text, summarise

DATA = "{data}"
SEARCH_TERAFLOPS = 0.2  # what the paper's 0.25 GPU days of a search on CIFAR-10 come to
TRAIN_TERAFLOPS = 2.0  # an assumption for one GPU of today, in single precision


@dataclass(frozen=True)
class PaperFigure:
    """What the paper reports of a strategy, in the table's unit."""

    shown: str
    best: str
    parameters: str = ""


@dataclass(frozen=True)
class Scale:
    """One size of a reproduction.

    `dataset` may begin with {data}, which stands for --data. `search_minutes` and `train_minutes`
    are those of one search and one training on one `processor`; `origin` says where they come from.
    `options` go to `sweep` (to `train` where there is no search). `comparable`: the paper's own
    setting. `transfer` names the data set and preset that the found cells are trained on instead.
    """

    dataset: str
    preset: str
    search_minutes: float
    train_minutes: float
    origin: str
    strategies: str = "cri1,cri2,random"
    seeds: str = "0-9"
    options: tuple[str, ...] = ()
    processor: str = "CPU core"
    comparable: bool = False
    transfer: tuple[str, str] | None = None
    protocol: str = "clean"


@dataclass(frozen=True)
class Reproduction:
    """One table of the paper.

    `published` names the packaged runs that give the paper's column; where the authors' files have
    no runs, `paper` gives what the paper states. `cells` are published cells that are trained where
    nothing is searched: (name, strategy).
    """

    name: str
    title: str
    family: str
    metric: str
    scales: Mapping[str, Scale]
    published: str | None = None
    paper: Mapping[str, PaperFigure] = field(default_factory=dict)
    cells: tuple[tuple[str, str], ...] = ()


def pflop_minutes(petaflop: float, teraflops: float) -> float:
    """Minutes of one GPU for so many 10¹⁵ floating-point operations at a rate."""
    return petaflop * 1000 / teraflops / 60


def side_by_side(reproduction: Reproduction, summary: Summary) -> Table:
    """The paper's column beside ours, a row a strategy that either has."""
    paper = _paper(reproduction)
    ours = {row.strategy: row for row in summary.strategies}
    unit = f"{summary.results.metric} {summary.results.unit}".rstrip()
    header = (
        "strategy",
        f"paper: {unit}",
        "paper: best",
        "paper: parameters",
        f"ours: {unit}",
        "ours: best",
        "ours: n",
        "ours: parameters",
        "ours: protocol",
    )
    rows = []
    for name in dict.fromkeys([*paper, *ours]):
        figure, row = paper.get(name), ours.get(name)
        test = row.test if row else None
        rows.append(
            (
                name,
                figure.shown if figure else "–",
                figure.best if figure else "–",
                (figure.parameters if figure else "") or "–",
                spread_text(test) if test else "–",
                f"{test.best:.2f}" if test else "–",
                str(test.n if test else 0),
                f"{row.parameters:,.0f}" if row and row.parameters else "–",
                summary.results.protocol,
            )
        )
    return Table(header, rows)


def page(
    reproduction: Reproduction, size: str, scale: Scale, protocol: str, summary: Summary
) -> str:
    """The Markdown of a reproduction: what it is, the two columns, and the whole summary."""
    where, data = "the paper's column is of protocol paper", scale.dataset.rpartition("/")[2]
    heading = reproduction.title
    if scale.comparable:
        told = f"Data set, sizes and epochs are the paper's; {where}, ours of {protocol}."
    else:
        told = (
            f"**Not the paper's setting**: {data}, preset {scale.preset}, protocol {protocol}. The "
            f"paper's column stands here for orientation; the figures cannot be compared ({where})."
        )
        heading = f"{data} beside the paper's table “{reproduction.title}”"
    lines = [f"# {heading}", "", f"Scale {size}. {told}", ""]
    lines += [*markdown_table(side_by_side(reproduction, summary)), ""]
    lines += [
        "Paper: Li et al., SGAS, CVPR 2020; – where neither the paper's table at hand nor the"
    ]
    lines += ["authors' files have a figure.", ""]
    if summary.ranks:
        lines += ["![place in the search against place after training](ranks.svg)", ""]
    return "\n".join([*lines, to_markdown(summary)])


def _paper(reproduction: Reproduction) -> Mapping[str, PaperFigure]:
    if reproduction.published is None:
        return reproduction.paper
    package = reproduction.family.partition(".")[0]
    summary = summarise(published_results(package, reproduction.published))
    return {
        row.strategy: PaperFigure(
            spread_text(row.test), f"{row.test.best:.2f}", f"{row.parameters or 0:,.0f}"
        )
        for row in summary.strategies
        if row.test is not None
    }
