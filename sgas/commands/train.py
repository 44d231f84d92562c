"""`train GENOTYPE`: trains the derived network from scratch; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from jsonargparse import ArgumentParser

from sgas.commands.common import (
    Settings,
    build_settings,
    command_of,
    config_json,
    epilog,
    genotype_label,
    load_genotype,
    open_settings,
    preset_values,
    require_dataset,
    resolve_device,
    sections_of,
)
from sgas.commands.loops import (
    begin,
    conclude,
    recorder_on,
    rehearse,
    require_batch,
    require_same_sizes,
    require_samples,
    restore,
    resume_only,
    run_to_go_on_with,
    sizes_of,
)
from sgas.errors import ConfigError
from sgas.family import Family, Task
from sgas.genotype import Genotype
from sgas.options import Flag, Positional, first_positional, parser_for, peek, resolve
from sgas.runs import Run, free_folder, is_run, read_config

GENOTYPE = Positional(
    "genotype", "published name, genotype file (JSON or DARTS text) or run folder"
)
FLAGS = [Flag("resume", "run folder to go on with; takes no other argument", is_switch=False)]


@dataclass(frozen=True)
class Trained:
    """What a training that has ended left: its figures, and the run folder with the weights."""

    result: dict[str, Any]
    folder: Path


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `train` and returns 0; errors are raised."""
    parser = parser_of(family, argv)
    folder = resume_only(parser, argv)
    if folder is not None:
        trained = resume_training(family, folder)
    else:
        settings, name = settings_of(family, parser, argv)
        genotype = load_genotype(family, name)
        label, command = genotype_label(name, genotype), command_of(family, "train", argv)
        trained = begin_training(family, settings, genotype, label, command)
    print(f"run      {trained.folder}")
    for name, value in trained.result.items():
        print(f"{name:<10} {value}")
    print(f"next     {family.command} evaluate {trained.folder}")
    return 0


def parser_of(family: Family, argv: Sequence[str]) -> ArgumentParser:
    """The parser of `train` for the data set and the genotype that a command names."""
    about = "Train the network of a genotype from scratch and keep its last epoch."
    dataset, space = _data(family, argv)
    sections = sections_of(family, "train", space)
    told = epilog(family, "train", dataset, space)
    return parser_for(family.command, "train", about, sections, [GENOTYPE], FLAGS, told)


def settings_of(
    family: Family, parser: ArgumentParser, argv: Sequence[str]
) -> tuple[Settings, str]:
    """The resolved configuration that a command asks for, and the genotype as it was given."""
    values = resolve(parser, argv, lambda first: _preset(family, first))
    return build_settings(family, "train", values["space"], values), values["genotype"]


def begin_training(
    family: Family, settings: Settings, genotype: Genotype, label: str, command: str
) -> Trained:
    """Trains in a new run, or goes on with the one that was begun with the same settings.

    `command` is written into a new run as what made it.
    """

    def has_ended(folder: Path) -> bool:
        return (folder / "result.json").is_file()

    name, plain = _name(settings, label), msgspec.to_builtins(genotype)
    folder = run_to_go_on_with(family, settings, name, has_ended, genotype=plain)
    if folder is not None:
        return resume_training(family, folder)
    return run_training(family, settings, genotype, label, command=command)


def resume_training(family: Family, folder: Path) -> Trained:
    """Goes on with the training of a run folder."""
    settings, config = open_settings(family, folder, "train")
    genotype = msgspec.convert(config["genotype"], Genotype)
    return run_training(family, settings, genotype, "", config, folder)


def _preset(family: Family, values: dict[str, Any]) -> dict[str, Any]:
    """The preset's values; a run's data set, where it lies and space are its training's."""
    require_dataset(values)
    known = _of_run(Path(values["genotype"]))
    same_data = values["dataset"] in (None, known.get("dataset"))
    values["dataset"] = values["dataset"] or known.get("dataset")
    values["space"] = values["space"] or known.get("space")
    where = {"data_root": known["data_root"]} if same_data and "data_root" in known else {}
    return {**where, **preset_values(family, "train", values)}


def _of_run(path: Path) -> dict[str, Any]:
    return dict(read_config(path)["run"]) if is_run(path) else {}


def _data(family: Family, argv: Sequence[str]) -> tuple[str, str]:
    """Data set and search space of a training, before all its options are known."""
    genotype = first_positional(argv)
    known = _of_run(Path(genotype)) if genotype else {}
    dataset = peek(argv, "dataset") or known.get("dataset") or family.default_dataset
    return dataset, family.space_of(dataset, peek(argv, "space") or known.get("space"))


def run_training(
    family: Family,
    settings: Settings,
    genotype: Genotype,
    label: str = "",
    config: dict[str, Any] | None = None,
    folder: Path | None = None,
    command: str = "",
) -> Trained:
    """Trains in a new run, named by `label`, or goes on in `folder`, whose configuration is given.

    Interrupted after a stop signal, with the state in the run. `command` is written into a new run
    as what made it.
    """
    device = resolve_device(settings.run.device)
    begin(family, settings.run, device, config)
    from safetensors.torch import save as to_safetensors

    from sgas.events import Both, Events
    from sgas.progress import ShowProgress
    from sgas.train import Training

    run_config, loop = settings.run, settings.loop
    if genotype.space != run_config.space:
        raise ConfigError(
            f"the genotype is of space {genotype.space!r}; data set {run_config.dataset} needs "
            f"one of space {run_config.space!r}"
        )
    task = family.open_task(run_config, settings.model, settings.data)
    require_batch(loop.batch_size, task.smallest_batch)
    recorder = recorder_on(run_config, device, task.example_input())
    if folder is None:
        rehearse(task.build_network(genotype, loop.auxiliary).eval(), task.example_input())
    parts = task.train_parts(run_config.protocol, run_config.seed, loop.validation_fraction, device)
    sizes = sizes_of([parts.training, parts.validation])
    require_samples({"training part": parts.training}, task.smallest_batch)
    if folder is not None and config is not None:
        require_same_sizes(folder, config, sizes)
    if folder is None:
        plain = msgspec.to_builtins(genotype)
        facts = {"dimensions": task.dimensions, "sizes": sizes, "genotype": plain}
        made = config_json(family, settings, device, command, **facts)
        run = Run.create(_out(settings, label), made)
    else:
        run = Run.open(folder)
    progress = ShowProgress("train", 0, task.labels.primary_metric)
    with run, progress, Events(run) as events:
        run.write_text("genotype.json", genotype.to_json())
        progress.console.print(f"run   {run.folder}", soft_wrap=True)
        if genotype.meta.get("final") is False:
            progress.console.print("note  the genotype is of a search that has not ended")
        training = Training(
            task,
            genotype,
            loop,
            run,
            parts=parts,
            seed=run_config.seed,
            device=device,
            precision=run_config.precision,
            recorder=recorder,
            listener=Both(progress, events),
        )
        if folder is not None:
            restore(training, run, "train")
        network = conclude(family, run, training.execute, progress)
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        run.write_bytes("weights.safetensors", to_safetensors(weights))
        result = {**_result(run, task.labels.primary_metric, settings), **_cost(task, genotype)}
        run.write_json("result.json", result)
    return Trained(result, run.folder)


def _name(settings: Settings, label: str) -> str:
    dataset = Path(str(settings.run.dataset)).resolve().name
    known = label if label.startswith(dataset) else f"{dataset}-{label}"
    return f"{known}-train-{settings.run.seed}"


def _out(settings: Settings, label: str) -> Path:
    run = settings.run
    return Path(run.out) if run.out else free_folder(Path("runs"), _name(settings, label))


def _cost(task: Task, genotype: Genotype) -> dict[str, int]:
    """Parameters and FLOPs of one sample of the network as it is used: no auxiliary head."""
    from sgas.complexity import num_flops, num_parameters

    network = task.build_network(genotype, False)
    return {
        "parameters": num_parameters(network),
        "flops": num_flops(network, task.example_input()),
    }


def _result(run: Run, metric: str, settings: Settings) -> dict[str, Any]:
    """The last epoch's figures; in protocol `paper` the best test epoch beside them."""
    last = run.metrics[-1]
    result = {
        key: last[key]
        for key in last
        if key.startswith(("train_", "validation_", "test_")) and not key.endswith("loss")
    }
    result["protocol"] = settings.run.protocol
    if f"test_{metric}" in last:
        best = max(run.metrics, key=lambda line: line[f"test_{metric}"])
        result[f"best_test_epoch_{metric}"] = best[f"test_{metric}"]
        result["note"] = "protocol paper: the best test epoch is chosen by the test split"
    return result
