"""`doctor`: what this machine has, and what runs will use."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sgas.commands.common import print_json
from sgas.family import Family
from sgas.options import Flag, parse, parser_for

OPTIONAL = ("torch-scatter", "tensorboard", "matplotlib", "submitit", "Pillow")


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `doctor`: 0 where a search can run, 1 where something it needs is missing."""
    flags = [Flag("json", "print one JSON object")]
    parser = parser_for(family.command, "doctor", "Say what this machine has.", {}, (), flags)
    values = parse(parser, argv)
    found = examine(family)
    if values["json"]:
        print_json(found)
    else:
        for line in found["lines"]:
            print(line)
    return 0 if found["ok"] else 1


def examine(family: Family) -> dict[str, Any]:
    """Versions, devices, kernels, threads, disk; `ok` and `lines` as they are printed."""
    import torch

    writable = os.access(_nearest_folder(Path("runs")), os.W_OK)
    free = shutil.disk_usage(_nearest_folder(Path("runs"))).free / 2**30
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    optional = {name: _version(name) for name in OPTIONAL}
    kernels = _kernels(family)
    ok = writable and free > 0.1
    lines = [
        f"ok    python {platform.python_version()} · torch {torch.__version__} · "
        f"pyg {_version('torch-geometric')} · {torch.get_num_threads()} threads",
        f"{'ok  ' if ok else 'FAIL'}  runs/ {'writable' if writable else 'not writable'}, "
        f"{free:.0f} GiB free",
        f"{'note' if kernels['why_not'] else 'ok  '}  kernels on the CPU: {kernels['cpu']}"
        + (f": {kernels['why_not']}" if kernels["why_not"] else ""),
        f"ok    GPU: {', '.join(gpus)}" if gpus else "note  no GPU that torch can use",
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
        "runs_writable": writable,
        "free_gib": round(free, 1),
        "optional": optional,
        "lines": lines,
    }


def _kernels(family: Family) -> dict[str, str | None]:
    """Which kernels run on the CPU, and where they are not the compiled ones, why."""
    if family.library is None:
        return {"cpu": "torch", "why_not": None}
    why_not = family.library.load()
    return {"cpu": "torch" if why_not else "compiled", "why_not": why_not}


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
