"""The primitives that fused cells are made of, in plain torch, for the CPU and for CUDA.

Whoever computes asks `backend_of` for a tensor's device and calls the module that comes back; all
backends have the functions of `torch_backend`, with the same arguments. Images are `[N, H, W, C]`
in this package, contiguous: the channels-last memory of `[N, C, H, W]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgas.kernels import backend_for
from sgas_cnn.kernels import cpu_backend, torch_backend, triton_backend
from sgas_cnn.library import LIBRARY

BACKENDS: dict[str, Any] = {"torch": torch_backend, "cpu": cpu_backend, "cuda": triton_backend}
COMPILED_TYPES = (torch.float32, torch.float64)


def backend_of(x: Tensor) -> Any:
    """The module that computes on tensors like `x`; DeviceError as from `backend_for`."""
    name = backend_for(x.device, LIBRARY)
    return BACKENDS["torch" if x.dtype not in COMPILED_TYPES else name]
