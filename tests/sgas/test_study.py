"""A study folder is read as it is: each figure where its part is done, and None where not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from studies import study_info

from sgas.errors import RunError
from sgas.files import write_text
from sgas.studies.study import (
    Part,
    State,
    change_parts,
    read_manifest,
    read_study,
    write_info,
)

INFO = study_info()
CELL = {"edges": [{"op": "skip", "source": 0}, {"op": "skip", "source": 1}], "concat": [1, 2]}
GENOTYPE = {"format": 1, "space": "toy", "cells": {"normal": CELL, "reduce": CELL}, "meta": {}}
DONE = Part(State.DONE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_info(tmp_path, INFO)
    parts = {
        f"cri2-{seed}/{phase}": Part()
        for seed in (0, 1)
        for phase in ("search", "train", "evaluate")
    }
    change_parts(tmp_path, parts)
    return tmp_path


def finished_search(run: Path) -> None:
    run.mkdir(parents=True)
    write_text(run / "config.json", "{}")
    write_text(run / "genotype.json", json.dumps(GENOTYPE))
    lines = [{"epoch": 0, "validation_accuracy": 0.5}, {"epoch": 1, "validation_accuracy": 0.75}]
    text = "".join(json.dumps({**line, "train_loss": 1.0, "seconds": 3.5}) + "\n" for line in lines)
    write_text(run / "metrics.jsonl", text)


def test_what_is_not_there_yet_is_none(folder: Path) -> None:
    study = read_study(folder)
    assert study.info == INFO
    assert [(entry.strategy, entry.seed) for entry in study.entries] == [("cri2", 0), ("cri2", 1)]
    entry = study.entries[0]
    assert entry.name == "cri2-0" and entry.parts["train"].state is State.WAITING
    missing = "search_folder train_folder genotype validation test parameters flops failure"
    names = [*missing.split(), "search_seconds", "train_seconds"]
    assert {getattr(entry, name) for name in names} == {None}


def test_a_running_search_has_a_folder_and_no_figures(folder: Path) -> None:
    finished_search(folder / "cri2-0" / "search")
    change_parts(folder, {"cri2-0/search": Part(State.RUNNING)})
    entry = read_study(folder).entries[0]
    assert entry.search_folder == folder / "cri2-0" / "search"
    assert entry.genotype is None and entry.validation is None


def test_figures_of_parts_that_are_done(folder: Path) -> None:
    finished_search(folder / "cri2-0" / "search")
    train = folder / "cri2-0" / "train"
    finished_search(train)
    result = {"validation_accuracy": 0.7, "parameters": 12, "flops": 34, "protocol": "clean"}
    write_text(train / "result.json", json.dumps(result))
    evaluation = {"loss": 0.4, "accuracy": 1.0, "samples": 60, "protocol": "clean"}
    write_text(train / "evaluation.json", json.dumps(evaluation))
    change_parts(folder, {f"cri2-0/{phase}": DONE for phase in ("search", "train", "evaluate")})
    entry = read_study(folder).entries[0]
    assert entry.genotype is not None and entry.genotype.space == "toy"
    assert entry.validation == {"accuracy": 0.75} and entry.search_seconds == 3.5
    assert entry.test == {"loss": 0.4, "accuracy": 1.0}
    assert (entry.parameters, entry.flops, entry.train_seconds) == (12, 34, 3.5)
    assert entry.result == result


def test_a_failure_names_part_reason_and_log(folder: Path) -> None:
    failed = Part(State.FAILED, "cri2-1/train.log", "the loss is nan")
    change_parts(folder, {"cri2-1/train": failed})
    told = read_study(folder).entries[1].failure
    assert told == f"cri2-1/train failed: the loss is nan (log: {folder}/cri2-1/train.log)"


def test_changes_of_many_at_once_are_all_kept(folder: Path) -> None:
    def change(number: int) -> None:
        for turn in range(5):
            change_parts(folder, {f"random-{number}/search": Part(job=str(turn))})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    parts = read_manifest(folder).parts
    assert [parts[f"random-{number}/search"].job for number in range(4)] == ["4"] * 4
    assert len(parts) == 10


def test_changes_may_follow_from_the_parts_as_they_are(folder: Path) -> None:
    def count(parts: Mapping[str, Part]) -> dict[str, Part]:
        return {"cri2-0/search": Part(job=str(int(parts["cri2-0/search"].job or 0) + 1))}

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: change_parts(folder, count), range(12)))
    assert read_manifest(folder).parts["cri2-0/search"].job == "12"


@pytest.mark.parametrize("name", ["study.json", "manifest.json"])
def test_a_folder_that_is_no_study_is_one_clear_error(folder: Path, name: str) -> None:
    write_text(folder / name, "{")
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        read_study(folder)
    with pytest.raises(RunError, match=r"is not a study: it has no study\.json"):
        read_study(folder.parent / "nowhere")
