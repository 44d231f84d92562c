"""`evaluate RUN`: opens the test split, once, for the network of a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from sgas.commands.common import open_settings, print_json, resolve_device
from sgas.errors import RunError
from sgas.family import Family
from sgas.genotype import Genotype
from sgas.options import Flag, Positional, parse, parser_for
from sgas.runs import Run

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
    folder = Path(values["run"])
    settings, config = open_settings(family, folder)
    if settings.verb != "train":
        raise RunError(f"{folder} is a search; train it first: {family.command} train {folder}")
    if not (folder / "weights.safetensors").is_file():
        raise RunError(
            f"{folder} has not been trained to its end; go on with: {family.command} train "
            f"--resume {folder}"
        )
    kept = folder / "evaluation.json"
    device = resolve_device(values["device"] or "auto")
    if not kept.is_file():
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from sgas.loop import evaluate

        task = family.open_task(settings.run, settings.model, settings.data)
        genotype = msgspec.convert(config["genotype"], Genotype)
        network = task.build_network(genotype, settings.loop.auxiliary)
        try:
            network.load_state_dict(load_file(folder / "weights.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            told = " ".join(str(error).split())
            raise RunError(f"{folder / 'weights.safetensors'} is damaged: {told}") from None
        with Run.open(folder) as run:
            source = task.test_part(device)
            batch_size = settings.loop.batch_size
            figures = evaluate(
                network.to(device),
                task.labels,
                source,
                batch_size,
                device,
                settings.run.precision,
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
    try:
        evaluation = json.loads(kept.read_text())
    except ValueError as error:
        raise RunError(f"{kept} is damaged: {error}") from None
    if values["json"]:
        print_json(evaluation)
        return 0
    for name, value in evaluation.items():
        print(f"{name:<18} {value:.4f}" if isinstance(value, float) else f"{name:<18} {value}")
    return 0
