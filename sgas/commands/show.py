"""`show GENOTYPE|RUN|STUDY`: pictures, table of operations, parameters, FLOPs, latency; a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.cells.genotype import Genotype
from sgas.commands.common import THREADS, print_json, use_threads
from sgas.config import fields_of, make
from sgas.errors import ConfigError, RunError
from sgas.family import Family, Models
from sgas.files import write_text
from sgas.options import PLUGIN, Flag, Positional, Words, parse, parser_for
from sgas.protocols import cell_in_words, cell_protocol, provenance
from sgas.running.genotype_files import genotype_label, load_genotype
from sgas.running.runs import RESULT, is_run, read_config
from sgas.running.settings import data_options, load_preset, open_settings, presets
from sgas.studies.study import is_study
from sgas.terminal import console, shown

if TYPE_CHECKING:
    from sgas.running.complexity import Latency

TARGET = Positional("target", "published name, genotype file, run or study folder")
FLAGS = [
    PLUGIN,
    Flag("json", "print one JSON object"),
    Flag(
        "preset",
        "preset of the network's size (default: its training's, or paper)",
        is_switch=False,
    ),
    Flag("out", "folder for the pictures (default: the run, or the current folder)", False),
    THREADS,
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `show` and returns 0; errors are raised."""
    about = "Draw a genotype or a run and say what its network costs; write the page of a study."
    target = next(iter(Words.of(argv).positionals), None)
    if target is not None and is_study(Path(target)):
        from sgas.commands import study_page

        return study_page.main(family, argv)
    asks = target is None or "--help" in argv or "-h" in argv
    genotype = None if asks else load_genotype(family, str(target))
    space = genotype.space if genotype else next(iter(family.spaces))
    sections = {f"network ({space})": family.spaces[space].model_config}
    flags = FLAGS + size_flags(family, space)
    parser = parser_for(family.command, "show", about, sections, [TARGET], flags)
    values = parse(parser, argv)  # prints the help, or says that the target is missing
    if genotype is None:
        return 0
    use_threads(values)
    folder = Path(values["target"])
    model = make(
        family.spaces[space].model_config,
        {**preset_sizes(family, genotype, values["preset"], folder), **values},
    )
    cost, latency = _cost(family, genotype, model, values, folder)
    pictures = _draw(family, genotype, folder, Path(values["out"]) if values["out"] else None)
    table = {
        "name": values["target"],
        "space": genotype.space,
        "cells": {
            kind: [{"op": edge.op, "source": edge.source} for edge in cell.edges]
            for kind, cell in genotype.cells.items()
        },
        "concat": {kind: list(cell.concat) for kind, cell in genotype.cells.items()},
        "text": genotype.to_text(),
        "hash": genotype.content_hash,
        "meta": genotype.meta,
        **_origin(folder, genotype),
        **cost,
        "pictures": [str(path) for path in pictures],
    }
    if values["json"]:
        print_json(table)
    else:
        _print(family, genotype, table, latency)
    return 0


def _origin(folder: Path, genotype: Genotype) -> dict[str, str]:
    """The protocol of a cell or, of a training, that of its figures; and where it comes from."""
    config = read_config(folder) if is_run(folder) else None
    if config is not None and config["verb"] == "train":
        return provenance(config["run"], genotype.meta, config.get("weights"))
    return {"protocol": cell_protocol(genotype.meta), "provenance": cell_in_words(genotype.meta)}


def size_flags(family: Family, space: str) -> list[Flag]:
    """Options for the sizes that data settle."""
    return [
        Flag(name, f"{name.replace('_', ' ')} (default: those of the run, or {value})", False)
        for name, value in family.spaces[space].paper_dimensions.items()
    ]


def preset_sizes(
    family: Family, genotype: Genotype, preset: str | None, folder: Path
) -> dict[str, Any]:
    """Sizes: those that a trained run has, or that `train` would take of a search; the preset's.

    The preset is that which is given, else for a run the one that `train` would take, or
    the published one.
    """
    known = {}
    if is_run(folder):
        settings, _ = open_settings(family, folder)
        if settings.verb == "train" and preset is None:
            return dataclasses.asdict(settings.model)
        preset = preset or family.default_preset(str(settings.run.dataset), genotype.space)
        known = data_options(family, settings)
    published = "benchmark" if "benchmark" in presets(family, genotype.space) else "paper"
    own = next(iter(family.spaces[genotype.space].presets), published)
    usual = load_preset(family, genotype.space, preset or own, "train")
    sizes = fields_of(family.spaces[genotype.space].model_config, "show")
    return {name: value for name, value in {**usual, **known}.items() if name in sizes}


def _cost(
    family: Family, genotype: Genotype, model: Any, values: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], Latency]:
    from sgas.running.complexity import latency, num_flops, num_parameters

    models, sizes = models_of(family, genotype, model, values, folder)
    network = models.build_network(genotype, False)
    example = models.example_input()
    flops = num_flops(network, example)
    measured = latency(network, example)
    shown = dataclasses.asdict(measured) | {"busy": measured.busy}
    cost = {
        "params": num_parameters(network),
        "flops": flops,
        "latency_ms": round(1000 * measured.median, 3),
        "latency": shown,
        "sizes": sizes,
    }
    return cost, measured


def models_of(
    family: Family, genotype: Genotype, model: Any, values: dict[str, Any], folder: Path
) -> tuple[Models, dict[str, Any]]:
    """The networks of the sizes that a command gives, or else of a run or the paper; the sizes."""
    dimensions = dict(family.spaces[genotype.space].paper_dimensions)
    if is_run(folder):
        dimensions = dict(open_settings(family, folder)[1]["dimensions"])
    for name in dimensions:
        if values.get(name) is not None:
            dimensions[name] = _whole(name, values[name])
    models = family.spaces[genotype.space].models(model, dimensions)
    return models, {**model.__dict__, **dimensions}


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--{name} takes a whole number above 0, got {text!r}")
    return int(text)


def _draw(family: Family, genotype: Genotype, target: Path, out: Path | None) -> list[Path]:
    from sgas.reports import draw_genotype
    from sgas.running.pictures import draw_run

    if is_run(target) and (target / "decisions.jsonl").is_file():
        return draw_run(family, target, out or target)
    if is_run(target) and (target / RESULT).is_file():
        from sgas.running.training_page import draw_trained

        return draw_trained(family, target, out or target)
    folder = out or (target if is_run(target) else Path())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from None
    written = []
    space = family.search_space(genotype.space)
    for kind in space.cell_kinds:
        name = "cell" if is_run(target) else genotype_label(str(target), genotype)
        path = folder / f"{name}-{kind}.svg"
        write_text(path, draw_genotype(genotype, space, kind, groups=family.operation_groups))
        written.append(path)
    return written


def _print(family: Family, genotype: Genotype, table: dict[str, Any], latency: Latency) -> None:
    from rich.table import Table

    out = console(soft_wrap=True)
    space = family.search_space(genotype.space)
    for kind, cell in genotype.cells.items():
        topology = space.topology(cell.num_steps(space))
        rows = Table("into", "operation", "from", title=f"{kind} cell", title_justify="left")
        for step, edges in enumerate(cell.edges_by_step(space)):
            for edge in edges:
                into = topology.state_name(topology.state_of(step))
                rows.add_row(into, edge.op, topology.state_name(edge.source))
        out.print(rows)
        out.print(shown(f"output: {', '.join(topology.state_name(s) for s in cell.concat)}"))
    sizes = " · ".join(f"{name} {value}" for name, value in table["sizes"].items())
    out.print(shown(f"origin      {table['provenance']}: protocol {table['protocol']}"))
    out.print(shown(f"network     {sizes}"))
    out.print(shown(f"parameters  {table['params']:,}"))
    out.print(shown(f"FLOPs       {table['flops']:,} a sample (2 a multiply-add)"))
    out.print(shown(f"latency     {latency.shown} a sample, {latency.note}"))
    for path in table["pictures"]:
        out.print(shown(f"picture     {path}"))
