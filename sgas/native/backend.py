"""Which implementation of the kernels runs: plain torch, compiled for the CPU, or for CUDA.

Those for CUDA are Triton's; under its interpreter (TRITON_INTERPRET=1) they can be asked for on any
device, to test them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgas.config import KERNELS
from sgas.errors import DeviceError, unknown_name
from sgas.native import triton
from sgas.native.library import Library

if TYPE_CHECKING:
    import torch

# Of the process, like torch's number of threads and for the same reason: every operation of every
# network reads it, and none of them can be handed it.
_chosen = "auto"


def use_kernels(choice: str) -> None:
    """Sets what `backend_for` answers from now on: auto, torch, cpu or cuda.

    InputError for another name.
    """
    global _chosen
    if choice not in KERNELS:
        raise unknown_name("kernels", choice, KERNELS)
    _chosen = choice


def chosen() -> str:
    """What `use_kernels` was last told."""
    return _chosen


def backend_for(device: torch.device, library: Library | None) -> str:
    """What computes on `device`: `torch`, `cpu` (the compiled `library`) or `cuda` (Triton).

    DeviceError where kernels were asked for that do not run there or cannot be built.
    """
    if _chosen == "torch":
        return "torch"
    if _chosen == "auto":
        here = device.type if device.type in ("cpu", "cuda") else "torch"
        if here == "torch" or (here == "cpu" and library is not None and library.why_not_shown()):
            return "torch"
        return "torch" if _missing(here, library) else here
    if _chosen != device.type and not (_chosen == "cuda" and triton.interpreted()):
        raise DeviceError(
            f"kernels is {_chosen!r}, but the device is {device.type}: give --kernels auto, or "
            f"--device {_chosen} where there is one"
        )
    missing = _missing(_chosen, library)
    if missing is not None:
        raise DeviceError(f"kernels is {_chosen!r}, but {missing}; give --kernels auto or torch")
    return _chosen


def kernels_of(x: torch.Tensor, library: Library | None) -> str:
    """What computes on tensors like `x`: `torch` for floating types of 16 bits, else by device.

    DeviceError as from `backend_for`.
    """
    if x.is_floating_point() and x.element_size() < 4:
        return "torch"
    return backend_for(x.device, library)


def _missing(kind: str, library: Library | None) -> str | None:
    """Why there are no kernels `cpu` or `cuda`; None where there are."""
    if kind == "cuda":
        return triton.why_not()
    return "there are none for it" if library is None else library.load()
