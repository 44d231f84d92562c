"""`search`: searches a cell and writes a run folder; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from sgas.commands.common import (
    Settings,
    build_settings,
    command_of,
    config_json,
    epilog,
    open_settings,
    preset_values,
    resolve_device,
    sections_of,
    with_absolute_paths,
)
from sgas.commands.loops import (
    begin,
    conclude,
    recorder_on,
    rehearse,
    require_batch,
    require_same_sizes,
    require_samples,
    require_trained_alphas,
    restore,
    resume_only,
    run_to_go_on_with,
    sizes_of,
)
from sgas.family import Family, SearchParts, Task
from sgas.genotype import Genotype
from sgas.options import Flag, parser_for, peek, resolve
from sgas.runs import Run, free_folder, read_metrics
from sgas.schedule import Schedule

FLAGS = [Flag("resume", "run folder to go on with; takes no other option", is_switch=False)]


@dataclass(frozen=True)
class Searched:
    """What a search that has ended left: the genotype, its run folder, the pictures in it."""

    genotype: Genotype
    folder: Path
    pictures: list[Path]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `search` and returns 0; errors are raised."""
    parser = parser_of(family, argv)
    folder = resume_only(parser, argv)
    if folder is not None:
        found = resume_search(family, folder)
    else:
        found = begin_search(
            family, settings_of(family, parser, argv), command_of(family, "search", argv)
        )
    print(found.genotype.to_text())
    print(f"run      {found.folder}")
    print(f"genotype {found.folder / 'genotype.json'}")
    for path in found.pictures:
        if path.suffix == ".html" or path.name.startswith("cell-"):
            print(f"picture  {path}")
    print(f"next     {family.command} train {found.folder}")
    return 0


def parser_of(family: Family, argv: Sequence[str]) -> ArgumentParser:
    """The parser of `search` for the data set that a command names."""
    dataset = peek(argv, "dataset") or family.default_dataset
    space = family.space_of(dataset, peek(argv, "space"))
    sections = sections_of(family, "search", space)
    about = "Search a cell. What is found stands in the run folder: genotype.json, cell-*.svg."
    told = epilog(family, "search", dataset, space)
    return parser_for(family.command, "search", about, sections, flags=FLAGS, epilog=told)


def settings_of(family: Family, parser: ArgumentParser, argv: Sequence[str]) -> Settings:
    """The resolved configuration that a command asks for, presets included."""
    values = resolve(parser, argv, lambda first: preset_values(family, "search", first))
    return build_settings(family, "search", values["space"], values)


def begin_search(family: Family, settings: Settings, command: str) -> Searched:
    """Searches in a new run, or goes on with the one that was begun with the same settings.

    `command` is written into a new run as what made it.
    """

    def has_ended(folder: Path) -> bool:
        topology = family.spaces[str(settings.run.space)].topology(settings.model.num_steps)
        lines, last = read_metrics(folder), Schedule.of(settings.loop, topology).last_epoch
        return bool(lines) and lines[-1]["epoch"] == last and (folder / "report.html").is_file()

    folder = run_to_go_on_with(family, settings, _name(settings), has_ended)
    if folder is not None:
        return resume_search(family, folder)
    require_trained_alphas(family, settings, settings.loop.strategy)
    return run_search(family, settings, command=command)


def resume_search(family: Family, folder: Path) -> Searched:
    """Goes on with the search of a run folder; where it had ended, draws its pictures again."""
    settings, config = open_settings(family, folder, "search")
    return run_search(family, settings, config, folder)


def run_search(
    family: Family,
    settings: Settings,
    config: dict[str, Any] | None = None,
    folder: Path | None = None,
    command: str = "",
) -> Searched:
    """Searches in a new run, or goes on in `folder`, whose configuration is `config`.

    Interrupted after a stop signal, with the state in the run. `command` is written into a new run
    as what made it.
    """
    device = resolve_device(settings.run.device)
    begin(family, settings.run, device, config)
    from sgas.commands.pictures import draw_run
    from sgas.events import Both, Events
    from sgas.progress import ShowProgress
    from sgas.search import Search

    run_config, loop = settings.run, settings.loop
    task = family.open_task(run_config, settings.model, settings.data)
    require_batch(loop.batch_size, task.smallest_batch)
    recorder = recorder_on(run_config, device, task.example_input())
    schedule = Schedule.of(loop, task.space.topology(task.num_steps))
    if folder is None:
        rehearse(task.build_supernet().eval(), task.example_input())
    parts = task.search_parts(
        run_config.protocol, run_config.seed, loop.validation_fraction, device
    )
    trained_on = {"part of the weights": parts.weights, "part of the alphas": parts.alphas}
    require_samples(trained_on, task.smallest_batch)
    if folder is not None and config is not None:
        require_same_sizes(folder, config, _sizes(parts))
    if folder is None:
        made = config_json(family, settings, device, command, **_facts(task, parts))
        run = Run.create(_out(settings), made)
    else:
        run = Run.open(folder)
    total = schedule.num_decisions * len(task.space.cell_kinds)
    progress = ShowProgress("search", total, task.labels.primary_metric)
    events = Events(run, task.space, schedule, family.operation_groups)
    with run, progress, events:
        progress.console.print(f"run   {run.folder}", soft_wrap=True)
        progress.console.print(f"data  {run_config.dataset} · {parts.label}", soft_wrap=True)
        search = Search(
            task,
            loop,
            run,
            parts=parts,
            seed=run_config.seed,
            device=device,
            precision=run_config.precision,
            recorder=recorder,
            notes=_notes(family, settings),
            listener=Both(progress, events),
        )
        if folder is not None:
            restore(search, run, "search")
        genotype = conclude(family, run, search.execute, progress)
        written = draw_run(family, run.folder, run.folder)
    return Searched(genotype, run.folder, written)


def _facts(task: Task, parts: SearchParts) -> dict[str, Any]:
    return {"dimensions": task.dimensions, "parts": parts.label, "sizes": _sizes(parts)}


def _sizes(parts: SearchParts) -> list[int]:
    return sizes_of([parts.weights, parts.alphas, parts.validation])


def _notes(family: Family, settings: Settings) -> dict[str, Any]:
    run = with_absolute_paths(family, settings.run)  # as a resumed search has them
    return {
        "dataset": run.dataset,
        "strategy": settings.loop.strategy,
        "seed": run.seed,
        "protocol": run.protocol,
    }


def _name(settings: Settings) -> str:
    run = settings.run
    return f"{Path(str(run.dataset)).resolve().name}-{settings.loop.strategy}-{run.seed}"


def _out(settings: Settings) -> Path:
    run = settings.run
    return Path(run.out) if run.out else free_folder(Path("runs"), _name(settings))
