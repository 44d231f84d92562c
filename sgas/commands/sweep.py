"""`sweep`: searches by several strategies and seeds, trains and evaluates what each found.

Everything stands in one study folder (`sgas.studies.study`). The same command goes on with it; what
is done is not done again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from jsonargparse import ArgumentParser

from sgas.commands.common import command_of, epilog
from sgas.config import ClusterConfig, RunConfig, SweepConfig, fields_of, make
from sgas.errors import ConfigError, RunError
from sgas.family import Family
from sgas.files import make_folder, write_text
from sgas.native.backend import backend_for
from sgas.options import PLUGIN, Nested, Words, parse, parser_for, print_config
from sgas.own import OPTIONS
from sgas.protocols import search_parts, train_parts
from sgas.registry import COPIES, copies, described, records
from sgas.running.checks import require_batch, require_grounds, require_samples
from sgas.running.machine import environment, prepare, resolve_device
from sgas.running.settings import (
    SECTIONS,
    Settings,
    data_options,
    load_preset,
    resolve,
    sections_of,
    where_of,
    with_absolute_paths,
)
from sgas.studies.conduct import conduct
from sgas.studies.jobs import Jobs, LocalJobs
from sgas.studies.study import (
    LOCK,
    MANIFEST,
    PHASES,
    Part,
    StudyInfo,
    change_parts,
    entry_name,
    hold,
    is_study,
    read_info,
    read_manifest,
    write_info,
)

VERBS = ("search", "train")
OWN_LOCK = ".lock"
SHOWN = 4  # differences that a refusal names


@dataclass(frozen=True)
class Asked:
    """What a command asks for: the study as it would be begun, and how it is to run."""

    info: StudyInfo
    sweep: SweepConfig
    cluster: ClusterConfig
    search: Settings
    train: Settings
    threads: int
    folder: Path


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `sweep`: 0 where all parts are done, 1 where one failed; errors are raised."""
    asked = _asked(family, argv)
    folder = asked.folder
    names = [entry_name(s, n) for s in asked.sweep.strategy_names for n in asked.sweep.seed_numbers]
    fresh = not is_study(folder)
    if fresh:
        _rehearse(family, asked)
    else:
        _refuse_changes(folder, read_info(folder), asked)
    jobs = _jobs(family, asked)
    _make_folder(folder)
    with hold(folder / OWN_LOCK, f"{folder} is being swept by another process"):
        _write(folder, asked.info, names, fresh)
        return conduct(family, folder, names, jobs, asked.info.command)


def _asked(family: Family, argv: Sequence[str]) -> Asked:
    """The resolved options of a command; ConfigError for what cannot be used."""
    words = Words.of(argv)
    where = where_of(family, "sweep", {name: words.value(name) for name in ("dataset", "space")})
    parser = _parser(family, *where)
    values = parse(parser, argv)
    sweep, cluster = make(SweepConfig, values), make(ClusterConfig, values)
    shared = {name: values[name] for name in fields_of(RunConfig, "sweep") if name in values}
    settings: dict[str, Settings] = {}
    for verb in VERBS:
        own = data_options(family, settings["search"]) if settings else {}
        taken = {option: value for option, value in own.items() if option in OPTIONS}
        of_verb = resolve(family, verb, {**shared, **taken, **values.get(verb, {})})
        run = dataclasses.replace(of_verb.run, seed=0, threads=None, out=None)
        settings[verb] = dataclasses.replace(of_verb, run=run)
    run = settings["search"].run
    print_config(parser, argv, _by_dotted_name(sweep, cluster, settings))
    name = f"{Path(str(run.dataset)).resolve().name}-{run.preset}"
    return Asked(
        _info(family, settings, sweep, command_of(family, "sweep", argv)),
        sweep,
        cluster,
        settings["search"],
        settings["train"],
        _threads(family, sweep, cluster, run),
        Path(sweep.out) if sweep.out else Path("studies") / name,
    )


def _by_dotted_name(
    sweep: SweepConfig, cluster: ClusterConfig, settings: Mapping[str, Settings]
) -> dict[str, Any]:
    """All values as the command line names them."""
    shared = dataclasses.asdict(settings["search"].run)
    nested = {
        f"{verb}.{name}": value
        for verb in VERBS
        for name, value in settings[verb].values().items()
        if name not in shared
    }
    return {**shared, **dataclasses.asdict(cluster), **dataclasses.asdict(sweep), **nested}


def _parser(family: Family, dataset: str, space: str) -> ArgumentParser:
    about = (
        "Search by several strategies and seeds, train and evaluate what each found. The same "
        "command goes on where it stopped; parts that are done are not done again."
    )
    sections: dict[str, type | Nested] = {
        "study": SweepConfig,
        "run": RunConfig,
        "where the jobs run": ClusterConfig,
    }
    # A study names strategies itself, trains from scratch, and searches for its cells itself.
    without = ("strategy", "weights", "candidates")
    for verb in VERBS:
        own = {n: config for n, config in sections_of(family, verb, space).items() if n != "run"}
        sections[f"{verb} ({space})"] = Nested(verb, tuple(own.values()), without)
    end = epilog(family, "sweep", dataset, space)
    return parser_for(family.command, "sweep", about, sections, flags=[PLUGIN], epilog=end)


def _threads(family: Family, sweep: SweepConfig, cluster: ClusterConfig, run: RunConfig) -> int:
    """CPU threads of a job: as asked, else its share of the cores, as far as the preset wants."""
    if sweep.threads is not None:
        return sweep.threads
    if cluster.cluster == "slurm":
        share = cluster.cpus
    else:
        share = max(1, _num_cores() // (sweep.jobs or 1))
    presets = (load_preset(family, str(run.space), str(run.preset), verb) for verb in VERBS)
    return min([share, *(preset["threads"] for preset in presets if "threads" in preset)])


def _num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _info(
    family: Family, settings: Mapping[str, Settings], sweep: SweepConfig, command: str
) -> StudyInfo:
    run = with_absolute_paths(family, settings["search"].run)
    sections = {verb: _sections(dataclasses.replace(settings[verb], run=run)) for verb in VERBS}
    return StudyInfo(
        format=1,
        family=family.name,
        home=family.home,
        dataset=str(run.dataset),
        space=str(run.space),
        preset=str(run.preset),
        protocol=run.protocol,
        strategies=list(sweep.strategy_names),
        seeds=list(sweep.seed_numbers),
        search=sections["search"],
        train=sections["train"],
        command=command,
        environment={},
        plugins=records(),
        asked={verb: list(settings[verb].asked or ()) for verb in VERBS},
    )


def _sections(settings: Settings) -> dict[str, Any]:
    """A run's sections without what differs from job to job: seed, strategy, threads, folder."""
    own = ("seed", "strategy", "threads", "out")
    parts = {name: getattr(settings, name) for name in SECTIONS}
    return {
        name: {key: value for key, value in dataclasses.asdict(part).items() if key not in own}
        for name, part in parts.items()
    }


def _refuse_changes(folder: Path, before: StudyInfo, asked: Asked) -> None:
    """ConfigError where a study was begun with other options; strategies and seeds may be added."""
    changes = [f"{name} was {old!r}, now {new!r}" for name, old, new in _differences(before, asked)]
    if changes:
        more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise ConfigError(
            f"{folder} was begun with other options: {'; '.join(changes[:SHOWN])}{more}; give them "
            "as they were, or another --out"
        )


def _differences(before: StudyInfo, asked: Asked) -> Iterator[tuple[str, Any, Any]]:
    now = asked.info
    for name in ("family", "dataset", "space", "protocol"):
        if getattr(before, name) != getattr(now, name):
            yield name, getattr(before, name), getattr(now, name)
    plugins = described(before.plugins), described(now.plugins)
    if plugins[0] != plugins[1]:
        yield "plugins", *plugins
    shared = ("dataset", "space", "protocol", "preset", "data_root")
    for verb in VERBS:
        old, new = _flat(getattr(before, verb)), _flat(getattr(now, verb))
        settings: Settings = getattr(asked, verb)
        defaults = _flat({section: settings.before(section) for section in getattr(now, verb)})
        old = {**{name: defaults[name] for name in new}, **old}
        for name in dict.fromkeys([*old, *new]):
            section, _, key = name.partition(".")
            if old.get(name) != new.get(name) and not (section == "run" and key in shared):
                shown = key if section == "run" else f"{verb}.{key}"
                yield shown, old.get(name), new.get(name)


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All values of a study's sections by `section.key`."""
    return {f"{name}.{key}": v for name, part in sections.items() for key, v in part.items()}


def _rehearse(family: Family, asked: Asked) -> None:
    """Opens the data and builds both kinds of model once, so that what does not fit is told now."""
    # In Slurm's jobs, another machine's device counts; data is downloaded here, once for all.
    device = resolve_device("cpu" if asked.cluster.cluster == "slurm" else asked.search.run.device)
    if asked.cluster.cluster != "slurm":
        prepare(family, asked.search.run, device, None)
    for settings in (asked.search, asked.train):
        task = family.open_task(settings.run, settings.model, settings.data)
        require_batch(settings.loop.batch_size, task.smallest_batch)
        fraction = settings.loop.validation_fraction
        split = settings.run.protocol, asked.sweep.seed_numbers[0], fraction, device
        if settings.verb == "search":
            for strategy in asked.sweep.strategy_names:
                require_grounds(family, settings, strategy)
            task.build_supernet()
            loop = settings.loop
            drawn = search_parts(task, *split, loop.sees, loop.alphas_from)
            parts = {"part of the weights": drawn.weights, "part of the alphas": drawn.alphas}
        else:
            kept = settings.loop.kept_epoch
            parts = {"training part": train_parts(task, *split, kept).training}
        require_samples(parts, task.smallest_batch)
    if asked.cluster.cluster != "slurm":
        backend_for(device, family.library)  # compiled here, once for all


def _jobs(family: Family, asked: Asked) -> Jobs:
    if asked.cluster.cluster is not None:
        from sgas.studies.cluster import ClusterJobs

        return ClusterJobs(
            asked.folder.resolve(), family.home, asked.threads, asked.cluster, asked.sweep.jobs
        )
    defaults = {field.name: field.default for field in dataclasses.fields(ClusterConfig)}
    changed = [name for name, value in defaults.items() if getattr(asked.cluster, name) != value]
    if changed:
        raise ConfigError(
            f"{changed[0]} is for jobs on a cluster: add --cluster slurm, or leave it"
        )
    capacity = asked.sweep.jobs or 1
    return LocalJobs(asked.folder.resolve(), family.home, asked.threads, capacity, _gpus(asked))


def _gpus(asked: Asked) -> list[str]:
    """The GPUs that jobs take in turn: all that there are where the device says just auto, cuda."""
    if asked.search.run.device not in ("auto", "cuda"):
        return []
    import torch

    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",") if shown else [str(n) for n in range(torch.cuda.device_count())]


def _make_folder(folder: Path) -> None:
    """Makes the folder of a study; RunError where something else is in it."""
    try:
        make_folder(folder)
        own = {LOCK, MANIFEST, OWN_LOCK, COPIES, "cluster"}
        others = {path.name for path in folder.iterdir()} - own
    except OSError as error:
        raise RunError(f"cannot make the study folder {folder}: {error.strerror}") from None
    if others and not is_study(folder):
        raise RunError(f"{folder} exists already and is no study; give another --out")


def _write(folder: Path, info: StudyInfo, names: Sequence[str], fresh: bool) -> None:
    """Puts what was asked for into the folder; strategies and seeds of a study may only grow."""
    for path, text in copies().items():
        make_folder((folder / path).parent)
        write_text(folder / path, text)
    known = read_manifest(folder).parts if (folder / MANIFEST).exists() else {}
    wanted = [f"{name}/{phase}" for name in names for phase in PHASES]
    new = {name: Part() for name in wanted if name not in known}
    if new:
        change_parts(folder, new)
    before = None if fresh else read_info(folder)
    if before is not None and not new and before.plugins == info.plugins:
        return
    import torch

    old = before or info
    grown = {
        "strategies": list(dict.fromkeys([*old.strategies, *info.strategies])),
        "seeds": list(dict.fromkeys([*old.seeds, *info.seeds])),
        "environment": environment(torch.device("cpu")),
    }
    write_info(folder, msgspec.structs.replace(info, **grown))
