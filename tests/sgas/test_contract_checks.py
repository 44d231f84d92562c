"""Every entry of every table passes the checks of `sgas.testing`; what breaks one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_family import FAMILY as TOY

from sgas.config import STRATEGIES, StrategyInfo
from sgas.deciding.scoring import criterion_1
from sgas.deciding.strategies.greedy import Greedy
from sgas.errors import DeviceError
from sgas.testing import check_backend, check_dataset, check_operation, check_space, check_strategy
from sgas_cnn.family import FAMILY as IMAGES
from sgas_gcn.family import FAMILY as GRAPHS
from sgas_gcn.ops.operation import Operation

FAMILIES = [GRAPHS, IMAGES, TOY]
GENERATED = ("shapes", "tissues", "digits", "blobs")  # the others are downloaded
OPERATIONS = [
    pytest.param(family, space, name, id=f"{space}-{name}")
    for family in FAMILIES
    for space in family.spaces
    for name in family.spaces[space].operations().table
]
SPACES = [pytest.param(family, space, id=space) for family in FAMILIES for space in family.spaces]


@pytest.mark.parametrize(("family", "space", "name"), OPERATIONS)
def test_operations(family: Any, space: str, name: str) -> None:
    check_operation(family, space, name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies(name: str) -> None:
    check_strategy(name)


@pytest.mark.parametrize("name", GENERATED)
def test_data_sets(name: str, tmp_path: Path) -> None:
    (family,) = [family for family in FAMILIES if name in family.datasets]
    check_dataset(family, name, root=str(tmp_path))


@pytest.mark.parametrize(("family", "space"), SPACES)
def test_spaces(family: Any, space: str) -> None:
    check_space(family, space)
    searched, table = family.search_space(space), family.spaces[space].operations().table
    assert tuple(table) == (*searched.operations, *searched.published_only)


@pytest.mark.parametrize(("family", "space"), SPACES)
def test_compiled_backends(family: Any, space: str) -> None:
    try:
        check_backend(family, space, "cpu")
    except DeviceError as error:
        pytest.skip(str(error))


class Wide(Operation):
    """Twice the channels."""

    def forward(self, x: Any, neighbors: Any) -> Any:
        return torch.cat([x, x], dim=1)


class Ordered(Operation):
    """Knows a node by its number."""

    def forward(self, x: Any, neighbors: Any) -> Any:
        return x * torch.arange(len(x), dtype=x.dtype).unsqueeze(1)


class Drawing(Operation):
    """Draws lots in evaluation."""

    def forward(self, x: Any, neighbors: Any) -> Any:
        return x * torch.rand(()).to(x.dtype)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(Wide, "gives"), (Ordered, "in another order of its nodes"), (Drawing, "draws lots")],
)
def test_a_broken_operation_is_named(
    monkeypatch: pytest.MonkeyPatch, broken: Any, message: str
) -> None:
    monkeypatch.setitem(GRAPHS.spaces["point"].operations().table, "broken", broken)
    with pytest.raises(AssertionError, match=f"operation 'broken' of space point.*{message}"):
        check_operation(GRAPHS, "point", "broken")


class Late(Greedy):
    """Says that it decides later than it does."""

    def first_decision(self, schedule: Any) -> int:
        return schedule.last_epoch


def test_a_broken_strategy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "late", StrategyInfo("", Late(criterion_1)))
    with pytest.raises(AssertionError, match=r"strategy 'late'.*first decides after epoch 4"):
        check_strategy("late")
