"""Fixtures of the family: every backend of the kernels in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from image_kernels import BACKENDS, needs_library
from triton_runs import triton_kernels

from sgas_cnn.kernels.backend import backend_named


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each backend that this machine has; Triton's kernels are interpreted."""
    if request.param == "cpu":
        needs_library()
    with triton_kernels() if request.param == "cuda" else nullcontext():
        yield backend_named(request.param)
