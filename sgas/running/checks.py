"""What is checked before a run is written: options and data that a training could not end with."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

from sgas.config import BLOCK
from sgas.deciding.schedule import Schedule, shown_epoch
from sgas.errors import ConfigError, DataError, PluginError, option
from sgas.family import Family
from sgas.registry import described, records
from sgas.running.settings import Settings


def require_batch(batch_size: int, smallest: int) -> None:
    """ConfigError where a batch is smaller than what the networks can train on."""
    if batch_size < smallest:
        raise ConfigError(
            f"batch_size is {batch_size}; it has to be at least {smallest}",
            field="batch_size",
            value=batch_size,
        )


def require_samples(parts: Mapping[str, Sized], smallest: int) -> None:
    """DataError where a part that is trained on, by its name, is smaller than a batch has to be."""
    for name, part in parts.items():
        if len(part) < smallest:
            samples = "1 sample" if len(part) == 1 else f"{len(part)} samples"
            raise DataError(
                f"the {name} has {samples}; training takes at least {smallest}: give more data or "
                "another validation_fraction"
            )


def require_grounds(family: Family, settings: Settings, strategy: str) -> None:
    """ConfigError where a search would decide by alphas that no epoch has trained, or few paths.

    Of paths, an effect is estimated for each operation of each edge, and a mean for each block.
    """
    from sgas.deciding.strategies import strategy_named

    space, paths = family.search_space(str(settings.run.space)), settings.loop.scored_paths
    topology, asked = space.topology(settings.model.num_steps), strategy_named(strategy)
    effects = len(space.cell_kinds) * topology.num_edges * (len(space.operations) - 1)
    least = BLOCK * (effects // (BLOCK - 1) + 1)
    if asked.trains_paths and paths < least:
        raise ConfigError(
            f"scored_paths is {paths}, but {strategy} tells {effects} effects apart here: give at "
            f"least {least}",
            field="scored_paths",
            value=paths,
        )
    schedule, start = Schedule.of(settings.loop, topology), settings.loop.alpha_start_epoch
    first = asked.first_decision(schedule)
    if first is not None and start > first:
        raise ConfigError(
            f"alpha_start_epoch is {start}, but {strategy} first decides after epoch "
            f"{shown_epoch(first)}, by alphas that would not be trained yet: give at most {first}",
            field="alpha_start_epoch",
            value=start,
        )


def require_same_sizes(folder: Path, config: Mapping[str, Any], sizes: list[int]) -> None:
    """DataError where the data of a run to go on with have other sizes than it began with."""
    before = config.get("sizes", sizes)
    if before != sizes:
        raise DataError(
            f"the data of {folder} have changed: its parts had {before} samples, and have {sizes} "
            f"now; bring back the data, or start again with another {option('out')}"
        )


def require_same_contents(folder: Path, config: Mapping[str, Any], fingerprint: str) -> None:
    """DataError where training data are others than those that a run was begun with.

    Runs of before do not say what these were.
    """
    if config.get("contents", fingerprint) != fingerprint:
        raise DataError(
            f"the training data are not those of {folder}: they have changed since, or are others; "
            f"bring back the data, or say where they are by {option('dataset')}"
        )


def require_same_plugins(folder: Path, config: Mapping[str, Any]) -> None:
    """PluginError where a run was not begun with the plug-ins that are in the tables now."""
    before, now = described(config.get("plugins", [])), described(records())
    if set(before) != set(now):
        raise PluginError(
            f"{folder} was begun with {', '.join(before) or 'no plug-in'}, and given are "
            f"{', '.join(now) or 'none'}; give the same, or leave {option('plugin')} out"
        )


def rehearse(network: Any, example: Any) -> None:
    """Runs one sample through a network, so that what does not fit is told before a run is written.

    In evaluation mode, where nothing is drawn at random and nothing of the network changes.
    """
    import torch

    network.eval()
    with torch.no_grad():
        network(example)
    network.train()
