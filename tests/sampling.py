"""Cases of which every run takes some, and the exhaustive tests all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """The cases; those that are not `kept` are marked `exhaustive`."""
    cases = list(cases)
    assert set(kept) <= set(cases), "what is kept is no case"
    return [
        case
        if case in kept
        else pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.exhaustive
        )
        for case in cases
    ]
