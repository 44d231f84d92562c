"""`sgas-gcn` on small clouds: the whole way, resume after SIGKILL, and bad input in one line."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import CONTEXT, Ended, child, command

from sgas.running.runs import read_checkpoint

FAMILY = "sgas_gcn.family"
SMALL = (
    "--num_points 24 --k 3 --channels 4 --emb_dims 8 --batch_size 8 --warmup_epochs 1 "
    "--decision_interval 1 --final_epochs 0 --alpha_learning_rate 0.05"
).split()
TRAIN = (
    "--num_points 24 --k 3 --channels 4 --emb_dims 8 --num_cells 2 --batch_size 8 --epochs 4 "
    "--drop_path 0.3 --auxiliary true"
).split()


def run(folder: Path, *argv: str) -> Ended:
    return command(argv, folder, family=FAMILY)


def write_clouds(folder: Path, **changes: np.ndarray) -> Path:
    """A folder of 3 classes × 30 training and 8 test clouds of 32 points, some values changed."""
    draw = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 30), ("test", 8)):
        label = np.repeat(np.arange(3), count)
        points = draw.normal(size=(len(label), 32, 3)) * (1 + label)[:, None, None]
        arrays = {"points": points.astype(np.float32), "label": label}
        np.savez(folder / f"{split}.npz", **(arrays | (changes if split == "train" else {})))
    return folder


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clouds(tmp_path_factory.mktemp("data") / "clouds")


def test_the_whole_way(tmp_path: Path, clouds: Path) -> None:
    (tmp_path / "clouds").symlink_to(clouds)
    data = ["--dataset", "clouds"]  # a relative path has to do from elsewhere too
    ended = run(tmp_path, "search", *data, *SMALL, "--out", "found", "--resample", "true")
    assert ended.status == 0, ended.err
    assert "found/genotype.json" in ended.out and (tmp_path / "found" / "cell-normal.svg").exists()
    ended = run(tmp_path, "train", "found", *TRAIN, "--out", "trained")
    assert ended.status == 0, ended.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ended = run(elsewhere, "evaluate", "../trained", "--json")
    assert ended.status == 0, ended.err
    figures = json.loads(ended.out)
    assert figures["samples"] == 24
    assert 0 <= figures["accuracy"] <= 1 and 0 <= figures["balanced_accuracy"] <= 1
    ended = run(tmp_path, "replay", "found", "--json")
    assert json.loads(ended.out)["same"] is True
    ended = run(tmp_path, "show", "found", "--num_cells", "2", "--k", "12", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["sizes"]["num_classes"] == 3


def test_protocol_paper_is_labelled(tmp_path: Path, clouds: Path) -> None:
    protocol = ["--dataset", str(clouds), "--protocol", "paper"]
    ended = run(tmp_path, "search", *protocol, *SMALL, "--out", "found")
    assert "protocol paper: the test split trains the alphas" in ended.err
    ended = run(tmp_path, "train", "found", *protocol, *TRAIN, "--out", "trained")
    assert ended.status == 0, ended.err
    result = json.loads((tmp_path / "trained" / "result.json").read_text())
    assert result["best_test_epoch_accuracy"] >= result["test_accuracy"]
    assert "chosen by the test split" in result["note"]


def test_the_published_networks_size(tmp_path: Path) -> None:
    argv = ["show", "cri2-modelnet-best", "--preset", "paper", "--num_cells", "3", "--k", "9"]
    ended = run(tmp_path, *argv, "--json")
    assert ended.status == 0, ended.err
    shown = json.loads(ended.out)
    assert shown["params"] == 3_857_320 and shown["flops"] > 2e9
    assert (tmp_path / "cri2-modelnet-best-normal.svg").exists()


@pytest.mark.parametrize("verb", ["search", "train"])
def test_killed_at_any_moment_and_resumed(tmp_path: Path, clouds: Path, verb: str) -> None:
    """SIGKILL comes from outside, at a time that has nothing to do with our steps."""
    argv = {
        "search": ["search", *SMALL],
        "train": ["train", "random-modelnet-3", *TRAIN],
    }[verb] + ["--dataset", str(clouds), "--out", "run"]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    began = time.monotonic()
    assert run(alone, *argv).status == 0
    took = time.monotonic() - began
    moments = random.Random(verb)
    for turn in range(3):
        again = [verb, "--resume", "run"] if (killed / "run").exists() else argv
        process = CONTEXT.Process(target=child, args=(FAMILY, again, str(killed), {}))
        process.start()
        process.join(took * moments.uniform(0.3, 0.8) / (1 + turn))
        process.kill()
        process.join()
    again = [verb, "--resume", "run"] if (killed / "run").exists() else argv
    ended = run(killed, *again)
    assert ended.status == 0, ended.err
    states = [read_checkpoint(folder / "run" / "checkpoint.pt") for folder in (alone, killed)]
    assert states[0] is not None and states[1] is not None
    for part in {"supernet", "network"} & states[0].keys():
        assert states[0][part].keys() == states[1][part].keys()
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name]), name
    for name in ("decisions.jsonl", "genotype.json", "weights.safetensors"):
        if (alone / "run" / name).exists():
            assert (alone / "run" / name).read_bytes() == (killed / "run" / name).read_bytes()


def nan_cloud() -> np.ndarray:
    points = np.zeros((90, 32, 3), np.float32)
    points[7, 3, 1] = np.nan
    return points


BAD_DATA = {
    "NaN": ({"points": nan_cloud()}, "1 cloud has NaN or infinite points, first cloud 7"),
    "labels out of range": ({"label": np.repeat([0, 1, -2], 30)}, "label"),
    "labels of wrong type": ({"label": np.repeat([0.5, 1, 2], 30)}, "label"),
    "an empty class": (
        {"classes": np.array(["a", "b", "c", "d"])},
        "no training cloud has label 3 (d)",
    ),
    "wrong shape": ({"points": np.zeros((90, 32), np.float32)}, "points"),
    "wrong type": ({"points": np.zeros((90, 32, 3), "U1")}, "points"),
    "other lengths": ({"label": np.arange(89) % 3}, "89"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_clouds(tmp_path: Path, case: str) -> None:
    changes, told = BAD_DATA[case]
    write_clouds(tmp_path / "bad", **changes)
    ended = run(tmp_path, "search", "--dataset", "./bad", *SMALL)
    assert (ended.status, ended.out) == (2, ""), ended.err
    assert told in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert run(tmp_path, "check", "bad").status == 2


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["search", "--dataset", "modelnet30"], "did you mean modelnet"),
        (["search", "--dataset", "./nowhere"], "nowhere"),
        (["search", "--dataset", "./empty"], "train*.npz"),
        (["search", "--dataset", "nowhere.npz"], "nowhere.npz does not exist: give an .npz file"),
        (["search", "--dataset", "no_edge.npz"], "no array 'edge' (it has: x)"),
        (["search", "--dataset", "points.npz"], "is a file, not a folder: give a folder"),
        (["search", "--k", "20", "--num_points", "32"], "needs 40 points; a cloud has 32: lower k"),
        (["search", "--num_points", "99999"], "num_points is 99999"),
        (["train", "cri2-modelnet-bets"], "did you mean cri2-modelnet-best?"),
        (["train", "cri2-modelnet-best", "--num_steps", "4"], "unknown option --num_steps"),
        (["show", "cri2-modelnet-best", "--preset", "papper"], "did you mean paper?"),
        (["check", "nowhere"], "nowhere"),
    ],
)
def test_bad_options(tmp_path: Path, argv: list[str], told: str) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "no_edge.npz", x=np.ones((3, 2)))
    np.savez(tmp_path / "points.npz", points=np.ones((3, 2, 3)), label=np.zeros(3, int))
    ended = run(tmp_path, *argv)
    assert ended.status == 2, ended.err
    assert told in ended.out + ended.err
    assert argv[0] == "check" or ended.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_check_tells_what_a_folder_holds(tmp_path: Path, clouds: Path) -> None:
    ended = run(tmp_path, "check", str(clouds), "--json")
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    assert told["clouds"] == {"train": 90, "test": 24} and told["problems"] == []
    lines = [
        " ".join(line.split()) for line in run(tmp_path, "check", str(clouds)).out.splitlines()
    ]
    for label in range(3):
        assert f"{label} train 30 test 8" in lines
    (test,) = [line for line in lines if line.startswith("test.npz")]
    assert test.startswith("test.npz split test clouds 24 arrays: points [24, ")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cri1", "cri2", "darts", "random"])
def test_real_clouds(tmp_path: Path, data: Path, strategy: str) -> None:
    """The whole schedule on ModelNet10, with a network too small to learn much."""
    argv = ["--dataset", str(data / "modelnet10"), "--strategy", strategy, *SMALL]
    ended = run(tmp_path, "search", *argv, "--batch_size", "400", "--out", "found")
    assert ended.status == 0, ended.err
    assert json.loads((tmp_path / "found" / "genotype.json").read_text())["meta"]["final"] is True
