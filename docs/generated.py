"""Parts of the reference that are read from the code, as Markdown: options, verbs, names."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import yaml

import sgas_cnn.family
import sgas_gcn.family
from sgas.cli import VERBS, main
from sgas.config import (
    STRATEGIES,
    ClusterConfig,
    RunConfig,
    SearchConfig,
    SweepConfig,
    TrainConfig,
    fields_of,
)
from sgas.options import help_of, metavar_of
from sgas.running.settings import default_preset, presets

FAMILIES = (sgas_gcn.family.FAMILY, sgas_cnn.family.FAMILY)
LOOPS = ("search", "train", "sweep")  # verbs whose options are fields of a config
WIDTH = 86  # of a help, in characters


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells of one line each."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(c.replace('|', '&#124;') for c in line)} |\n" for line in lines)


def first_line(thing: object) -> str:
    """What a docstring says in its first line, without the full stop."""
    return (inspect.getdoc(thing) or "").splitlines()[0].rstrip(".")


def options_of(config: type) -> str:
    """All options that are fields of a config dataclass, with their ranges and defaults."""
    verbs: dict[str, list[str]] = {}
    fields = {}
    for verb in LOOPS:
        for name, field in fields_of(config, verb).items():
            verbs.setdefault(name, []).append(verb)
            fields[name] = field
    told = len(set(map(tuple, verbs.values()))) > 1
    header = ["option", "takes", "what it is", *(["of"] if told else [])]
    rows = [
        [f"`--{name}`", f"`{metavar_of(spec, kind).replace(',', ', ')}`", help_of(spec)]
        + ([", ".join(verbs[name])] if told else [])
        for name, (spec, kind) in fields.items()
    ]
    return table(header, rows)


def configs() -> Iterator[tuple[str, type]]:
    """The titles and config dataclasses of all options, each once; a title is a sentence."""
    for config in (RunConfig, SearchConfig, TrainConfig, SweepConfig, ClusterConfig):
        yield first_line(config).split(",")[0].split(". ")[0], config
    seen: dict[type, None] = {}
    for family in FAMILIES:
        for space in family.spaces.values():
            seen |= dict.fromkeys((space.model_config, space.data_config))
    for config in seen:
        yield first_line(config), config


def options() -> str:
    """A section for each config dataclass."""
    return "\n".join(f"## {title}\n\n{options_of(config)}" for title, config in configs())


def verbs() -> str:
    """The help of each verb whose options are its own."""
    texts = []
    for verb, info in VERBS.items():
        if verb not in LOOPS:
            printed = io.StringIO()
            with (
                contextlib.redirect_stdout(printed),
                mock.patch.dict(os.environ, COLUMNS=str(WIDTH)),
            ):
                main(FAMILIES[0], [verb, "--help"])
            texts.append(f"## {verb}: {info.help}\n\n```text\n{printed.getvalue()}```\n")
    return "\n".join(texts)


def preset_table() -> str:
    """All presets: their spaces, what they are for, and whose default they are."""
    rows = []
    for family in FAMILIES:
        for name, space in family.spaces.items():
            for preset, path in presets(family, name).items():
                used = [d for d in space.datasets if default_preset(family, d, name) == preset]
                rows.append(
                    [
                        name,
                        f"`{preset}`",
                        yaml.safe_load(path.read_text(encoding="utf-8"))["about"],
                        ", ".join(f"`{dataset}`" for dataset in used),
                    ]
                )
    return table(["space", "preset", "what it is for", "default for"], rows)


def datasets() -> str:
    """All data sets that have a name."""
    rows = [
        [f"`{family.command}`", info.task, f"`{info.name}`", info.help]
        for family in FAMILIES
        for info in family.datasets.values()
    ]
    return table(["command", "task", "name", "what it is"], rows)


def strategies() -> str:
    """All strategies."""
    return table(
        ["strategy", "in a few words"], [[f"`{n}`", i.help] for n, i in STRATEGIES.items()]
    )


def candidates() -> str:
    """The candidate operations of each search space."""
    rows = [
        [name, ", ".join(f"`{operation}`" for operation in space.search_space.candidates)]
        for family in FAMILIES
        for name, space in family.spaces.items()
    ]
    return table(["space", "candidates of an edge"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "options": options,
    "verbs": verbs,
    "presets": preset_table,
    "datasets": datasets,
    "strategies": strategies,
    "candidates": candidates,
}
