"""A program that calls a verb finds its process as it was, whatever it had set itself."""

from __future__ import annotations

import contextlib
import locale
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_family import FAMILY

from sgas.errors import InputError
from sgas.interface import load, search, train

QUICK = {"quiet": True, "warmup_epochs": 0, "decision_interval": 1, "final_epochs": 1}


def state() -> dict[str, Any]:
    """All of a process that a verb might change."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "locale": locale.setlocale(locale.LC_ALL),
        "folder": os.getcwd(),
        "errors": np.geterr(),
        "alive": threading.active_count(),
        "variables": {k: v for k, v in os.environ.items() if not k.startswith(("KMP", "TORCHIND"))},
    }


@contextlib.contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "none": contextlib.nullcontext,
    "float64": double,
    "another device": elsewhere,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    searched = search(FAMILY, "blobs", out=tmp_path_factory.mktemp("alone") / "s", **QUICK)
    return searched.genotype.cells, searched.history[-1]["train_loss"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_verb_leaves_its_caller_as_he_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with SETTINGS[setting]():
        before = state()
        found = search(FAMILY, "blobs", threads=1, out="s", **QUICK)
        assert state() == before
        trained = train(FAMILY, found, epochs=1, quiet=True, out="t")
        assert state() == before
        figures = trained.evaluate()
        assert load(FAMILY, "t").evaluate() == figures and trained.network.training is False
        assert state() == before
        with pytest.raises(InputError):
            search(FAMILY, "nothing")
        assert state() == before
    assert (found.genotype.cells, found.history[-1]["train_loss"]) == expected
