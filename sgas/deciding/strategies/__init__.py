"""Strategies, one a file; `sgas.config.STRATEGIES` is the table of their names."""

from __future__ import annotations

from pkgutil import resolve_name

from sgas.config import STRATEGIES
from sgas.deciding.strategies.base import EpochView, Strategy
from sgas.errors import unknown_name


def strategy_named(name: str) -> Strategy:
    """The strategy of a name; InputError with the choices where there is none."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    source = STRATEGIES[name].source
    strategy: Strategy = resolve_name(source) if isinstance(source, str) else source
    return strategy


__all__ = ["EpochView", "Strategy", "strategy_named"]
