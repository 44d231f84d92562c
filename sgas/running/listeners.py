"""Who hears how far a search or a training is: `Listener`, one that is silent, several as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Listener(Protocol):
    """Hears how far a search or a training is, to show it. Epochs count from 0, as in the files."""

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """The loop begins at `first_epoch`, above 0 after a resume.

        `costs` are the epochs' expected shares of the work, in any unit.
        """
        ...

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        """Step `step` (from 1) of an epoch of `num_batches` is done."""
        ...

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """An epoch is over; `news` are its decisions in words."""
        ...


class Silent:
    """A listener that shows nothing; a base for one that hears some of the calls."""

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """Shows nothing."""

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        """Shows nothing."""

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Shows nothing."""


class Several:
    """Listeners that hear the same, in order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def started(self, first_epoch: int, costs: list[float]) -> None:
        """Tells all."""
        for listener in self.listeners:
            listener.started(first_epoch, costs)

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        """Tells all."""
        for listener in self.listeners:
            listener.stepped(epoch, step, num_batches)

    def epoch_ended(self, epoch: int, metrics: Mapping[str, Any], news: tuple[str, ...]) -> None:
        """Tells all."""
        for listener in self.listeners:
            listener.epoch_ended(epoch, metrics, news)
