"""What the reproduction scripts share: options, estimate, sweep, transfer, the paper beside ours.

A script names what a table of the paper is made of at three scales; this module calls `sweep`,
`train`, `evaluate`, `table` and `show` for it, and writes

    OUT/study      searches and trainings (a study folder)
    OUT/transfer   trainings on another data set than the search's, a run folder each
    OUT/table.md   the paper's column beside ours, then all that `table` says
    OUT/ranks.svg  OUT/report.html

Repeating a command goes on where it stopped; what is done is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from paper import DATA, Reproduction, Scale, page, side_by_side

from sgas.cli import main as command
from sgas.commands.study_page import draw_study
from sgas.config import SweepConfig
from sgas.errors import DataError, SgasError
from sgas.family import Family
from sgas.files import write_text
from sgas.running.runs import is_run, read_config
from sgas.studies.results import results_of
from sgas.studies.standings import markdown_table
from sgas.studies.study import Entry, Study, StudyInfo, read_study
from sgas.studies.summary import summarise

SCALES = ("tiny", "small", "full")
PROTOCOLS = ("clean", "paper")


@dataclass(frozen=True)
class Asked:
    """What a command line asks for."""

    scale: str
    protocol: str
    data: Path
    out: Path
    strategies: str
    seeds: str
    more: tuple[str, ...]
    words: tuple[str, ...]


def main(reproductions: Sequence[Reproduction], argv: Sequence[str] | None = None) -> int:
    """Makes the tables of a script one after the other: 0 where all were made."""
    words = list(sys.argv[1:] if argv is None else argv)
    statuses = []
    try:
        for reproduction in reproductions:
            asked = _asked(reproduction, words, several=len(reproductions) > 1)
            statuses.append(reproduce(reproduction, asked))
            if statuses[-1] == 130:
                break
    except SgasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return max(statuses)


def reproduce(reproduction: Reproduction, asked: Asked) -> int:
    """Makes one table and returns the exit status; what was done before is not done again."""
    scale = _with_data(reproduction.scales[asked.scale], asked)
    family: Family = import_module(reproduction.family).FAMILY
    print(f"== {reproduction.title} · scale {asked.scale} · protocol {asked.protocol}", flush=True)
    print(estimate(reproduction, scale, asked), flush=True)
    status = 0
    if not reproduction.cells:
        status = _sweep(family, scale, asked)
        if status not in (0, 1):  # 1: a part failed; the table says which, and holds the rest
            return status
    study = None if reproduction.cells else read_study(asked.out / "study")
    if reproduction.cells or scale.transfer:
        status = max(status, _transfer(family, reproduction, scale, asked, study))
        if status not in (0, 1):
            return status
        study = _transferred(family, reproduction, scale, asked, study)
    assert study is not None
    study = dataclasses.replace(study, info=_with_command(study.info, reproduction, asked))
    results = results_of(study, _metric(reproduction, study))
    if reproduction.cells:  # without seeds nothing is paired
        results = dataclasses.replace(
            results, trials=tuple(dataclasses.replace(t, seed=None) for t in results.trials)
        )
    summary = summarise(results)
    draw_study(family, study, summary, asked.out)
    write_text(
        asked.out / "table.md", page(reproduction, asked.scale, scale, asked.protocol, summary)
    )
    print("\n".join(markdown_table(side_by_side(reproduction, summary))))
    print(f"table    {asked.out / 'table.md'}\npage     {asked.out / 'report.html'}", flush=True)
    return status


def estimate(reproduction: Reproduction, scale: Scale, asked: Asked) -> str:
    """How long it takes, in words, before anything starts."""
    if reproduction.cells:
        searches, trainings = 0, len(reproduction.cells)
    else:
        chosen = SweepConfig(strategies=asked.strategies, seeds=asked.seeds)
        searches = len(chosen.strategy_names) * len(chosen.seed_numbers)
        trainings = searches
    minutes = searches * scale.search_minutes + trainings * scale.train_minutes
    hours = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.1f} minutes"
    return (
        f"estimate {searches} searches and {trainings} trainings: about {hours} of one "
        f"{scale.processor}, less what is done already ({scale.origin})"
    )


def _asked(reproduction: Reproduction, words: list[str], several: bool) -> Asked:
    parser = argparse.ArgumentParser(
        description=f"Reproduce: {reproduction.title}. Other options go to sweep (or train).",
        allow_abbrev=False,
    )
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="default: tiny")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: clean, at full paper")
    parser.add_argument("--data", type=Path, help="folder of data for small (default: shared/data)")
    parser.add_argument("--out", type=Path, help="folder (default: reproductions/NAME-SCALE)")
    parser.add_argument("--strategies", help="instead of the scale's")
    parser.add_argument("--seeds", help="instead of the scale's, such as 0-4")
    known, more = parser.parse_known_args(words)
    scale = reproduction.scales[known.scale]
    protocol = known.protocol or scale.protocol
    name = f"{reproduction.name}-{known.scale}-{protocol}"
    out = known.out or Path("reproductions") / name
    return Asked(
        known.scale,
        protocol,
        (known.data or Path(__file__).resolve().parents[3] / "shared" / "data").resolve(),
        out / reproduction.name if several and known.out else out,
        known.strategies or scale.strategies,
        known.seeds or scale.seeds,
        tuple(more),
        tuple(words),
    )


def _with_data(scale: Scale, asked: Asked) -> Scale:
    """The scale with the folder of data in its place; DataError where it is not there."""
    if not scale.dataset.startswith(DATA):
        return scale
    folder = scale.dataset.replace(DATA, str(asked.data))
    if not Path(folder).is_dir():
        raise DataError(f"there is no data at {folder}; give the folder that holds it with --data")
    return dataclasses.replace(scale, dataset=folder)


def _sweep(family: Family, scale: Scale, asked: Asked) -> int:
    words = ["sweep", "--dataset", scale.dataset, "--preset", scale.preset]
    words += ["--strategies", asked.strategies, "--seeds", asked.seeds]
    words += ["--protocol", asked.protocol, "--out", str(asked.out / "study")]
    return command(family, [*words, *scale.options, *asked.more])


def _transfer(
    family: Family, reproduction: Reproduction, scale: Scale, asked: Asked, study: Study | None
) -> int:
    """Trains and evaluates each cell on the other data set; a run that is done is left alone."""
    dataset, preset = scale.transfer or (scale.dataset, scale.preset)
    more = [] if study else [*scale.options, *asked.more]
    status = 0
    for name, seed, genotype in _cells(reproduction, study):
        folder = asked.out / "transfer" / name
        words = ["train", genotype, "--dataset", dataset, "--preset", preset, "--seed", str(seed)]
        words += ["--protocol", asked.protocol, "--out", str(folder), *more]
        if is_run(folder):
            words = ["train", "--resume", str(folder)]
        if not (folder / "result.json").is_file():
            ended = command(family, words)
            if ended not in (0, 1):
                return ended
            status = max(status, ended)
        if (folder / "result.json").is_file() and not (folder / "evaluation.json").is_file():
            status = max(status, command(family, ["evaluate", str(folder)]))
    return status


def _cells(reproduction: Reproduction, study: Study | None) -> list[tuple[str, int, str]]:
    """(name, seed, genotype) of each cell that is trained on another data set."""
    if study is None:
        return [(name, 0, name) for name, _ in reproduction.cells]
    return [
        (entry.name, entry.seed, str(entry.search_folder))
        for entry in study.entries
        if entry.genotype is not None
    ]


def _transferred(
    family: Family, reproduction: Reproduction, scale: Scale, asked: Asked, study: Study | None
) -> Study:
    """The study whose tests are those of the other data set."""
    folder = asked.out / "transfer"
    dataset, preset = scale.transfer or (scale.dataset, scale.preset)
    entries = [
        dataclasses.replace(entry, **_figures(folder / entry.name))
        for entry in (study.entries if study else _published_entries(family, reproduction))
    ]
    runs = [folder / name for name, *_ in _cells(reproduction, study) if is_run(folder / name)]
    environment = read_config(runs[0])["environment"] if runs else {}
    return Study(
        asked.out,
        StudyInfo(
            format=1,
            family=family.name,
            home=family.home,
            dataset=Path(dataset).name,
            space=study.info.space if study else next(iter(family.spaces)),
            preset=preset,
            protocol=asked.protocol,
            strategies=list(dict.fromkeys(entry.strategy for entry in entries)),
            seeds=list(dict.fromkeys(entry.seed for entry in entries)),
            search={},
            train={},
            command="",
            environment=environment,
        ),
        entries,
    )


def _published_entries(family: Family, reproduction: Reproduction) -> list[Entry]:
    """An entry for each published cell; nobody knows the seed of its search."""
    return [
        _Named(strategy, 0, {}, genotype=family.load_published(name), label=name)
        for name, strategy in reproduction.cells
    ]


@dataclass(frozen=True)
class _Named(Entry):
    """An entry with a name of its own."""

    label: str = ""

    @property
    def name(self) -> str:
        """The published name."""
        return self.label


def _figures(run: Path) -> dict[str, Any]:
    """The figures of a trained run, None where they are not there yet."""
    result, evaluation = (_json(run / name) for name in ("result.json", "evaluation.json"))
    tested = {k: v for k, v in evaluation.items() if isinstance(v, float)}
    return {
        "train_folder": run if is_run(run) else None,
        "result": result or None,
        "test": tested or None,
        "parameters": result.get("parameters"),
        "flops": result.get("flops"),
    }


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _metric(reproduction: Reproduction, study: Study) -> str | None:
    """The paper's metric where something was measured, else what there is."""
    return reproduction.metric if any(e.test or e.validation for e in study.entries) else None


def _with_command(info: StudyInfo, reproduction: Reproduction, asked: Asked) -> StudyInfo:
    words = ["python", f"benchmarks/reproduce/{Path(sys.argv[0]).name}", *asked.words]
    return msgspec.structs.replace(info, command=shlex.join(words))
