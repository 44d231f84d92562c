"""Each search space and each family in turn."""

from __future__ import annotations

import pytest
from small_models import FAMILIES, SPACES, SmallSpace

from sgas.family import Family


@pytest.fixture(params=SPACES)
def small(request: pytest.FixtureRequest) -> SmallSpace:
    """Each search space in turn."""
    return SPACES[request.param]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in turn."""
    return FAMILIES[request.param]
