"""The same command, repeated after it was stopped, goes on with its run and ends the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import command, edit
from toy_family import QUICK_WORDS

QUICK = ["search", *QUICK_WORDS]
TRAIN = ["train", "runs/blobs-cri2-0", "--epochs", "4"]
KEPT = ("decisions.jsonl", "genotype.json", "weights.safetensors")


def contents(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in KEPT if (run / name).exists()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    for argv in (QUICK, TRAIN):
        ended = command(argv, folder)
        assert ended.status == 0, ended.err
        assert "going on with" not in ended.err
    return folder / "runs"


@pytest.mark.parametrize("out", [None, "mine"])
def test_search_and_train_go_on_with_what_they_began(
    undisturbed: Path, tmp_path: Path, out: str | None
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "blobs-cri2-0-9").mkdir()  # not one of the row
    names = {"search": "blobs-cri2-0", "train": "blobs-cri2-0-train-0"}
    for argv in (QUICK, TRAIN):
        name = names[argv[0]]
        where = ["--out", f"runs/{name}"] if out else []
        ended = command([*argv, *where], tmp_path, TOY_SIGNAL="SIGKILL@23")
        assert ended.status == -9
        ended = command([*argv, *where], tmp_path)
        assert ended.status == 0, ended.err
        assert f"going on with runs/{name}, which the same command began" in ended.err
        assert contents(tmp_path / "runs" / name) == contents(undisturbed / name)
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_other_options_begin_another_run_or_are_refused(tmp_path: Path) -> None:
    assert command(QUICK, tmp_path, TOY_SIGNAL="SIGKILL@23").status == -9
    ended = command([*QUICK, "--batch_size", "20"], tmp_path)
    assert ended.status == 0 and "run      runs/blobs-cri2-0-2" in ended.out
    ended = command([*QUICK, "--batch_size", "20", "--out", "runs/blobs-cri2-0"], tmp_path)
    assert ended.status == 2
    told = "runs/blobs-cri2-0 was begun with other options: batch_size was 16, now 20; give them as"
    assert told in ended.err
    older = tmp_path / "runs" / "blobs-cri2-0" / "config.json"
    config = json.loads(older.read_text())
    del config["run"]["cuda_graphs"]  # as if the run was begun before this option was there
    edit(older, json.dumps(config))
    ended = command([*QUICK, "--cuda_graphs", "false", "--out", "runs/blobs-cri2-0"], tmp_path)
    assert ended.status == 2 and "cuda_graphs was True, now False" in ended.err
    ended = command([*QUICK, "--out", "runs/blobs-cri2-0"], tmp_path)
    assert ended.status == 0, ended.err
    ended = command(["train", "runs/blobs-cri2-0", "--out", "runs/blobs-cri2-0"], tmp_path)
    assert ended.status == 2 and "verb was 'search', now 'train'" in ended.err


def test_a_run_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    from sgas.running.runs import Run

    assert command(QUICK, tmp_path, TOY_SIGNAL="SIGKILL@23").status == -9
    with Run.open(tmp_path / "runs" / "blobs-cri2-0"):
        ended = command(QUICK, tmp_path)
    assert ended.status == 0 and "run      runs/blobs-cri2-0-2" in ended.out
