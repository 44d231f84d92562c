"""Protocols: which part of a data set trains weights and alphas, and which one is reported on.

`clean` draws every part of a search and of a training from the training set, or takes the data
set's own validation split, and never opens the test split. `paper` does as the authors did, for
reproduction: a search trains its alphas on what was published for its space and reports on the
same, a training reports the test split at every epoch.

A data set says what splits it has (`Splits`); which of them are used for what is said here alone.
So is what a result may be called: the worst protocol of all that made it (`provenance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sgas.config import (
    ALL,
    AUTO,
    BEST,
    LAST,
    OF_TRAINING,
    OF_VALIDATION,
    PERMUTED_LABELS,
    SECOND_HALF,
)
from sgas.errors import ConfigError, DataError, option

if TYPE_CHECKING:
    import torch

    from sgas.data import Source

CLEAN, PAPER, UNKNOWN = "clean", "paper", "unknown"
SEEN = "half of its validation split"  # what a clean search may have trained its alphas on
VALIDATION, TEST = "validation", "test"  # parts whose figures are reported, and their prefixes


class AlphasOn(Enum):
    """What the authors' search of a space trains its alphas on, and reports on too."""

    TEST = "test split"
    VALIDATION = "validation split"
    HALF = "half of the training set"


@dataclass(frozen=True)
class SearchParts:
    """Parts of the data that a search sees, and what they are: disjoint in protocol `clean`.

    `alphas_on` is what protocol `paper` takes for the alphas; None in `clean`. `seen` says in words
    what of the data set's other splits trained them; empty for none.
    """

    weights: Source
    alphas: Source
    validation: Source
    label: str
    alphas_on: AlphasOn | None = None
    seen: str = ""


@dataclass(frozen=True)
class TrainParts:
    """What a training sees: `measured` are the parts whose figures each epoch reports, by name."""

    training: Source
    measured: Mapping[str, Source]


class Splits(Protocol):
    """A data set's splits, each opened when it is asked for.

    `dataset` is its name, `samples` what a part is counted in (`training clouds`), and
    `paper_alphas_on` what protocol `paper` trains the alphas on.
    """

    dataset: str
    samples: str
    paper_alphas_on: AlphasOn

    def training_part(self, device: torch.device) -> Source:
        """The whole training set."""
        ...

    def parts_of_training(
        self, fractions: tuple[float, ...], seed: int, device: torch.device
    ) -> Sequence[Source]:
        """Disjoint parts of the training set, stratified, in a draw that follows from the seed.

        The fractions add up to 1; a part of fraction 0 is empty.
        """
        ...

    def validation_part(self, device: torch.device) -> Source | None:
        """The data set's own validation split; None where it has none."""
        ...

    def test_part(self, device: torch.device) -> Source:
        """The test split."""
        ...

    def count(self, part: Source) -> int:
        """How many `samples` a part has."""
        ...


def search_parts(
    splits: Splits,
    protocol: str,
    seed: int,
    validation_fraction: float,
    device: torch.device,
    sees: str = ALL,
    alphas_from: str = OF_TRAINING,
) -> SearchParts:
    """The parts of a search: for the weights, the alphas and the reported figure.

    `sees` is what of the first two it sees (`SearchConfig.sees`): all, or targets that were
    permuted in each by a draw that follows from the seed, or one of two disjoint halves of each.

    `clean`: halves of the training set, and the data set's own validation split or, where it has
    none, `validation_fraction` of the training set; with `alphas_from` (`SearchConfig.alphas_from`)
    all of the training set and halves of the validation split. DataError where a validation split
    is asked for that there is not, or a part is too small to be split.
    """
    if sees == PERMUTED_LABELS:
        from sgas.data import PermutedSource, stream_seed

        parts = search_parts(
            splits, protocol, seed, validation_fraction, device, alphas_from=alphas_from
        )
        first, second = (stream_seed(seed, PERMUTED_LABELS, name) for name in ("weights", "alphas"))
        return replace(
            parts,
            weights=PermutedSource.of(parts.weights, first),
            alphas=PermutedSource.of(parts.alphas, second),
            label=f"{parts.label}; labels of the first two permuted",
        )
    if protocol == PAPER:
        if sees != ALL:
            raise ConfigError(
                f"halves are of protocol {CLEAN}, and this is {PAPER}: give "
                f"{option('protocol', CLEAN)}, or no halves"
            )
        if alphas_from == OF_VALIDATION:
            raise ConfigError(
                f"alphas_from is of protocol {CLEAN}, and {PAPER} says itself what trains the "
                f"alphas: give {option('protocol', CLEAN)}, or leave it out"
            )
        return _paper_search(splits, seed, device)
    own = splits.validation_part(device)
    of_own = _of_validation(splits, own, alphas_from, sees, seed)
    if of_own is None:
        reported = validation_fraction if own is None else 0.0
        half = (1 - reported) / 2
        fractions = (half, half, reported) if sees == ALL else (*(half / 2,) * 4, reported)
        *drawn, held_out = splits.parts_of_training(fractions, seed, device)
        validation = held_out if own is None else own
    else:
        *alphas, validation = of_own
        weights = [splits.training_part(device)]
        if sees != ALL:
            weights = list(splits.parts_of_training((0.5, 0.5), seed, device))
        drawn = [part for pair in zip(weights, alphas, strict=True) for part in pair]
    weights_part, alphas_part = drawn[2:] if sees == SECOND_HALF else drawn[:2]
    sizes = "/".join(str(splits.count(part)) for part in (weights_part, alphas_part, validation))
    label = f"protocol clean: {sizes} {splits.samples} for weights/alphas/validation"
    parts = SearchParts(
        _in_steps(weights_part), _in_steps(alphas_part), _in_steps(validation), label
    )
    if of_own is None:
        return parts
    return replace(parts, label=f"{label}, the last two of the validation split", seen=SEEN)


def _of_validation(
    splits: Splits, own: Source | None, alphas_from: str, sees: str, seed: int
) -> Sequence[Source] | None:
    """What trains the alphas, and what is reported, of a validation split; None: it is left whole.

    DataError where a split that has to be divided cannot be.
    """
    if alphas_from == OF_TRAINING or (own is None and alphas_from == AUTO):
        return None
    instead = f"give {option('alphas_from', OF_TRAINING)}"
    if own is None:
        raise DataError(
            f"{splits.dataset} has no validation split, which alphas_from {OF_VALIDATION} takes: "
            f"{instead}"
        )
    dividing: Any = own  # a data set with such a split knows how
    try:
        divided: Sequence[Source] = dividing.in_parts(
            (0.5, 0.5) if sees == ALL else (0.25, 0.25, 0.5), seed
        )
    except DataError as error:
        if alphas_from == AUTO:
            return None
        raise DataError(
            f"the validation split of {splits.dataset} cannot be divided, as alphas_from "
            f"{OF_VALIDATION} asks: {error}; or {instead}"
        ) from None
    return divided


def _paper_search(splits: Splits, seed: int, device: torch.device) -> SearchParts:
    alphas_on = splits.paper_alphas_on
    if alphas_on is AlphasOn.HALF:
        weights, alphas = splits.parts_of_training((0.5, 0.5), seed, device)
        label = "protocol paper: halves of the training set; validation on the alphas' half"
        weights, alphas = _in_steps(weights), _in_steps(alphas)
        return SearchParts(weights, alphas, alphas, label, alphas_on)
    test = alphas_on is AlphasOn.TEST
    reported = splits.test_part(device) if test else splits.validation_part(device)
    if reported is None:
        raise DataError(
            f"{splits.dataset} has no validation split, which protocol paper trains the alphas on: "
            f"give {option('protocol', CLEAN)}"
        )
    label = f"protocol paper: the {alphas_on.value} trains the alphas and is the validation part"
    weights, alphas = _in_steps(splits.training_part(device)), _in_steps(reported)
    return SearchParts(weights, alphas, alphas, label, alphas_on)


def _in_steps(part: Source) -> Source:
    """A part as it says itself that steps take it; others are as they are.

    All parts of a supernet, which holds too much for a large graph; of a network what is trained.
    """
    return part.in_steps() if hasattr(part, "in_steps") else part


def train_parts(
    splits: Splits,
    protocol: str,
    seed: int,
    validation_fraction: float,
    device: torch.device,
    kept_epoch: str = LAST,
) -> TrainParts:
    """The parts of a training: for the weights and the figures of each epoch.

    `clean`: the data set's own validation split or `validation_fraction` of the training set, none
    where that is 0. `paper`: the whole training set and the test split, and the data set's own
    validation split where it chooses the epoch that is kept. DataError where nothing can choose it.
    """
    drawn = _train_parts(splits, protocol, seed, validation_fraction, device, kept_epoch)
    if kept_epoch == BEST and VALIDATION not in drawn.measured:
        raise DataError(
            f"kept_epoch is {BEST}, but a training on {splits.dataset} (protocol {protocol}) has "
            f"no validation part to choose by: give {option('kept_epoch', LAST)}"
        )
    return replace(drawn, training=_in_steps(drawn.training))


def _train_parts(
    splits: Splits,
    protocol: str,
    seed: int,
    validation_fraction: float,
    device: torch.device,
    kept_epoch: str,
) -> TrainParts:
    own = splits.validation_part(device) if protocol == CLEAN or kept_epoch == BEST else None
    measured = {} if own is None else {VALIDATION: own}
    if protocol == PAPER:
        measured |= {TEST: splits.test_part(device)}
        return TrainParts(splits.training_part(device), measured)
    if measured or validation_fraction == 0:
        return TrainParts(splits.training_part(device), measured)
    fractions = (1 - validation_fraction, validation_fraction)
    training, held_out = splits.parts_of_training(fractions, seed, device)
    return TrainParts(training, {VALIDATION: held_out})


def worst(*protocols: str) -> str:
    """What may be said of something that was made by all of these: paper, unknown or clean."""
    return next((name for name in (PAPER, UNKNOWN) if name in protocols), CLEAN)


def cell_protocol(notes: Mapping[str, Any]) -> str:
    """The protocol of the search of a cell, by the notes of its genotype; `unknown` without any.

    Cells of a paper that were written before their files said so are `paper`.
    """
    named = notes.get("protocol", PAPER if "published_name" in notes else UNKNOWN)
    return named if named in (CLEAN, PAPER) else UNKNOWN


def protocol_of_search(config: Mapping[str, Any]) -> str:
    """The protocol of what a search finds, by its config.json: the worst of what it chose among."""
    return str(config.get("cell_protocol", config["run"]["protocol"]))


def cell_in_words(notes: Mapping[str, Any]) -> str:
    """Where a cell comes from, by the notes of its genotype: `cell searched on …`."""
    protocol, on = cell_protocol(notes), ""
    if notes.get("dataset"):
        on = f" on {_short(notes['dataset'])}"
    among = notes.get("among")
    if isinstance(among, list):
        return f"cell chosen{on} among {'; '.join(map(str, among))} (protocol {protocol})"
    if protocol == UNKNOWN:
        return "cell of unknown origin"
    split = notes.get("alphas_on")
    own = ""
    if split in (AlphasOn.TEST.value, AlphasOn.VALIDATION.value):
        own = f" with its {split}"
    elif split == SEEN:
        own = f" with {SEEN}"
    return f"cell searched{on}{own} (protocol {protocol})"


def provenance(
    run: Mapping[str, Any], notes: Mapping[str, Any], weights: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What the figures of a trained network may be called, and why in words.

    `run` has `dataset` and `protocol` of the training, `notes` are those of its genotype; `weights`
    has both of the training whose weights it started from, if any.
    """
    trained = f"network trained on {_short(run['dataset'])} (protocol {run['protocol']})"
    made_by = [run["protocol"], cell_protocol(notes)]
    if weights:
        trained += f" from weights of {_short(weights['dataset'])} (protocol {weights['protocol']})"
        made_by.append(weights["protocol"])
    return {
        "protocol": worst(*made_by),
        "provenance": f"{cell_in_words(notes)}; {trained}",
    }


def _short(dataset: Any) -> str:
    """The name of a data set, of a folder without the path to it."""
    return Path(str(dataset)).name
