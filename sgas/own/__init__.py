"""Data from outside, checked before it is used."""

from __future__ import annotations

from typing import Any

from sgas.config import AUTO, CLASS
from sgas.errors import ConfigError, option

OWN = "own"  # the folder of data that were in memory
# Options of data of one's own alone.
OPTIONS = ("target", "number_loss", "test_fraction", "split", "directed")


def refuse_options(dataset: str, options: Any) -> None:
    """ConfigError where a data set with a name is asked for what data of one's own alone has."""
    usual = type(options)()
    for name in OPTIONS:
        if hasattr(options, name) and getattr(options, name) != getattr(usual, name):
            raise ConfigError(
                f"{name} is {getattr(options, name)}, which is for data of your own; {dataset} has "
                f"its splits and labels: leave {option(name)} out"
            )


def has_test_part(where: object) -> ConfigError:
    """The error of a test part that is to be drawn where there is one."""
    return ConfigError(f"{where} has a test part: leave {option('test_fraction')} out")


def refuse_target(folder: object, target: str) -> None:
    """ConfigError where folders of classes are to be anything but classes."""
    if target not in (AUTO, CLASS):
        raise ConfigError(
            f"target is {target}, but the folders in {folder} are classes: leave "
            f"{option('target')} out"
        )
