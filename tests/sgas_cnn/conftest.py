"""Fixtures of the family: every backend of the kernels in turn."""

from __future__ import annotations

from typing import Any

import pytest
from image_kernels import needs_library

from sgas_cnn.kernels import BACKENDS


@pytest.fixture(params=["torch", "cpu"])
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend that this machine has; what is torch's on CUDA is tested as torch's."""
    if request.param == "cpu":
        needs_library()
    return BACKENDS[request.param]
