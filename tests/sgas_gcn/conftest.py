"""Fixtures of the family: every backend of the kernels in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sgas.native.backend import use_kernels

# The choice of kernels, and the device whose tensors they take; another backend is another line.
BACKENDS = {"torch": "cpu", "cpu": "cpu"}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of the backend that is in force; skips one that this machine cannot run."""
    device = torch.device(BACKENDS[request.param])
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    use_kernels(request.param)
    yield device
    use_kernels("auto")
