"""Results: the runs that a table is about, of a study on disk or of the paper.

Figures are in the unit of the table: percent for accuracies and F1, as they are for anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sgas import __version__
from sgas.cells.genotype import Genotype
from sgas.errors import RunError, unknown_name
from sgas.protocols import cell_protocol, worst
from sgas.running.runs import read_config
from sgas.studies.study import Entry, Study

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

LOSS, ERROR = "loss", "error"
PLAIN = (LOSS, "r2", "mae", "rmse")  # in their own unit, not in per cent
LESS = (LOSS, ERROR, "mae", "rmse")  # the less the better
ENVIRONMENT = ("sgas", "git_commit", "python", "torch")


@dataclass(frozen=True)
class Trial:
    """One search and what became of it; a figure is None where there is none (yet).

    `search` is the figure of the search phase (of the supernet, last epoch), `test` that of the
    trained network on the test split, last epoch, and `best_epoch` that of the test split's best
    epoch (protocol `paper`). `evidence` is the share of the cell's edges, in per cent, of which the
    search had evidence for the operation. `search_rank` and `test_rank` are ranks that the source
    gives itself.
    """

    name: str
    strategy: str
    seed: int | None = None
    search: float | None = None
    test: float | None = None
    best_epoch: float | None = None
    search_rank: float | None = None
    test_rank: float | None = None
    parameters: int | None = None
    flops: int | None = None
    search_seconds: float | None = None
    failure: str | None = None
    evidence: float | None = None


@dataclass(frozen=True)
class Results:
    """Trials with all that a reader has to know of them.

    `stamp` names protocol, machine, versions and command; `notes` is what the source says itself.
    `published` is True for figures of a paper: nothing of them was run here.
    """

    title: str
    dataset: str
    protocol: str
    metric: str
    unit: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    stamp: Mapping[str, str]
    notes: tuple[str, ...] = ()
    published: bool = False

    @property
    def strategies(self) -> list[str]:
        """The strategies, in the order in which the study has them."""
        return list(dict.fromkeys(trial.strategy for trial in self.trials))

    def of(self, strategy: str) -> list[Trial]:
        """The trials of a strategy."""
        return [trial for trial in self.trials if trial.strategy == strategy]


def results_of(study: Study, metric: str | None = None) -> Results:
    """The results of a study by a metric of its evaluations (default: its first, loss excepted).

    `error` stands for 100 % − accuracy. InputError for a metric that no evaluation has.
    """
    known = list(
        dict.fromkeys(
            name for entry in study.entries for name in (entry.test or entry.validation or {})
        )
    )
    if "accuracy" in known:
        known.append(ERROR)
    chosen = metric or next((name for name in known if name != LOSS), "accuracy")
    if known and chosen not in known:
        raise unknown_name("metric", chosen, known)
    info, protocol = study.info, _protocol(study)
    return Results(
        title=f"{Path(info.dataset).name} · {study.folder.resolve().name}",
        dataset=info.dataset,
        protocol=protocol,
        metric=chosen,
        unit="" if chosen in PLAIN else "%",
        higher_is_better=chosen not in LESS,
        trials=tuple(_trial(entry, chosen) for entry in study.entries),
        stamp={**_stamp(study), "protocol": protocol},
    )


def _protocol(study: Study) -> str:
    """The worst protocol of all that made the figures: the study's, the cells', the trainings'."""
    cells = [cell_protocol(e.genotype.meta) for e in study.entries if e.genotype is not None]
    asked = study.info.protocol
    trained = [(e.result or {}).get("protocol", asked) for e in study.entries]
    return worst(asked, *cells, *trained)


def _trial(entry: Entry, metric: str) -> Trial:
    name = "accuracy" if metric == ERROR else metric
    return Trial(
        name=entry.name,
        strategy=entry.strategy,
        seed=entry.seed,
        search=_shown(entry.validation, name, metric),
        test=_shown(entry.test, name, metric),
        best_epoch=_shown(entry.result, f"best_test_epoch_{name}", metric),
        parameters=entry.parameters,
        flops=entry.flops,
        search_seconds=entry.search_seconds,
        failure=entry.failure,
        evidence=None if entry.genotype is None else _evidence(entry.genotype),
    )


def _evidence(genotype: Genotype) -> float | None:
    """The per cent of a cell's edges with evidence; None where its search did not say."""
    weak = genotype.meta.get("without_evidence")
    count = sum(len(cell.edges) for cell in genotype.cells.values())
    return None if weak is None else 100 * (1 - len(weak) / count)


def _shown(figures: Mapping[str, Any] | None, name: str, metric: str) -> float | None:
    value = (figures or {}).get(name)
    if value is None or not math.isfinite(value):
        return None
    if metric in PLAIN:
        return float(value)
    return 100 * (1 - value) if metric == ERROR else 100 * value


def _threads(study: Study) -> list[int]:
    """The numbers of threads that the runs of a study had, as their config.json say."""
    folders = [f for e in study.entries for f in (e.search_folder, e.train_folder) if f is not None]
    counts = set()
    for folder in folders:
        try:
            counts.add(read_config(folder)["environment"].get("threads"))
        except RunError:  # its figures stand; on how many threads they were made is not known
            continue
    return sorted(count for count in counts if count is not None)


def _stamp(study: Study) -> dict[str, str]:
    info, machine, threads = study.info, study.info.environment, _threads(study)
    versions = " · ".join(f"{key} {machine[key]}" for key in ENVIRONMENT if machine.get(key))
    return {
        "data set": info.dataset,
        "preset": info.preset,
        "machine": " · ".join(
            str(part)
            for part in (
                machine.get("device"),
                machine.get("platform"),
                f"threads {', '.join(map(str, threads))}" if threads else None,
            )
            if part
        ),
        "versions": versions,
        "command": info.command,
    }


class _PublishedRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of a paper; `small_…` are those of the paper's small network."""

    cell: str
    strategy: str
    search: float | None = None
    test: float | None = None
    search_rank: float | None = None
    test_rank: float | None = None
    parameters: int | None = None
    flops: int | None = None
    top5_error: float | None = None
    small_test: float | None = None
    small_parameters: int | None = None


class _Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of published runs, in the folder `results` of a family."""

    format: int
    dataset: str
    protocol: str
    metric: str
    unit: str
    higher_is_better: bool
    search_metric: str | None
    source: str
    notes: tuple[str, ...]
    runs: tuple[_PublishedRun, ...]


def published_results(package: str, name: str, command: str = "") -> Results:
    """The paper's runs on a data set; InputError with the choices for an unknown name.

    `command` is what asked for them, for the stamp.
    """
    files = _published_files(package)
    if name not in files:
        raise unknown_name("published data set", name, files)
    read = msgspec.json.decode(files[name].read_bytes(), type=_Published)
    fields = ("strategy", "search", "test", "search_rank", "test_rank", "parameters", "flops")
    trials = tuple(
        Trial(name=run.cell, **{field: getattr(run, field) for field in fields})
        for run in read.runs
    )
    return Results(
        title=f"{read.dataset} · as published",
        dataset=read.dataset,
        protocol=read.protocol,
        metric=read.metric,
        unit=read.unit,
        higher_is_better=read.higher_is_better,
        trials=trials,
        stamp={
            "data set": read.dataset,
            "protocol": read.protocol,
            "source": read.source,
            "paper": "Li et al., SGAS, CVPR 2020 (arXiv:1912.00195)",
            "search figure": read.search_metric or "not published",
            "machine": "the authors'; nothing was run here",
            "versions": f"sgas {__version__} (the statistics alone)",
            "command": command,
        },
        notes=(*read.notes, *_small(read.runs, read.unit)),
        published=True,
    )


def published_datasets(package: str) -> list[str]:
    """The data sets of which a family has published runs."""
    return list(_published_files(package))


def _published_files(package: str) -> dict[str, Traversable]:
    folder = resources.files(package) / "results"
    if not folder.is_dir():
        raise RunError(f"{package} has no published runs")
    files = {path.name.removesuffix(".json"): path for path in folder.iterdir()}
    return {name: files[name] for name in sorted(files) if files[name].name.endswith(".json")}


def _small(runs: Sequence[_PublishedRun], unit: str) -> list[str]:
    return [
        f"Small network: {run.cell} {run.small_test} {unit} with {run.small_parameters:,} "
        "parameters."
        for run in runs
        if run.small_test is not None and run.small_parameters is not None
    ]
