"""Each search space in turn, and each choice of kernels on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_models import FAMILIES, SPACES, SmallSpace

from sgas.family import Family
from sgas.native.backend import use_kernels


@pytest.fixture(params=SPACES)
def small(request: pytest.FixtureRequest) -> SmallSpace:
    """Each search space in turn."""
    return SPACES[request.param]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in turn."""
    return FAMILIES[request.param]


@pytest.fixture(params=["torch", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each choice of kernels in turn."""
    use_kernels(request.param)
    yield request.param
    use_kernels("auto")
