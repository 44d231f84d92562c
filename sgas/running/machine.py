"""The machine that a run is on: device, threads, kernels, recorder; what config.json says of it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas import __version__
from sgas.config import RunConfig
from sgas.errors import DeviceError
from sgas.family import Family

if TYPE_CHECKING:
    import torch

    from sgas.running.capture import Recorder


def resolve_device(name: str) -> torch.device:
    """The device of a name, from now on the current one; DeviceError where it is not here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or name == "cpu:":
        raise DeviceError(f"device is {name!r}; give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device is {name!r}, but torch finds no CUDA GPU; give cpu or auto")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise DeviceError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} GPUs, "
            "numbered from 0"
        )
    device = torch.device(name)
    if device.index is not None and kind == "cuda":
        torch.cuda.set_device(device)  # the one that Triton launches on
    return device


def prepare(
    family: Family, run: RunConfig, device: torch.device, config: Mapping[str, Any] | None
) -> None:
    """Sets up memory, threads and kernels: for a resumed run (`config`) those that it began with.

    Sums are split over threads and each backend rounds in its own way; others would give other last
    bits. Kernels are compiled where they are first used. DeviceError where those asked for are for
    another device.
    """
    import torch

    from sgas.native.allocator import keep_freed_memory
    from sgas.native.backend import use_kernels

    keep_freed_memory()
    threads = run.threads if config is None else config["environment"]["threads"]
    if threads is not None:
        torch.set_num_threads(threads)
    use_kernels(run.kernels)


def recorder_on(run: RunConfig, device: torch.device, example: Any) -> Recorder | None:
    """What records steps: CUDA graphs, where inputs like `example` have one size; else nothing."""
    from sgas.running.capture import CudaGraphs, can_repeat

    wanted = run.cuda_graphs and device.type == "cuda" and can_repeat(example)
    return CudaGraphs(device) if wanted else None


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and threads, for config.json."""
    import torch

    return {
        "sgas": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def _git_commit() -> str | None:
    """The commit of this checkout, with `+` where files are changed; None for an installed copy."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
