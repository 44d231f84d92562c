"""Fixtures of the family: every backend of the kernels in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from image_kernels import SMALL, needs_library
from triton_runs import triton_kernels

from sgas_cnn.kernels.backend import backend_named


@pytest.fixture(params=["torch", "cpu", "cuda"])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each backend that this machine has; Triton's kernels are interpreted, in one size."""
    if request.param == "cpu":
        needs_library()
    if request.param == "cuda" and _size(request) not in (None, SMALL):
        pytest.skip("the interpreter takes long; test_triton_primitives has more")
    with triton_kernels() if request.param == "cuda" else nullcontext():
        yield backend_named(request.param)


def _size(request: pytest.FixtureRequest) -> Any:
    """The size of the images of a test, None where it has no such parameter."""
    return request.node.callspec.params.get("size")
