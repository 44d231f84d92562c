"""Which split each protocol opens, and what for, whatever the data set."""

from __future__ import annotations

from typing import Any

import pytest

from sgas.errors import ConfigError, DataError
from sgas.protocols import (
    AlphasOn,
    SearchParts,
    TrainParts,
    cell_in_words,
    search_parts,
    train_parts,
)


class Split(str):
    """A split that is a word, and knows its parts."""

    few = False

    def in_parts(self, fractions: tuple[float, ...], seed: int) -> list[str]:
        if self.few:
            raise DataError("class 1 has 1 samples")
        return [f"{fraction:.2f} of {self}" for fraction in fractions]


class Shelf:
    """Splits that are words, and a note of those that were opened."""

    dataset, samples = "made-up", "words"

    def __init__(self, paper_alphas_on: AlphasOn = AlphasOn.TEST, validation: bool = False) -> None:
        self.paper_alphas_on, self.validation = paper_alphas_on, validation
        self.opened: set[str] = set()

    def _open(self, split: str) -> Any:
        self.opened.add(split)
        return Split(split)

    def training_part(self, device: Any) -> Any:
        return self._open("training")

    def parts_of_training(self, fractions: tuple[float, ...], seed: int, device: Any) -> Any:
        self._open("training")
        return [f"{fraction:.2f} of training" for fraction in fractions]

    def validation_part(self, device: Any) -> Any:
        return self._open("validation") if self.validation else None

    def test_part(self, device: Any) -> Any:
        return self._open("test")

    def count(self, part: Any) -> int:
        return len(part)


def searched(shelf: Shelf, protocol: str) -> SearchParts:
    return search_parts(shelf, protocol, 0, 0.2, None)


def trained(shelf: Shelf, protocol: str, fraction: float = 0.2) -> TrainParts:
    return train_parts(shelf, protocol, 0, fraction, None)


@pytest.mark.parametrize("alphas_on", AlphasOn)
@pytest.mark.parametrize("validation", [False, True])
def test_clean_never_opens_the_test_split(alphas_on: AlphasOn, validation: bool) -> None:
    shelf = Shelf(alphas_on, validation)
    parts, training = searched(shelf, "clean"), trained(shelf, "clean")
    assert "test" not in shelf.opened
    assert parts.label.startswith("protocol clean: ") and " words for " in parts.label
    if validation:
        assert (parts.weights, parts.alphas) == ("0.50 of training", "0.50 of training")
        assert parts.validation == "validation"
        assert training == TrainParts("training", {"validation": "validation"})
    else:
        assert (parts.weights, parts.alphas) == ("0.40 of training", "0.40 of training")
        assert parts.validation == "0.20 of training"
        assert training == TrainParts("0.80 of training", {"validation": "0.20 of training"})


@pytest.mark.parametrize("alphas_from", ["validation", "auto"])
def test_alphas_may_train_on_the_validation_split(alphas_from: str) -> None:
    def parts_of(shelf: Shelf, *more: str, protocol: str = "clean") -> SearchParts:
        sees = more[0] if more else "all"
        return search_parts(shelf, protocol, 0, 0.2, None, sees, alphas_from)  # type: ignore[arg-type]

    shelf = Shelf(validation=True)
    parts = parts_of(shelf)
    assert (parts.weights, parts.alphas) == ("training", "0.50 of validation")
    assert parts.validation == "0.50 of validation" and "test" not in shelf.opened
    for half in ("first_half", "second_half"):
        parts = parts_of(shelf, half)
        assert (parts.weights, parts.alphas) == ("0.50 of training", "0.25 of validation")
        assert parts.validation == "0.50 of validation"
    if alphas_from == "auto":  # where there is no such split, and of the paper, as ever
        assert parts_of(Shelf()) == searched(Shelf(), "clean")
        assert parts_of(shelf, protocol="paper") == searched(shelf, "paper")
        return
    with pytest.raises(DataError, match="made-up has no validation split, which alphas_from"):
        parts_of(Shelf())
    with pytest.raises(ConfigError, match="alphas_from is of protocol clean"):
        parts_of(shelf, protocol="paper")


def test_a_validation_split_that_cannot_be_divided_is_left_whole_or_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Split, "few", True)
    shelf = Shelf(validation=True)
    given: tuple[Any, ...] = (shelf, "clean", 0, 0.2, None, "all")
    assert search_parts(*given, "auto") == searched(shelf, "clean")
    with pytest.raises(DataError, match=r"validation split of made-up cannot be divided.*class 1"):
        search_parts(*given, "validation")


def test_a_cell_says_what_its_search_saw_and_was_chosen_among() -> None:
    shelf = Shelf(validation=True)
    seen = search_parts(shelf, "clean", 0, 0.2, None, "all", "auto").seen  # type: ignore[arg-type]
    notes = {"dataset": "one.npz", "protocol": "clean", "alphas_on": seen}
    said = "cell searched on one.npz with half of its validation split (protocol clean)"
    assert cell_in_words(notes) == said
    among = {"dataset": "own", "protocol": "paper", "among": [said, "a published cell"]}
    wanted = f"cell chosen on own among {said}; a published cell (protocol paper)"
    assert cell_in_words(among) == wanted
    assert searched(shelf, "clean").seen == ""


def test_a_clean_training_may_keep_nothing_back() -> None:
    assert trained(Shelf(), "clean", 0.0) == TrainParts("training", {})


@pytest.mark.parametrize(
    ("alphas_on", "weights", "alphas", "opened"),
    [
        (AlphasOn.TEST, "training", "test", {"training", "test"}),
        (AlphasOn.VALIDATION, "training", "validation", {"training", "validation"}),
        (AlphasOn.HALF, "0.50 of training", "0.50 of training", {"training"}),
    ],
)
def test_paper_trains_the_alphas_on_what_was_published(
    alphas_on: AlphasOn, weights: str, alphas: str, opened: set[str]
) -> None:
    shelf = Shelf(alphas_on, validation=True)
    parts = searched(shelf, "paper")
    assert (parts.weights, parts.alphas, parts.validation) == (weights, alphas, alphas)
    assert parts.label.startswith("protocol paper: ") and shelf.opened == opened
    assert trained(shelf, "paper") == TrainParts("training", {"test": "test"})


def test_paper_needs_the_split_that_it_names() -> None:
    with pytest.raises(DataError, match="made-up has no validation split, which protocol paper"):
        searched(Shelf(AlphasOn.VALIDATION), "paper")


def test_what_chooses_the_kept_epoch_is_a_validation_part() -> None:
    parts = train_parts(Shelf(validation=True), "paper", 0, 0.2, None, "best")
    assert parts == TrainParts("training", {"validation": "validation", "test": "test"})
    for protocol, fraction in (("paper", 0.2), ("clean", 0.0)):
        with pytest.raises(DataError, match="kept_epoch is best, but a training on made-up"):
            train_parts(Shelf(), protocol, 0, fraction, None, "best")
