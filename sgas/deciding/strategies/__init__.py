"""The table of strategies. A new one is one file and a line here."""

from __future__ import annotations

from sgas.deciding.scoring import CRITERIA
from sgas.deciding.strategies.base import EpochView, Strategy
from sgas.deciding.strategies.darts import Darts
from sgas.deciding.strategies.greedy import Greedy
from sgas.deciding.strategies.random import Random
from sgas.errors import unknown_name

STRATEGIES: dict[str, Strategy] = {
    **{name: Greedy(name, criterion) for name, criterion in CRITERIA.items()},
    "darts": Darts(),
    "random": Random(),
}


def strategy_named(name: str) -> Strategy:
    """The strategy of a name; InputError with the choices where there is none."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]


__all__ = ["STRATEGIES", "EpochView", "Strategy", "strategy_named"]
