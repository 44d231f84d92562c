"""Stop signals: SIGINT and SIGTERM end work between two steps, never inside one."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Any


class StopSignal:
    """Turns SIGINT and SIGTERM into a flag that loops look at between steps. A context manager.

    A second SIGINT interrupts at once, as usual. One inside another tells the outer too, and hears
    what the outer had heard before.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: nothing to catch
                self._before[number] = signal.signal(number, self._request)
        outer = self._outer(signal.SIGTERM)
        self.requested = outer is not None and outer.requested
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        outer = self._outer(number)
        if outer is not None:
            outer.requested = True

    def _outer(self, number: int) -> StopSignal | None:
        before = getattr(self._before.get(number), "__self__", None)
        return before if isinstance(before, StopSignal) else None
