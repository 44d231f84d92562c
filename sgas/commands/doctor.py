"""`doctor`: what this machine has, and what runs will use."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.commands.common import print_json
from sgas.family import Family
from sgas.native import triton
from sgas.options import Flag, parse, parser_for

if TYPE_CHECKING:
    from sgas.running.kernel_speed import Speed

OPTIONAL = ("torch-scatter", "triton", "tensorboard", "submitit", "Pillow")


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `doctor`: 0 where a search can run, 1 where something it needs is missing."""
    flags = [
        Flag("json", "print one JSON object"),
        Flag("measure", "time a search step of each space by compiled kernels and by torch"),
    ]
    parser = parser_for(family.command, "doctor", "Say what this machine has.", {}, (), flags)
    values = parse(parser, argv)
    found = examine(family, values["measure"])
    if values["json"]:
        print_json(found)
    else:
        for line in found["lines"]:
            print(line)
    return 0 if found["ok"] else 1


def examine(family: Family, measure: bool = False) -> dict[str, Any]:
    """Versions, devices, kernels, threads, disk; `ok` and `lines` as they are printed.

    `measure` adds how much faster the compiled kernels are here, and keeps it for `auto`.
    """
    import torch

    writable = os.access(_nearest_folder(Path("runs")), os.W_OK)
    free = shutil.disk_usage(_nearest_folder(Path("runs"))).free / 2**30
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    optional = {name: _version(name) for name in OPTIONAL}
    speeds = _measured(family) if measure else {}
    kernels = _kernels(family, bool(gpus))
    ok = writable and free > 0.1
    lines = [
        f"ok    python {platform.python_version()} · torch {torch.__version__} · "
        f"pyg {_version('torch-geometric')} · {torch.get_num_threads()} threads",
        f"{'ok  ' if ok else 'FAIL'}  runs/ {'writable' if writable else 'not writable'}, "
        f"{free:.0f} GiB free",
        _line("kernels on the CPU", kernels["cpu"], kernels["why_not"]),
        *(
            f"{'ok  ' if speed.ratio > 1 else 'note'}  {space}: {speed}"
            for space, speed in speeds.items()
        ),
        f"ok    GPU: {', '.join(gpus)}" if gpus else "note  no GPU that torch can use",
        *([_line("kernels on the GPU", kernels["cuda"], kernels["why_not_cuda"])] if gpus else []),
        "note  optional: " + ", ".join(f"{k} {v or 'absent'}" for k, v in optional.items()),
    ]
    return {
        "ok": ok,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": _version("torch-geometric"),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "kernels": kernels,
        "speeds": {space: asdict(speed) for space, speed in speeds.items()},
        "runs_writable": writable,
        "free_gib": round(free, 1),
        "optional": optional,
        "lines": lines,
    }


def _kernels(family: Family, gpu: bool) -> dict[str, str | None]:
    """Which kernels run on the CPU and on a GPU; where they are torch's own, why.

    What stands under `cuda` is None where there is no GPU.
    """
    library = family.library
    why_not = None if library is None else library.why_not_shown() or library.load()
    compiled = library is not None and why_not is None
    no_triton = triton.why_not() if gpu else None
    on_gpu = "torch" if no_triton else f"Triton {_version('triton')}"
    return {
        "cpu": f"compiled, {library.build()}" if library is not None and compiled else "torch",
        "why_not": why_not,
        "cuda": on_gpu if gpu else None,
        "why_not_cuda": no_triton,
    }


def _measured(family: Family) -> dict[str, Speed]:
    """Speeds of compiled kernels by space, none where there are no kernels; kept for `auto`."""
    from sgas.running.kernel_speed import kernel_speeds

    library = family.library
    if library is None or library.load() is not None:
        return {}
    speeds = kernel_speeds(family)
    library.keep_ratio(min(speed.ratio for speed in speeds.values()))
    return speeds


def _line(what: str, found: str | None, why_not: str | None) -> str:
    return f"{'note' if why_not else 'ok  '}  {what}: {found}" + (f": {why_not}" if why_not else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nearest_folder(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
