"""What several verbs need of the command line: sections of options, the end of a help, JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from sgas.cells.genotype import Genotype
from sgas.config import RunConfig, checked, fields_of
from sgas.errors import ConfigError, RunError
from sgas.family import Family
from sgas.options import PLUGIN, Flag, Positional, Words, parser_for
from sgas.running.settings import default_preset, presets, sections_of, where_of
from sgas.studies.study import Study, read_info, read_study

TITLES = {
    "run": "run",
    "loop": "{verb} loop",
    "model": "network ({space})",
    "data": "data ({space})",
}
RESUME = Flag(
    "resume", "run folder to go on with, with --dataset if its data moved", is_switch=False
)
DEVICE = Flag("device", "auto, cpu, cuda or cuda:N (default: auto)", is_switch=False)
THREADS = Flag("threads", "CPU threads (default: all that torch takes)", is_switch=False)


def run_parser(
    family: Family,
    verb: str,
    argv: Sequence[str],
    about: str,
    positionals: Sequence[Positional] = (),
    genotype: Genotype | None = None,
) -> ArgumentParser:
    """The parser of `search` or `train` for the data set, run or cell that a command names."""
    words = Words.of(argv)
    named = {name: words.value(name) for name in ("dataset", "space")}
    source = Path(words.positionals[0]) if positionals and words.positionals else None
    dataset, space = where_of(family, verb, named, source, genotype)
    sections = {
        TITLES[part].format(verb="training" if verb == "train" else verb, space=space): config
        for part, config in sections_of(family, verb, space).items()
    }
    end = epilog(family, verb, dataset, space)
    return parser_for(family.command, verb, about, sections, positionals, [RESUME, PLUGIN], end)


def epilog(family: Family, verb: str, dataset: str, space: str) -> str:
    """The end of a verb's help: data sets, presets, and what the defaults above are."""
    names = ", ".join(family.datasets)
    known = ", ".join(presets(family, space))
    preset = default_preset(family, dataset, space)
    return (
        f"Data sets: {names}, or the path of a folder. Presets for space {space}: {known} "
        f"(default for {dataset}: {preset}). The defaults above are "
        f"those without a preset; {family.command} {verb} --print_config shows what a run would "
        "take."
    )


def run_to_resume(family: Family, verb: str, argv: Sequence[str]) -> tuple[Path | None, str | None]:
    """The run folder of `--resume`, None where it is not given, and where its data lie now.

    It takes no other option but `--dataset`.
    """
    words = Words.of(argv)
    options = [(name, value) for name, value in words.options if name not in ("debug", "plugin")]
    if all(name != "resume" for name, _ in options):
        return None, None
    given = dict(options)
    folder, place = given.get("resume"), given.get("dataset")
    if set(given) - {"resume", "dataset"} or words.positionals or not folder:
        raise ConfigError(
            "--resume takes a run folder and no other option but --dataset, since a run goes on "
            f"with its own configuration: {family.command} {verb} --resume RUN"
        )
    return Path(folder), place


def command_of(family: Family, verb: str, words: Sequence[str]) -> str:
    """The command of a verb and its words, as a shell takes it."""
    return shlex.join([family.command, verb, *words])


def use_threads(values: Mapping[str, Any]) -> None:
    """Takes as many CPU threads as `THREADS` says, in the process of a command."""
    if values["threads"] is not None:
        import torch

        spec, kind = fields_of(RunConfig, "search")["threads"]
        threads = RunConfig(threads=checked(spec, kind, values["threads"])).threads
        torch.set_num_threads(threads or torch.get_num_threads())


def open_study(family: Family, folder: Path) -> Study:
    """The study of a folder, of this family; RunError where it is none."""
    info = read_info(folder)
    if info.family != family.name:
        raise RunError(f"{folder} is a study of sgas-{info.family}; this is {family.command}")
    return read_study(folder)


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(json.dumps(value, indent=2))
