"""The primitives that fused cells are made of, in plain torch, for the CPU and for CUDA.

Whoever computes asks `backend_of` for a tensor and calls the module that comes back; backend.py has
what all of them offer. Images are `[N, H, W, C]` in this package, contiguous: the channels-last
memory of `[N, C, H, W]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sgas.native.backend import backend_for
from sgas_cnn.kernels import cpu_backend, torch_backend
from sgas_cnn.kernels.backend import Backend
from sgas_cnn.library import LIBRARY

COMPILED_TYPES = (torch.float32, torch.float64)


def _torch() -> Backend:
    return torch_backend


def _cpu() -> Backend:
    return cpu_backend


def _cuda() -> Backend:
    from sgas_cnn.kernels import cuda_backend  # Triton may not be installed

    return cuda_backend


BACKENDS: dict[str, Callable[[], Backend]] = {"torch": _torch, "cpu": _cpu, "cuda": _cuda}


def backend_of(x: Tensor) -> Backend:
    """The backend that computes on tensors like `x`; DeviceError as from `backend_for`."""
    name = backend_for(x.device, LIBRARY)
    return BACKENDS[name if x.dtype in COMPILED_TYPES else "torch"]()
