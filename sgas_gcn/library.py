"""The library of operators compiled for the CPU, and whether they run. No torch at its import.

The sources are `kernels/cpu/*.cpp`, one purpose a file; the operators are `torch.ops.sgas_gcn.*`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sgas.native.library import Library

if TYPE_CHECKING:
    import torch

_FOLDER = Path(__file__).parent / "kernels" / "cpu"
LIBRARY = Library("sgas_gcn_cpu", tuple(sorted([*_FOLDER.glob("*.cpp"), *_FOLDER.glob("*.h")])))


def kernels_for(device: torch.device) -> str:
    """What computes on a device: `torch`, `cpu` (this library) or `cuda` (Triton).

    `cpu` builds and loads the library. DeviceError where kernels were asked for that do not run on
    the device or cannot be built.
    """
    from sgas.native.backend import backend_for

    return backend_for(device, LIBRARY)


def kernels_on(tensor: torch.Tensor) -> str:
    """`kernels_for` its device, but `torch` for floating types that kernels do not compute in."""
    if tensor.is_floating_point() and tensor.element_size() < 4:
        return "torch"
    return kernels_for(tensor.device)


def runs_compiled(tensor: torch.Tensor) -> bool:
    """Whether the compiled operators are to be used for a tensor; True builds and loads them.

    They compute in float32 and float64 alone. DeviceError as from `kernels_for`.
    """
    return kernels_on(tensor) == "cpu"
