"""Every example runs as it is written, with fewer and shorter epochs than its preset has."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path

import pytest
from processes import script
from sampling import some

import sgas_cnn
import sgas_gcn

ROOT = Path(__file__).parents[1]
ALL = sorted((ROOT / "examples").glob("*.py"))
PLUGINS = {  # what the output or the run says of the addition
    "own_operation": "candidates: 11",
    "own_strategy": '"strategy": "gap"',
    "own_dataset": '"dataset": "bars"',
    "own_space": '"space": "chain"',
}
EXAMPLES = [path for path in ALL if path.stem not in PLUGINS]
SHORT = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0}
SMALL: dict[str, dict[str, int]] = {
    "search_and_train": {"num_points": 32, "channels": 4, "batch_size": 270},
    "own_images": {"channels": 4, "num_cells": 3, "batch_size": 315},
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    example: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    small = SMALL.get(example.stem, {})
    for package in (sgas_gcn, sgas_cnn):
        for name, short in (("search", SHORT), ("train", {"epochs": 1})):
            smaller = functools.partial(getattr(package, name), **short, **small)
            monkeypatch.setattr(package, name, smaller)
    runpy.run_path(str(example))
    out = capsys.readouterr().out
    assert "accuracy" in out
    assert len(list((tmp_path / "runs").glob("*/evaluation.json"))) == 1


@pytest.mark.parametrize("name", some(PLUGINS, "own_operation", "own_strategy"))
def test_an_addition_from_outside_is_searched(name: str, tmp_path: Path) -> None:
    example = ROOT / "examples" / f"{name}.py"
    done = script(example, tmp_path)
    assert done.status == 0, done.err
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "plugins" / example.name).read_text() == example.read_text()
    assert PLUGINS[name] in done.out + (run / "config.json").read_text()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
    assert len((ROOT / "examples/own_operation.py").read_text().splitlines()) <= 40
    assert len((ROOT / "examples/own_strategy.py").read_text().splitlines()) <= 30
