"""The library of operators compiled for the CPU, and whether they run. No torch at its import.

The sources are `kernels/cpu/*.cpp`, one purpose a file; the operators are `torch.ops.sgas_gcn.*`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sgas.native import Library

if TYPE_CHECKING:
    import torch

_FOLDER = Path(__file__).parent / "kernels" / "cpu"
LIBRARY = Library("sgas_gcn_cpu", tuple(sorted([*_FOLDER.glob("*.cpp"), *_FOLDER.glob("*.h")])))


def kernels_for(device: torch.device) -> str:
    """What computes on a device: `torch`, `cpu` (this library) or `cuda` (Triton).

    `cpu` builds and loads the library. DeviceError where kernels were asked for that do not run on
    the device or cannot be built.
    """
    from sgas.kernels import backend_for

    return backend_for(device, LIBRARY)


def runs_compiled(tensor: torch.Tensor) -> bool:
    """Whether the compiled operators are to be used for a tensor; True builds and loads them.

    They compute in float32 and float64 alone. DeviceError as from `kernels_for`.
    """
    if tensor.is_floating_point() and tensor.element_size() < 4:
        return False
    return kernels_for(tensor.device) == "cpu"


def runs_triton(tensor: torch.Tensor) -> bool:
    """Whether Triton kernels are to be launched on a tensor, float32 or float64, as it is.

    Not on the fake tensors of torch.compile and shape inference, which plain torch serves.
    DeviceError as from `kernels_for`.
    """
    from torch._subclasses.fake_tensor import FakeTensor

    if tensor.element_size() < 4 or isinstance(tensor, FakeTensor):
        return False
    return kernels_for(tensor.device) == "cuda"
