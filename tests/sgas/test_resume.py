"""A run that is killed at any moment and resumed ends like the run that was left alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import command
from sampling import some

from sgas.running.runs import read_checkpoint

SEARCH = ["search", "--out", "run", "--seed", "3"]
EFFECTS = [*SEARCH, "--strategy", "effects"]
PATIENT = [*SEARCH, "--patience=1", "--averaged_epochs=2", "--beta_decay=0.5"]
HALVING = [*SEARCH, "--strategy=halving", "--num_candidates=4", "--candidate_epochs=2"]
PREDICTOR = [*SEARCH, "--strategy=predictor", "--num_candidates=6", "--candidate_epochs=1"]
GROUPS = [*SEARCH, "--optimizer=adam", "--operation_decay=0.1", "--head_decay=0"]
TRAIN = ["train", "genotype.json", "--out", "run", "--seed", "3", "--auxiliary", "true"]
TRAIN += ["--dataset", "blobs", "--kept_epoch", "best"]
GENOTYPE = {
    "format": 1,
    "space": "toy",
    "cells": {
        kind: {
            "edges": [
                {"op": "linear", "source": 0},
                {"op": "skip", "source": 1},
                {"op": "gate", "source": 2},
                {"op": "tanh", "source": 0},
            ],
            "concat": [2, 3],
        }
        for kind in ("normal", "reduce")
    },
}


RUNS = {
    "search": SEARCH,
    "effects": EFFECTS,
    "halving": HALVING,
    "predictor": PREDICTOR,
    "patient": PATIENT,
    "groups": GROUPS,
    "train": TRAIN,
}


def start(folder: Path, argv: list[str], **environ: str) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "genotype.json").write_text(json.dumps(GENOTYPE))
    return command(argv, folder, **environ)


def flat(state: Any, path: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in flat(part, f"{path}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, part in enumerate(state) for k, v in flat(part, f"{path}/{i}").items()}
    return {path: state}


def assert_same_end(left: Path, right: Path) -> None:
    """Same records, same genotype, and every tensor of the checkpoints equal to the last bit."""
    states = [flat(read_checkpoint(folder / "run" / "checkpoint.pt")) for folder in (left, right)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if torch.is_tensor(value):
            assert torch.equal(value, states[1][name]), name
        elif not name.endswith("/seconds"):
            assert value == states[1][name], name
    for name in ("decisions.jsonl", "genotype.json", "weights.safetensors"):
        files = [folder / "run" / name for folder in (left, right)]
        assert files[0].exists() == files[1].exists(), name
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes(), name
    lines = [(f / "run" / "metrics.jsonl").read_text().splitlines() for f in (left, right)]
    for one, other in zip(*lines, strict=True):
        a, b = json.loads(one), json.loads(other)
        assert a.pop("seconds") >= 0 and b.pop("seconds") >= 0
        assert a == b


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, argv in RUNS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        ended = start(folders[name], argv)
        assert ended.status == 0, ended.err
    return folders


# The search draws 104 training batches, that by effects 52, the training 78.
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("turn", some(range(2), 0))
def test_killed_at_random_moments(
    undisturbed: dict[str, Path], tmp_path: Path, name: str, turn: int
) -> None:
    moments, argv = random.Random(f"{name}{turn}"), RUNS[name]
    verb, last = argv[0], 50 if name == "effects" else 70
    ended = start(tmp_path, argv, TOY_SIGNAL=f"SIGKILL@{moments.randint(1, last)}")
    assert ended.status == -9
    again = ["--resume", "run"]
    ended = start(tmp_path, [verb, *again], TOY_SIGNAL=f"SIGKILL@{moments.randint(1, 12)}")
    while ended.status == -9:
        ended = start(tmp_path, [verb, *again])
    assert ended.status == 0, ended.err
    assert_same_end(undisturbed[name], tmp_path)


@pytest.mark.parametrize(("verb", "name"), [("search", "SIGINT"), ("train", "SIGTERM")])
def test_a_signal_writes_a_checkpoint_inside_the_epoch(
    undisturbed: dict[str, Path], tmp_path: Path, verb: str, name: str
) -> None:
    argv = {"search": SEARCH, "train": TRAIN}[verb]
    ended = start(tmp_path, argv, TOY_SIGNAL=f"{name}@33")
    assert ended.status == 130
    assert f"go on with: sgas-toy {verb} --resume run" in ended.err
    state = read_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state is not None and state["step"] > 0
    assert f"stopped in epoch {state['epoch'] + 1}, step {state['step']} of" in ended.err
    ended = start(tmp_path, [verb, "--resume", "run"])
    assert ended.status == 0, ended.err
    assert_same_end(undisturbed[verb], tmp_path)


@pytest.mark.parametrize("fault", ["one flipped bit", "cut short", "empty"])
def test_a_damaged_checkpoint_falls_back_and_says_so(
    undisturbed: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    assert start(tmp_path, SEARCH, TOY_SIGNAL="SIGKILL@60").status == -9
    path = tmp_path / "run" / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    if fault == "one flipped bit":
        content[random.Random(0).randrange(len(content))] ^= 1
    else:
        del content[len(content) // 2 if fault == "cut short" else 0 :]
    path.write_bytes(bytes(content))
    ended = start(tmp_path, ["search", "--resume", "run"])
    assert ended.status == 0, ended.err
    assert "checkpoint.pt is damaged; trying the one before it" in " ".join(ended.err.split())
    assert read_checkpoint(tmp_path / "run" / "checkpoint.previous.pt") is not None
    assert_same_end(undisturbed["search"], tmp_path)


def test_no_checkpoint_left_is_one_clear_error(tmp_path: Path) -> None:
    assert start(tmp_path, SEARCH, TOY_SIGNAL="SIGKILL@30").status == -9
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / "run" / name).write_bytes(b"rubbish")
    ended = start(tmp_path, ["search", "--resume", "run"])
    assert ended.status == 1 and "no readable checkpoint" in ended.err
    assert "Traceback" not in ended.err


def test_killed_before_the_first_checkpoint(undisturbed: dict[str, Path], tmp_path: Path) -> None:
    assert start(tmp_path, SEARCH, TOY_SIGNAL="SIGKILL@1").status == -9
    (tmp_path / "run" / "checkpoint.pt").unlink()
    ended = start(tmp_path, ["search", "--resume", "run"])
    assert ended.status == 0, ended.err
    assert "no checkpoint yet; starting with its first epoch" in ended.err
    assert_same_end(undisturbed["search"], tmp_path)


def test_a_finished_search_resumes_to_the_same_end(
    undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    before = (undisturbed["search"] / "run" / "checkpoint.pt").read_bytes()
    ended = command(["search", "--resume", "run"], undisturbed["search"])
    assert ended.status == 0, ended.err
    assert (undisturbed["search"] / "run" / "checkpoint.pt").read_bytes() == before
