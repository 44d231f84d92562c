"""Which backend computes for a tensor."""

from __future__ import annotations

from torch import Tensor

from sgas.native.backend import kernels_of
from sgas_gcn.kernels import (
    cpu_backend,
    cuda_operators,  # noqa: F401 - a counter of FLOPs has to find its formulas
    torch_backend,
)
from sgas_gcn.kernels.protocol import Backend
from sgas_gcn.library import LIBRARY


def backend_of(x: Tensor) -> Backend:
    """The backend of a tensor's device and type.

    DeviceError where kernels were asked for that do not run there or cannot be built.
    """
    return backend_named(kernels_of(x, LIBRARY))


def backend_named(kernels: str) -> Backend:
    """The backend `torch`, `cpu` or `cuda`."""
    if kernels == "cuda":
        from sgas_gcn.kernels import cuda_backend  # Triton may not be installed

        return cuda_backend
    return cpu_backend if kernels == "cpu" else torch_backend
