"""What several verbs need: genotypes by any name, devices, the resolved config of a run."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas import __version__
from sgas.config import RunConfig, SearchConfig, TrainConfig
from sgas.errors import ConfigError, DeviceError, GenotypeError, RunError, unknown_name
from sgas.family import Family
from sgas.genotype import Genotype
from sgas.options import build, load_preset, presets, rebuild
from sgas.runs import read_config, read_genotype
from sgas.study import Study, read_info, read_study

if TYPE_CHECKING:
    import torch

LOOPS = {"search": SearchConfig, "train": TrainConfig}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The resolved configuration of one run."""

    verb: str
    run: RunConfig
    loop: Any
    model: Any
    data: Any

    def defaults(self, section: str) -> dict[str, Any]:
        """The defaults of a section's options: what a run had before an option was there."""
        return {spec.name: spec.default for spec in dataclasses.fields(getattr(self, section))}


def build_settings(family: Family, verb: str, space: str, values: Mapping[str, Any]) -> Settings:
    """The settings of all options of a verb; ConfigError where one is out of range."""
    return Settings(
        verb,
        build(RunConfig, values),
        build(LOOPS[verb], values),
        build(family.model_configs[space], values),
        build(family.data_configs[space], values),
    )


def sections_of(family: Family, verb: str, space: str) -> dict[str, type]:
    """The config dataclasses that are the options of `search` or `train` in a space, by title."""
    titles = {"search": "search loop", "train": "training loop"}
    return {
        "run": RunConfig,
        titles[verb]: LOOPS[verb],
        f"network ({space})": family.model_configs[space],
        f"data ({space})": family.data_configs[space],
    }


def epilog(family: Family, verb: str, dataset: str, space: str) -> str:
    """The end of a verb's help: data sets, presets, and what the defaults above are."""
    names = ", ".join(family.datasets)
    known = ", ".join(presets(family.package, space))
    return (
        f"Data sets: {names}, or the path of a folder. Presets for space {space}: {known} "
        f"(default for {dataset}: {family.default_preset(dataset, space)}). The defaults above are "
        f"those without a preset; {family.command} {verb} --print_config shows what a run would "
        "take."
    )


def require_dataset(values: Mapping[str, Any]) -> None:
    """ConfigError for an empty name, as a shell variable gives that was never set."""
    if values["dataset"] == "":
        raise ConfigError("dataset is empty; give a name or a path, or leave --dataset out")


def preset_values(family: Family, verb: str, values: dict[str, Any]) -> dict[str, Any]:
    """The preset of a command's values; settles `dataset`, `space` and `preset` in them."""
    require_dataset(values)
    dataset = values["dataset"] = values["dataset"] or family.default_dataset
    space = values["space"] = family.space_of(dataset, values["space"])
    values["preset"] = values["preset"] or family.default_preset(dataset, space)
    return load_preset(family.package, space, values["preset"], verb)


def resolve_device(name: str) -> torch.device:
    """The device of a name, from now on the current one; DeviceError where it is not here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or name == "cpu:":
        raise DeviceError(f"device is {name!r}; give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device is {name!r}, but torch finds no CUDA GPU; give cpu or auto")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise DeviceError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} GPUs, "
            "numbered from 0"
        )
    device = torch.device(name)
    if device.index is not None and kind == "cuda":
        torch.cuda.set_device(device)  # the one that Triton launches on
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and threads, for config.json."""
    import torch

    return {
        "sgas": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def _git_commit() -> str | None:
    """The commit of this checkout, with `+` where files are changed; None for an installed copy."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def with_absolute_paths(family: Family, run: RunConfig) -> RunConfig:
    """The same configuration, to be used from any folder."""
    dataset = str(run.dataset)
    if dataset not in family.datasets:
        dataset = str(Path(dataset).expanduser().resolve())
    data_root = str(Path(run.data_root).expanduser().resolve())
    return dataclasses.replace(run, dataset=dataset, data_root=data_root)


def command_of(family: Family, verb: str, argv: Sequence[str]) -> str:
    """The command of a verb and its words, as a shell takes it."""
    return shlex.join([family.command, verb, *argv])


def config_json(
    family: Family,
    settings: Settings,
    device: torch.device,
    command: str,
    **more: Any,
) -> dict[str, Any]:
    """What config.json holds: everything needed to make the run again, and where it was made.

    Paths are absolute, device and kernels are those that were found, so that a run can be gone on
    with from any folder and never moves to others by itself.
    """
    from sgas.kernels import backend_for

    given = settings.run
    run = dataclasses.replace(
        with_absolute_paths(family, given),
        device=str(device),
        kernels=backend_for(device, family.library),
    )
    return {
        "family": family.name,
        "verb": settings.verb,
        "command": command,
        "run": dataclasses.asdict(run),
        **{name: dataclasses.asdict(getattr(settings, name)) for name in ("loop", "model", "data")},
        **more,
        "environment": environment(device),
    }


def check_family(family: Family, folder: Path, config: Mapping[str, Any]) -> None:
    """RunError where a run is of another family."""
    if config["family"] != family.name or config["verb"] not in LOOPS:
        raise RunError(
            f"{folder} is a run of sgas-{config['family']} {config['verb']}; this is "
            f"{family.command}"
        )


def settings_of_run(family: Family, folder: Path, config: Mapping[str, Any]) -> Settings:
    """The settings that a run was started with."""
    check_family(family, folder, config)
    where = str(folder / "config.json")
    verb, space = config["verb"], config["run"].get("space")
    if space not in family.spaces:
        raise unknown_name(f"search space in {where}", str(space), family.spaces)
    return Settings(
        verb,
        rebuild(RunConfig, config["run"], where),
        rebuild(LOOPS[verb], config["loop"], where),
        rebuild(family.model_configs[space], config["model"], where),
        rebuild(family.data_configs[space], config["data"], where),
    )


def open_settings(
    family: Family, folder: Path, verb: str | None = None
) -> tuple[Settings, dict[str, Any]]:
    """Settings and config.json of a run folder of this family.

    RunError where it is none, or where it is no run of `verb`.
    """
    config = read_config(folder)
    settings = settings_of_run(family, folder, config)
    if verb not in (None, settings.verb):
        raise RunError(
            f"{folder} is a run of {family.command} {settings.verb}; a run of {family.command} "
            f"{verb} is wanted"
        )
    return settings, config


def open_study(family: Family, folder: Path) -> Study:
    """The study of a folder, of this family; RunError where it is none."""
    info = read_info(folder)
    if info.family != family.name:
        raise RunError(f"{folder} is a study of sgas-{info.family}; this is {family.command}")
    return read_study(folder)


def load_genotype(family: Family, name: str) -> Genotype:
    """The genotype of a published name, a run folder, or a file with JSON or DARTS text."""
    if is_text(name):
        return _parse_text(family, name)
    path = Path(name)
    if path.is_dir():
        check_family(family, path, read_config(path))
        found = read_genotype(path)
    elif path.is_file():
        found = _read_file(family, path)
    elif name in family.published_names():
        return family.load_published(name)
    elif os.sep in name or path.suffix in (".json", ".txt"):
        raise GenotypeError(f"genotype file {name} does not exist")
    else:
        raise unknown_name("genotype", name, family.published_names(), error=GenotypeError)
    if found.space not in family.spaces:
        raise unknown_name("search space", found.space, family.spaces, error=GenotypeError)
    return found.validate(family.spaces[found.space])


def _read_file(family: Family, path: Path) -> Genotype:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"{path} cannot be read as text ({error})") from None
    try:
        is_json = text.lstrip().startswith("{")
        return Genotype.from_json(text) if is_json else _parse_text(family, text)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from None


def _parse_text(family: Family, text: str) -> Genotype:
    """The genotype of a DARTS text, of the first space of the family that it fits."""
    faults = []
    for space in family.spaces.values():
        try:
            return Genotype.from_text(text, space.name).validate(space)
        except GenotypeError as error:
            faults.append(str(error))
    raise GenotypeError(faults[0])


def genotype_label(name: str, genotype: Genotype) -> str:
    """A short name for files and run folders: that of what was published, the file or the run."""
    return (not is_text(name) and Path(name).stem) or genotype.content_hash[:8]


def is_text(name: str) -> bool:
    """Whether what stands for a genotype is its DARTS text itself, pasted."""
    return "(" in name


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(json.dumps(value, indent=2))
