"""The resolved configuration of a run: from options and presets, and from a run folder and back.

The command line and the Python interface both come through `resolve`. No torch at its import.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sgas.cells.genotype import Genotype
from sgas.config import (
    RunConfig,
    SearchConfig,
    TrainConfig,
    fields_of,
    make,
    rebuild,
    refuse_unknown,
    values_before,
)
from sgas.errors import ConfigError, DataError, RunError, option, unknown_name
from sgas.family import Family
from sgas.running.genotype_files import genotypes_in, load_genotypes
from sgas.running.runs import check_family, is_run, read_config

LOOPS: dict[str, type] = {"search": SearchConfig, "train": TrainConfig}
SECTIONS = ("run", "loop", "model", "data")


@dataclass(frozen=True)
class Settings:
    """The resolved configuration of one run; a training has a genotype.

    `origin` says what a training took from the run or the cell that it is of; empty where it took
    nothing. `asked` names the options of the data that were given, or taken from a run; None where
    that is not known, as of runs of before.
    """

    verb: str
    run: RunConfig
    loop: Any
    model: Any
    data: Any
    genotype: Genotype | None = None
    origin: str = ""
    asked: tuple[str, ...] | None = None

    def before(self, section: str) -> dict[str, Any]:
        """What a run has of a section's options that were not there when it began."""
        return values_before(type(getattr(self, section)))

    def values(self) -> dict[str, Any]:
        """The values of all options, by name."""
        return {
            k: v for part in SECTIONS for k, v in dataclasses.asdict(getattr(self, part)).items()
        }


def sections_of(family: Family, verb: str, space: str) -> dict[str, type]:
    """The config dataclasses that are the options of `search` or `train` in a space."""
    return {
        "run": RunConfig,
        "loop": LOOPS[verb],
        "model": family.spaces[space].model_config,
        "data": family.spaces[space].data_config,
    }


def where_of(
    family: Family,
    verb: str,
    options: Mapping[str, Any],
    source: Path | None = None,
    genotype: Genotype | None = None,
) -> tuple[str, str]:
    """Data set and search space that options name, or else the run or cell of a training."""
    if options.get("dataset") == "":
        name = option("dataset")
        raise ConfigError(f"dataset is empty; give a name or a path, or leave {name} out")
    known = known_from(source, None if options.get("dataset") else genotype)
    dataset = options.get("dataset") or known.get("dataset") or family.default_dataset
    return dataset, family.space_of(dataset, options.get("space") or known.get("space"))


def known_from(source: Path | None, genotype: Genotype | None = None) -> dict[str, Any]:
    """The section `run` of a run's config.json; where there is no run, what a cell says itself.

    A published cell is for any data, whatever it was searched on.
    """
    if source is not None and is_run(source):
        return dict(read_config(source)["run"])
    notes = {} if genotype is None else genotype.meta
    if genotype is None or not notes.get("dataset") or "published_name" in notes:
        return {}
    return {"dataset": str(notes["dataset"]), "space": genotype.space}


def resolve(
    family: Family,
    verb: str,
    options: Mapping[str, Any],
    *,
    source: Path | None = None,
    genotype: Genotype | None = None,
) -> Settings:
    """The settings of a verb: options before the preset's values, these before the defaults.

    Of `options` those that the verb has count. `source` is the run that a training is of, if any:
    its data set, its protocol and what was asked of its data are the defaults; so are the sizes of
    the network of the run whose `weights` it starts from. A cell of no run may name its data set.
    InputError for what cannot be used.
    """
    there = known_from(source, None if options.get("dataset") else genotype)
    if not options.get("dataset") and not there and genotype is not None:
        raise _no_dataset(family, genotype)
    dataset, space = where_of(family, verb, options, source, genotype)
    preset = options.get("preset") or default_preset(family, dataset, space)
    values = load_preset(family, space, preset, verb)
    refuse_unknown(values, option_names(family, verb, space), "unknown key {} in the preset")
    of_run = source is not None and is_run(source)
    taken = _taken_from(family, source, space, options) if of_run and source else {}
    if "data_root" in there and options.get("dataset") in (None, there.get("dataset")):
        values["data_root"] = there["data_root"]
    if verb == "train" and options.get("weights"):
        folder = Path(str(options["weights"])).expanduser().resolve()
        start, _ = open_settings(family, folder, "train")
        if start.run.space == space:
            names = fields_of(type(start.model), "train")
            values |= {name: getattr(start.model, name) for name in names}
        options = {**options, "weights": str(folder)}
    if verb == "search" and options.get("candidates") is not None:
        options = {**options, **_candidates(family, space, options)}
    values |= {**taken, **options, "dataset": dataset, "space": space, "preset": preset}
    made = {n: make(config, values) for n, config in sections_of(family, verb, space).items()}
    origin = ""
    if taken or (there and not of_run):
        kept = [name for name in ("dataset", "space") if options.get(name) in (None, there[name])]
        told = {name: there[name] for name in kept} | taken
        words = " · ".join(f"{name} {value}" for name, value in told.items())
        origin = f"{source if of_run else 'the cell'}: {words}"
    given = {*taken, *(name for name, value in options.items() if value is not None)}
    asked = tuple(name for name in _of_data(made["model"], made["data"]) if name in given)
    return Settings(verb, **made, genotype=genotype, origin=origin, asked=asked)


def _candidates(family: Family, space: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The cells that a search trains, themselves in the place of names, and how many they are."""
    given = load_genotypes(family, options["candidates"])
    count = len(genotypes_in(given, family.search_space(space)))
    if count < 2:
        raise ConfigError(
            f"candidates are {count or 'no'} cell; a search chooses among 2 or more that differ"
        )
    asked = options.get("num_candidates")
    if asked is not None and make(SearchConfig, {"num_candidates": asked}).num_candidates != count:
        raise ConfigError(
            f"num_candidates is {asked}, and {count} candidates that differ are given: leave it out"
        )
    return {"candidates": given, "num_candidates": count}


def _no_dataset(family: Family, genotype: Genotype) -> ConfigError:
    published = "published_name" in genotype.meta
    return ConfigError(
        f"{'a published cell' if published else 'a cell without its data'} can be trained on any "
        f"data set of its space: give {option('dataset')}, one of {', '.join(family.datasets)} or "
        "a folder"
    )


def _taken_from(
    family: Family, source: Path, space: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Protocol and options of the data that a training takes from a run, unless given again."""
    settings, _ = open_settings(family, source)
    taken = {"protocol": settings.run.protocol}
    if settings.run.space == space:
        taken |= data_options(family, settings)
    return {name: value for name, value in taken.items() if options.get(name) is None}


def data_options(family: Family, settings: Settings) -> dict[str, Any]:
    """What a run was asked about its data.

    Of a run that does not say what it was asked, the options that are not as its preset has them.
    """
    configs = settings.model, settings.data
    values, asked = _of_data(*configs), settings.asked
    if asked is None:
        run = settings.run
        preset = load_preset(family, str(run.space), str(run.preset), settings.verb)
        usual = _of_data(*(make(type(config), preset) for config in configs))
        asked = tuple(name for name in values if values[name] != usual[name])
    return {name: values[name] for name in asked if name in values}


def _of_data(model: Any, data: Any) -> dict[str, Any]:
    """The options that say how the data are taken, as far as a training has them."""
    return {
        name: getattr(config, name)
        for config in (model, data)
        for name, (spec, _) in fields_of(type(config), "train").items()
        if config is data or spec.metadata.get("of_data")
    }


def option_names(family: Family, verb: str, space: str) -> list[str]:
    """The names of all options of `search` or `train` in a space."""
    sections = sections_of(family, verb, space).values()
    return [name for config in sections for name in fields_of(config, verb)]


def presets(family: Family, space: str) -> dict[str, Any]:
    """The presets of a space by name: values by verb, or the family's files with these."""
    folder, prefix = resources.files(family.package) / "presets", f"{space}-"
    files = {
        path.name.removeprefix(prefix).removesuffix(".yaml"): path
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.name.startswith(prefix) and path.name.endswith(".yaml")
    }
    return {**files, **family.spaces[space].presets}


def default_preset(family: Family, dataset: str, space: str) -> str:
    """The preset of a data set where none is asked for: of a space with its own, the first."""
    own = family.spaces[space].presets
    return next(iter(own)) if own else family.default_preset(dataset, space)


def load_preset(family: Family, space: str, name: str, verb: str) -> dict[str, Any]:
    """The values of a preset for a verb; InputError with the choices for an unknown name."""
    known = presets(family, space)
    if name not in known:
        raise unknown_name(f"preset for space {space}", name, known)
    preset = known[name]
    values = preset if isinstance(preset, Mapping) else yaml.safe_load(preset.read_text("utf-8"))
    return dict(values.get(verb) or {})


def with_absolute_paths(family: Family, run: RunConfig) -> RunConfig:
    """The same configuration, to be used from any folder."""
    dataset = str(run.dataset)
    if dataset not in family.datasets:
        dataset = str(Path(dataset).expanduser().resolve())
    data_root = str(Path(run.data_root).expanduser().resolve())
    return dataclasses.replace(run, dataset=dataset, data_root=data_root)


def with_data_at(family: Family, folder: Path, settings: Settings, place: str | None) -> Settings:
    """The settings of a run whose data lie at `place` now; as they are where that is None.

    DataError where the data of one's own are gone and no place is given.
    """
    if place is None:
        dataset = str(settings.run.dataset)
        if dataset not in family.datasets and not Path(dataset).expanduser().exists():
            raise DataError(
                f"the data of {folder} are not at {dataset} any more: say where they are by "
                f"{option('dataset')}"
            )
        return settings
    return dataclasses.replace(settings, run=dataclasses.replace(settings.run, dataset=place))


def open_settings(
    family: Family, folder: Path, verb: str | None = None
) -> tuple[Settings, dict[str, Any]]:
    """Settings and config.json of a run folder of this family.

    RunError where it is none, or where it is no run of `verb`.
    """
    config = read_config(folder)
    check_family(family, folder, config)
    where = str(folder / "config.json")
    space = config["run"].get("space")
    if not isinstance(space, str) or space not in family.spaces:
        raise unknown_name(f"search space in {where}", str(space), family.spaces)
    sections = sections_of(family, config["verb"], space).items()
    kept = {name: rebuild(kind, config[name], where) for name, kind in sections}
    genotype = msgspec.convert(config["genotype"], Genotype) if "genotype" in config else None
    asked = tuple(config["asked"]) if "asked" in config else None
    settings = Settings(config["verb"], **kept, genotype=genotype, asked=asked)
    if verb not in (None, settings.verb):
        raise RunError(
            f"{folder} is a run of {family.command} {settings.verb}; a run of {family.command} "
            f"{verb} is wanted"
        )
    return settings, config
