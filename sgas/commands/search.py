"""`search`: searches a cell and writes a run folder; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgas.commands.common import (
    Settings,
    config_json,
    epilog,
    open_settings,
    preset_values,
    resolve_device,
    sections_of,
)
from sgas.commands.loops import begin, conclude, rehearse, require_batch, resume_only
from sgas.config import RunConfig, SearchConfig
from sgas.family import Family
from sgas.options import Flag, build, parser_for, peek, resolve
from sgas.runs import Run, free_folder

FLAGS = [Flag("resume", "run folder to go on with; takes no other option", is_switch=False)]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `search` and returns 0; errors are raised."""
    dataset = peek(argv, "dataset") or family.default_dataset
    space = family.space_of(dataset, peek(argv, "space"))
    sections = sections_of(family, "search", space)
    about = "Search a cell. What is found stands in the run folder: genotype.json, cell-*.svg."
    told = epilog(family, "search", dataset, space)
    parser = parser_for(family.command, "search", about, sections, flags=FLAGS, epilog=told)
    folder = resume_only(parser, argv)
    if folder is not None:
        settings, config = open_settings(family, folder, "search")
        return _search(family, settings, config, folder)
    values = resolve(parser, argv, lambda first: preset_values(family, "search", first))
    settings = Settings(
        "search",
        build(RunConfig, values),
        build(SearchConfig, values),
        build(family.model_configs[space], values),
        build(family.data_configs[space], values),
    )
    return _search(family, settings, None, None)


def _search(
    family: Family, settings: Settings, config: dict[str, Any] | None, folder: Path | None
) -> int:
    device = resolve_device(settings.run.device)
    begin(family, settings.run, device, config)
    from sgas.commands.pictures import draw_run
    from sgas.progress import ShowProgress
    from sgas.search import Search

    run_config, loop = settings.run, settings.loop
    task = family.open_task(run_config, settings.model, settings.data)
    require_batch(loop.batch_size, task.smallest_batch)
    if folder is None:
        rehearse(task.build_supernet().eval(), task.example_input())
    parts = task.search_parts(
        run_config.protocol, run_config.seed, loop.validation_fraction, device
    )
    notes = {
        "dataset": run_config.dataset,
        "strategy": loop.strategy,
        "seed": run_config.seed,
        "protocol": run_config.protocol,
    }
    if folder is None:
        name = f"{Path(str(run_config.dataset)).resolve().name}-{loop.strategy}-{run_config.seed}"
        out = Path(run_config.out) if run_config.out else free_folder(Path("runs"), name)
        run = Run.create(
            out,
            config_json(family, settings, device, dimensions=task.dimensions, parts=parts.label),
        )
    else:
        run = Run.open(folder)
    topology = task.space.topology(task.num_steps)
    total = topology.num_decisions * len(task.space.cell_kinds)
    with run, ShowProgress("search", total, task.labels.primary_metric) as progress:
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
            notes=notes,
            listener=progress,
        )
        state = run.load_checkpoint() if folder is not None else None
        if state is not None:
            search.restore(state)
        genotype = conclude(family, run, search.execute, progress)
        written = draw_run(family, run.folder, run.folder)
    print(genotype.to_text())
    print(f"run      {run.folder}")
    print(f"genotype {run.folder / 'genotype.json'}")
    for path in written:
        if path.suffix == ".html" or path.name.startswith("cell-"):
            print(f"picture  {path}")
    print(f"next     {family.command} train {run.folder}")
    return 0
