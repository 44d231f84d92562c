"""Fine-tuning: a training that starts from the weights of another, with another head if need be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sgas.errors import RunError
from sgas.family import Family
from sgas.running.optimizers import head_of
from sgas.running.predict import kept_inputs
from sgas.running.trained import open_trained, read_result, trained_weights


def origin_of(family: Family, folder: Path) -> dict[str, Any]:
    """What the figures of a training from these weights have to name: their data and protocol."""
    settings, _ = open_trained(family, folder)
    return {"dataset": settings.run.dataset, "protocol": read_result(folder)["protocol"]}


def start_from(family: Family, folder: Path, network: Any, classes: tuple[str, ...]) -> None:
    """Gives a network the trained weights of a run.

    Its head and its auxiliary head stay as they are where the classes are others, and modules that
    hold statistics of the training set (`of_data`) always. RunError where the weights are those of
    another network.
    """
    weights = trained_weights(folder)
    same = kept_inputs(family, folder)[0] == classes
    modules = dict(network.named_modules())
    of_data = tuple(f"{name}." for name, part in modules.items() if hasattr(part, "of_data"))
    new = () if same else (f"{head_of(modules)}.", "auxiliary.")
    taken = {}
    for name, own in network.state_dict().items():
        if name.startswith(of_data):
            continue
        fits = name in weights and weights[name].shape == own.shape
        if fits and not name.startswith(new):
            taken[name] = weights[name]
        elif not name.startswith(("auxiliary.", *new)):
            there = list(weights[name].shape) if name in weights else "missing"
            raise RunError(
                f"the weights of {folder} are of another network: {name} is {there} there and "
                f"{list(own.shape)} here; give the genotype and the sizes of that run"
            )
    network.load_state_dict(taken, strict=False)
