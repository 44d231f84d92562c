"""The test split of a training that has ended: opened once, its figures kept in the run."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.config import LAST
from sgas.family import Family
from sgas.protocols import TEST, provenance
from sgas.running.checks import require_same_contents
from sgas.running.machine import resolve_device
from sgas.running.predictions import PREDICTIONS, Said, as_csv, read_predictions
from sgas.running.runs import Run
from sgas.running.settings import with_data_at
from sgas.running.trained import (
    EVALUATION,
    open_trained,
    read_evaluation,
    read_result,
    trained_network,
)

if TYPE_CHECKING:
    import torch


def evaluate_run(
    family: Family, folder: Path, device_name: str = "auto", place: str | None = None
) -> dict[str, Any]:
    """The figures of a trained run on the test split, measured once and kept in its folder.

    `place` is where its data lie now, if not where they were. RunError where the folder is no
    training or has not been trained to its end, DataError where the data are not those of training.
    """
    open_trained(family, folder)
    device = resolve_device(device_name)
    return read_evaluation(folder) or _open_test_split(family, folder, device, place)


def _open_test_split(
    family: Family, folder: Path, device: torch.device, place: str | None
) -> dict[str, Any]:
    """Measures the network on the test split, writes what it says there and returns its figures."""
    from sgas.running.loop import evaluation_step, measure
    from sgas.running.training_page import draw_trained

    settings, config = open_trained(family, folder)
    settings = with_data_at(family, folder, settings, place)
    genotype = settings.genotype
    assert genotype is not None, "a training has a genotype"
    network = trained_network(family, folder)
    task = family.open_task(settings.run, settings.model, settings.data)
    require_same_contents(folder, config, task.fingerprint())
    with Run.open(folder) as run:
        source = task.test_part(device)
        said = Said(task.labels)
        network.to(device)
        step = evaluation_step(network, task.labels, device, settings.run.precision, said)
        figures = measure(network, task.labels, source, settings.loop.batch_size, device, step=step)
        opened = datetime.now(timezone.utc).isoformat(timespec="seconds")
        evaluation = {
            **figures,
            "samples": len(source),
            "epoch": LAST if settings.loop.kept_epoch == LAST else read_result(folder)["epoch"],
            **provenance(dataclasses.asdict(settings.run), genotype.meta, config.get("weights")),
            "dataset": settings.run.dataset,
            "seed": settings.run.seed,
            "opened": opened,
        }
        rows = [row for row in read_predictions(folder) if row["part"] != TEST]
        rows += said.rows(TEST, source, task.classes)
        run.write_result(PREDICTIONS, as_csv(rows))
        run.write_result(EVALUATION, evaluation)
        draw_trained(family, folder, folder)
    return evaluation
