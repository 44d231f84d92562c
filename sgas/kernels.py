"""Which implementation of the kernels runs: plain torch, compiled for the CPU, or for CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgas.config import KERNELS
from sgas.errors import DeviceError, unknown_name
from sgas.native import Library

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


def backend_for(device: torch.device, library: Library | None) -> str:
    """What computes on `device`: `torch`, or `cpu` where the compiled `library` is to be used.

    DeviceError where kernels were asked for that do not run there or cannot be built.
    """
    if _chosen == "torch":
        return "torch"
    if _chosen == "auto":
        compiled = device.type == "cpu" and library is not None and library.load() is None
        return "cpu" if compiled else "torch"
    if _chosen != device.type:
        raise DeviceError(
            f"kernels is {_chosen!r}, but the device is {device.type}: give --kernels auto or "
            f"another --device"
        )
    missing = "there are none for it" if library is None or _chosen != "cpu" else library.load()
    if missing is not None:
        raise DeviceError(f"kernels is {_chosen!r}, but {missing}; give --kernels auto or torch")
    return _chosen
