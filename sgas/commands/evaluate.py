"""`evaluate RUN`: opens the test split, once, for the network of a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sgas.commands.common import Settings, open_settings, print_json, resolve_device
from sgas.errors import RunError
from sgas.family import Family, Network
from sgas.genotype import Genotype
from sgas.options import Flag, Positional, parse, parser_for
from sgas.runs import Run

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights.safetensors"
RUN = Positional("run", "run folder of a training that has ended")
FLAGS = [
    Flag("json", "print one JSON object"),
    Flag("device", "auto, cpu, cuda or cuda:N (default: auto)", is_switch=False),
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `evaluate` and returns 0; errors are raised."""
    about = (
        "Measure a trained network on the test split. The split is opened once: the figures are "
        "kept in evaluation.json and printed again when the command is repeated."
    )
    parser = parser_for(family.command, "evaluate", about, {}, [RUN], FLAGS)
    values = parse(parser, argv)
    evaluation = evaluate_run(family, Path(values["run"]), values["device"] or "auto")
    if values["json"]:
        print_json(evaluation)
        return 0
    for name, value in evaluation.items():
        print(f"{name:<18} {value:.4f}" if isinstance(value, float) else f"{name:<18} {value}")
    return 0


def evaluate_run(family: Family, folder: Path, device_name: str = "auto") -> dict[str, Any]:
    """The figures of a trained run on the test split, measured once and kept in its folder.

    RunError where the folder is no training or has not been trained to its end.
    """
    _open_trained(family, folder)
    kept, device = folder / "evaluation.json", resolve_device(device_name)
    if not kept.is_file():
        _measure(family, folder, device)
    try:
        evaluation: dict[str, Any] = json.loads(kept.read_text())
    except ValueError as error:
        raise RunError(f"{kept} is damaged: {error}") from None
    return evaluation


def trained_network(family: Family, folder: Path) -> Network:
    """The network of a trained run with its weights, on the CPU, in evaluation mode.

    RunError where the run was not trained to its end or its weights are damaged.
    """
    settings, config = _open_trained(family, folder)
    models = family.models(str(settings.run.space), settings.model, config["dimensions"])
    genotype = msgspec.convert(config["genotype"], Genotype)
    network = models.build_network(genotype, settings.loop.auxiliary)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise RunError(f"{folder / WEIGHTS} is damaged: {told}") from None
    network.eval()
    return network


def _open_trained(family: Family, folder: Path) -> tuple[Settings, dict[str, Any]]:
    """Settings and config.json of a training that has ended."""
    settings, config = open_settings(family, folder)
    if settings.verb != "train":
        raise RunError(f"{folder} is a search; train it first: {family.command} train {folder}")
    if not (folder / WEIGHTS).is_file():
        raise RunError(
            f"{folder} has not been trained to its end; go on with: {family.command} train "
            f"--resume {folder}"
        )
    return settings, config


def _measure(family: Family, folder: Path, device: torch.device) -> None:
    """Opens the test split and writes evaluation.json."""
    from sgas.loop import evaluate

    settings, _ = _open_trained(family, folder)
    network = trained_network(family, folder)
    task = family.open_task(settings.run, settings.model, settings.data)
    with Run.open(folder) as run:
        source = task.test_part(device)
        batch_size = settings.loop.batch_size
        figures = evaluate(
            network.to(device), task.labels, source, batch_size, device, settings.run.precision
        )
        opened = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run.write_json(
            "evaluation.json",
            {
                **figures,
                "samples": len(source),
                "epoch": "last",
                "protocol": settings.run.protocol,
                "dataset": settings.run.dataset,
                "seed": settings.run.seed,
                "opened": opened,
            },
        )
