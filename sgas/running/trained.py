"""Trainings that have ended, read: the network with its weights, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.errors import RunError
from sgas.family import Family, Network
from sgas.files import read_json, read_sealed
from sgas.protocols import provenance
from sgas.running.runs import RESULT, WEIGHTS, read_config
from sgas.running.settings import Settings, open_settings

if TYPE_CHECKING:
    from torch import Tensor

EVALUATION = "evaluation.json"


def open_trained(family: Family, folder: Path) -> tuple[Settings, dict[str, Any]]:
    """Settings and config.json of a training that has ended; RunError where it is none."""
    settings, config = open_settings(family, folder)
    if settings.verb != "train":
        raise RunError(f"{folder} is a search; train it first: {family.command} train {folder}")
    if not (folder / WEIGHTS).is_file():
        raise RunError(
            f"{folder} has not been trained to its end; go on with: {family.command} train "
            f"--resume {folder}"
        )
    return settings, config


def trained_network(family: Family, folder: Path) -> Network:
    """The network of a trained run with its weights, on the CPU, in evaluation mode.

    RunError where the run was not trained to its end or its weights are damaged.
    """
    settings, config = open_trained(family, folder)
    space = family.spaces[str(settings.run.space)]
    models = space.models(settings.model, config["dimensions"])
    assert settings.genotype is not None, "a training has a genotype"
    network = models.build_network(settings.genotype, settings.loop.auxiliary)
    try:
        network.load_state_dict(trained_weights(folder))
    except RuntimeError as error:
        raise RunError(f"{folder / WEIGHTS} is damaged: {_reason(error)}") from None
    network.eval()
    return network


def trained_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a trained run by name; RunError where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_safetensors

    try:
        return from_safetensors(read_sealed(folder / WEIGHTS))
    except SafetensorError as error:
        raise RunError(f"{folder / WEIGHTS} is damaged: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


def read_result(folder: Path) -> dict[str, Any]:
    """The figures of the epoch that a trained run kept, its parameters and FLOPs."""
    return _read(folder, RESULT)


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """The figures of a trained run on the test split; None where that was not opened yet."""
    return _read(folder, EVALUATION) if (folder / EVALUATION).is_file() else None


def _read(folder: Path, name: str) -> dict[str, Any]:
    """The figures in a file of a trained run, called what all that made them allows.

    Files of before held the protocol of the training alone.
    """
    figures: dict[str, Any] = read_json(folder / name)
    config = read_config(folder)
    return figures | provenance(
        config["run"], config["genotype"].get("meta", {}), config.get("weights")
    )
