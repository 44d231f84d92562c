"""`train GENOTYPE`: trains the derived network from scratch; `--resume RUN` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sgas.commands.common import (
    Settings,
    config_json,
    epilog,
    genotype_label,
    load_genotype,
    open_settings,
    preset_values,
    resolve_device,
    sections_of,
)
from sgas.commands.loops import begin, conclude, rehearse, require_batch, resume_only
from sgas.config import RunConfig, TrainConfig
from sgas.errors import ConfigError
from sgas.family import Family
from sgas.genotype import Genotype
from sgas.options import Flag, Positional, build, first_positional, parser_for, peek, resolve
from sgas.runs import Run, free_folder, is_run, read_config

GENOTYPE = Positional(
    "genotype", "published name, genotype file (JSON or DARTS text) or run folder"
)
FLAGS = [Flag("resume", "run folder to go on with; takes no other argument", is_switch=False)]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `train` and returns 0; errors are raised."""
    about = "Train the network of a genotype from scratch and keep its last epoch."
    dataset, space = _data(family, argv)
    sections = sections_of(family, "train", space)
    told = epilog(family, "train", dataset, space)
    parser = parser_for(family.command, "train", about, sections, [GENOTYPE], FLAGS, told)
    folder = resume_only(parser, argv)
    if folder is not None:
        settings, config = open_settings(family, folder, "train")
        genotype = msgspec.convert(config["genotype"], Genotype)
        return _train(family, settings, genotype, "", config, folder)
    values = resolve(parser, argv, lambda first: _preset(family, first))
    settings = Settings(
        "train",
        build(RunConfig, values),
        build(TrainConfig, values),
        build(family.model_configs[space], values),
        build(family.data_configs[space], values),
    )
    genotype = load_genotype(family, values["genotype"])
    label = genotype_label(values["genotype"], genotype)
    return _train(family, settings, genotype, label, None, None)


def _preset(family: Family, values: dict[str, Any]) -> dict[str, Any]:
    """The preset's values; data set and space of a run are the defaults for its training."""
    known = _of_run(Path(values["genotype"]))
    values["dataset"] = values["dataset"] or known.get("dataset")
    values["space"] = values["space"] or known.get("space")
    return preset_values(family, "train", values)


def _of_run(path: Path) -> dict[str, Any]:
    return dict(read_config(path)["run"]) if is_run(path) else {}


def _data(family: Family, argv: Sequence[str]) -> tuple[str, str]:
    """Data set and search space of a training, before all its options are known."""
    genotype = first_positional(argv)
    known = _of_run(Path(genotype)) if genotype else {}
    dataset = peek(argv, "dataset") or known.get("dataset") or family.default_dataset
    return dataset, family.space_of(dataset, peek(argv, "space") or known.get("space"))


def _train(
    family: Family,
    settings: Settings,
    genotype: Genotype,
    label: str,
    config: dict[str, Any] | None,
    folder: Path | None,
) -> int:
    device = resolve_device(settings.run.device)
    begin(family, settings.run, device, config)
    from safetensors.torch import save as to_safetensors

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
    if folder is None:
        rehearse(task.build_network(genotype, loop.auxiliary).eval(), task.example_input())
    parts = task.train_parts(run_config.protocol, run_config.seed, loop.validation_fraction, device)
    if folder is None:
        dataset = Path(str(run_config.dataset)).resolve().name
        known = label if label.startswith(dataset) else f"{dataset}-{label}"
        name = f"{known}-train-{run_config.seed}"
        out = Path(run_config.out) if run_config.out else free_folder(Path("runs"), name)
        plain = msgspec.to_builtins(genotype)
        run = Run.create(
            out, config_json(family, settings, device, dimensions=task.dimensions, genotype=plain)
        )
    else:
        run = Run.open(folder)
    with run, ShowProgress("train", 0, task.labels.primary_metric) as progress:
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
            listener=progress,
        )
        state = run.load_checkpoint() if folder is not None else None
        if state is not None:
            training.restore(state)
        network = conclude(family, run, training.execute, progress)
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        run.write_bytes("weights.safetensors", to_safetensors(weights))
        result = _result(run, task.labels.primary_metric, settings)
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
