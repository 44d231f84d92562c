"""`train GENOTYPE`: trains the derived network from scratch; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sgas.commands.common import (
    Settings,
    config_json,
    genotype_label,
    load_genotype,
    open_settings,
    preset_values,
    resolve_device,
    sections_of,
)
from sgas.commands.loops import begin, conclude, resume_only
from sgas.config import RunConfig, TrainConfig
from sgas.errors import ConfigError
from sgas.family import Family
from sgas.genotype import Genotype
from sgas.options import Flag, Positional, build, parser_for, resolve
from sgas.runs import Run, free_folder, is_run, read_config

GENOTYPE = Positional(
    "genotype", "published name, genotype file (JSON or DARTS text) or run folder"
)
FLAGS = [Flag("resume", "run folder to go on with; takes no other argument", is_switch=False)]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `train` and returns 0; errors are raised."""
    about = "Train the network of a genotype from scratch and keep its last epoch."
    sections = sections_of(family, "train")
    parser = parser_for(family.command, "train", about, sections, [GENOTYPE], FLAGS)
    folder = resume_only(parser, argv)
    if folder is not None:
        settings, config = open_settings(family, folder)
        genotype = msgspec.convert(config["genotype"], Genotype)
        return _train(family, settings, genotype, "", config, folder)
    values = resolve(parser, argv, lambda first: _preset(family, first))
    settings = Settings(
        "train",
        build(RunConfig, values),
        build(TrainConfig, values),
        build(family.model_config, values),
        build(family.data_config, values),
    )
    genotype = load_genotype(family, values["genotype"])
    label = genotype_label(values["genotype"], genotype)
    return _train(family, settings, genotype, label, None, None)


def _preset(family: Family, values: dict[str, Any]) -> dict[str, Any]:
    """The preset's values; the data set of a searched run is the default for its training."""
    source = Path(values["genotype"])
    if values["dataset"] is None and is_run(source):
        values["dataset"] = read_config(source)["run"]["dataset"]
    return preset_values(family, "train", values)


def _train(
    family: Family,
    settings: Settings,
    genotype: Genotype,
    label: str,
    config: dict[str, Any] | None,
    folder: Path | None,
) -> int:
    device = resolve_device(settings.run.device)
    begin(config)
    from safetensors.torch import save as to_safetensors

    from sgas.progress import ShowProgress
    from sgas.train import Training

    run_config, loop = settings.run, settings.loop
    space = family.space_of(str(run_config.dataset))
    if genotype.space != space:
        raise ConfigError(
            f"the genotype is of space {genotype.space!r}; data set {run_config.dataset} needs "
            f"one of space {space!r}"
        )
    task = family.open_task(run_config, settings.model, settings.data)
    parts = task.train_parts(run_config.protocol, run_config.seed, loop.validation_fraction, device)
    if folder is None:
        dataset = Path(str(run_config.dataset)).name
        known = label if label.startswith(dataset) else f"{dataset}-{label}"
        name = f"{known}-train-{run_config.seed}"
        out = Path(run_config.out) if run_config.out else free_folder(Path("runs"), name)
        plain = msgspec.to_builtins(genotype)
        run = Run.create(
            out, config_json(family, settings, device, dimensions=task.dimensions, genotype=plain)
        )
    else:
        run = Run.open(folder)
    with run, ShowProgress("train", 0, task.primary_metric) as progress:
        run.write_text("genotype.json", genotype.to_json())
        progress.console.print(f"run   {run.folder}", soft_wrap=True)
        training = Training(
            task,
            genotype,
            loop,
            run,
            parts=parts,
            seed=run_config.seed,
            device=device,
            listener=progress,
        )
        state = run.load_checkpoint() if folder is not None else None
        if state is not None:
            training.restore(state)
        network = conclude(family, run, training.execute, progress)
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        run.write_bytes("weights.safetensors", to_safetensors(weights))
        result = _result(run, task.primary_metric, settings)
        run.write_json("result.json", result)
    print(f"run      {run.folder}")
    for name, value in result.items():
        print(f"{name:<8} {value}")
    print(f"next     {family.command} evaluate {run.folder}")
    return 0


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
