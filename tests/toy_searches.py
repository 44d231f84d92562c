"""Searches of the toy family that end in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from toy_family import ToyDataConfig, ToyModelConfig, ToyTask

from sgas.config import RunConfig, SearchConfig
from sgas.protocols import search_parts
from sgas.running.candidates import open_search
from sgas.running.loop import Loop
from sgas.running.runs import Run

CPU = torch.device("cpu")
FAST = {
    "batch_size": 16,
    "warmup_epochs": 1,
    "decision_interval": 1,
    "final_epochs": 1,
    "alpha_learning_rate": 0.05,
    "num_candidates": 4,
    "candidate_epochs": 2,
}


def make(protocol: str = "clean", **loop: object) -> Any:
    task = ToyTask(RunConfig(dataset="blobs"), ToyModelConfig(), ToyDataConfig())
    parts = search_parts(task, protocol, 0, 0.1, CPU)
    config = SearchConfig(**{**FAST, **loop})
    return open_search(task, config, parts=parts, seed=0, device=CPU, notes={"dataset": "blobs"})


def loop_of(body: Any, folder: Path, listener: Any = None) -> Loop:
    """The loop of a body in a new run folder."""
    return Loop(body, Run.create(folder / "run", {"seed": 0}), listener)
