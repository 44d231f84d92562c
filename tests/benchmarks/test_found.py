"""What searches found, trained several times: whole, resumed, and figures that follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from processes import Ended

from benchmarks.quality import cells, found
from sgas_gcn.family import FAMILY


def test_each_cell_is_trained_several_times_and_strategies_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    sizes = {"num_points": 16, "k": 3, "num_cells": 1, "channels": 4, "emb_dims": 8, "epochs": 1}
    monkeypatch.setitem(cells.TRAINING, "point", {**sizes, "batch_size": 200})
    draw = cells.random_cells(FAMILY.search_space("point"), 3)
    searches = [
        {"strategy": name, "seed": seed, "genotype": next(draw).to_text()}
        for name in ("cri2", "random")
        for seed in (0, 1)
    ]
    path, out = tmp_path / "found.jsonl", tmp_path / "trainings.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in searches))
    words = ("--space", "point", "--dataset", "shapes", "--found", str(path), "--out", str(out))

    def ended(*more: str) -> Ended:
        return script(found, *words, "--trainings", "2", *more)

    def trainings() -> list[Any]:
        return [json.loads(line) for line in out.read_text().splitlines()]

    def job(line: Any) -> tuple[Any, ...]:
        return tuple(line["key"][name] for name in ("strategy", "seed", "training"))

    assert ended().status == 0
    lines = trainings()
    assert [job(line) for line in lines] == [
        ("cri2", 0, 0), ("cri2", 1, 0), ("random", 0, 0), ("random", 1, 0),
        ("cri2", 0, 1), ("cri2", 1, 1), ("random", 0, 1), ("random", 1, 1),
    ]  # fmt: skip
    tests = {job(line): line["found"]["test"] for line in lines}
    kept = lines[:3] + lines[4:]  # one is lost: it alone is trained again, to the same figure
    out.write_text("".join(json.dumps(line) + "\n" for line in kept))
    result = json.loads(ended("--json").out)
    again = trainings()
    assert len(again) == 8 and job(again[-1]) == ("random", 1, 0)
    assert again[-1]["found"]["test"] == tests["random", 1, 0]
    means = {(name, s): (tests[name, s, 0] + tests[name, s, 1]) / 2 for name, s, _ in tests}
    row = result["strategies"]["cri2"]
    assert row["mean"] == pytest.approx((means["cri2", 0] + means["cri2", 1]) / 2)
    apart = [means["cri2", seed] - means["random", seed] for seed in (0, 1)]
    assert result["first_less"]["random"]["difference"] == pytest.approx(sum(apart) / 2)
    searches[0]["genotype"] = next(draw).to_text()  # another cell: what the first was is of no use
    path.write_text("".join(json.dumps(line) + "\n" for line in searches))
    assert ended().status == 0
    assert [job(line) for line in trainings()[8:]] == [("cri2", 0, 0), ("cri2", 0, 1)]


def test_the_noise_of_trainings_is_that_within_cells() -> None:
    tests = {("a", 0): (0.1, 0.3), ("a", 1): (0.5, 0.5), ("b", 0): (0.2, 0.4), ("b", 1): (0.3,)}
    lines = [
        {"strategy": name, "seed": seed, "training": number, "test": test}
        for (name, seed), several in tests.items()
        for number, test in enumerate(several)
    ]
    summed = found.summary(lines)
    assert summed["sd_between_trainings"] == pytest.approx(((0.02 + 0.0 + 0.02) / 3) ** 0.5)
    assert summed["strategies"]["a"]["seeds"] == pytest.approx({0: 0.2, 1: 0.5})
    less = summed["first_less"]["b"]
    assert less["difference"] == pytest.approx(((0.2 - 0.3) + (0.5 - 0.3)) / 2)


def test_a_file_without_searches_and_no_trainings_are_told(tmp_path: Path, script: Any) -> None:
    words = ("--space", "point", "--dataset", "shapes", "--out", str(tmp_path / "out.jsonl"))
    ended = script(found, *words, "--found", str(tmp_path / "none.jsonl"))
    assert ended.status == 2 and "none.jsonl has no searches" in ended.err
    (tmp_path / "one.jsonl").write_text('{"strategy": "cri2", "seed": 0, "genotype": ""}\n')
    ended = script(found, *words, "--found", str(tmp_path / "one.jsonl"), "--trainings", "0")
    assert ended.status == 2 and "--trainings is 0" in ended.err
