"""`sgas-cnn` on small images: the whole way in both spaces, and bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import Ended, command

from sgas.running.complexity import num_flops
from sgas.running.runs import read_checkpoint
from sgas_cnn import family
from sgas_cnn.config import ImageModelConfig
from sgas_cnn.task import ImageModels

FAMILY = "sgas_cnn.family"
SMALL = (
    "--channels 2 --num_cells 3 --batch_size 16 --warmup_epochs 1 --decision_interval 1 "
    "--final_epochs 0 --alpha_learning_rate 0.05 --crop_padding 1"
).split()
SMALL_201 = ["--space", "nasbench201", *SMALL, "--num_cells", "1"]
TRAIN = (
    "--channels 4 --num_cells 3 --batch_size 16 --epochs 2 --drop_path 0.2 --auxiliary true "
    "--cutout 2 --label_smoothing 0.1 --learning_rate_schedule linear --learning_rate_warmup 1"
).split()


def run(folder: Path, *argv: str) -> Ended:
    return command(argv, folder, family=FAMILY)


def write_images(folder: Path, **changes: np.ndarray) -> Path:
    """A folder of 3 classes × 16 training and 4 test images of 8 × 8 pixels, or with changes."""
    draw = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 16), ("test", 4)):
        label = np.repeat(np.arange(3), count)
        image = draw.integers(0, 80, (len(label), 8, 8, 3)) + 60 * label[:, None, None, None]
        arrays = {"image": image.astype(np.uint8), "label": label}
        np.savez(folder / f"{split}.npz", **(arrays | (changes if split == "train" else {})))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


def test_the_whole_way(tmp_path: Path, images: Path) -> None:
    ended = run(tmp_path, "search", "--dataset", str(images), *SMALL, "--out", "found")
    assert ended.status == 0, ended.err
    for kind in ("normal", "reduce"):
        assert (tmp_path / "found" / f"cell-{kind}.svg").exists()
    ended = run(tmp_path, "train", "found", *TRAIN, "--out", "trained")
    assert ended.status == 0, ended.err
    ended = run(tmp_path, "evaluate", "trained", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["samples"] == 12
    assert json.loads(run(tmp_path, "replay", "found", "--json").out)["same"] is True
    shown = json.loads(run(tmp_path, "show", "trained", "--json").out)
    assert shown["sizes"]["channels"] == 4 and shown["sizes"]["image_size"] == 8


def test_images_may_have_sides_of_two_lengths(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 12, 20, 3)).astype(np.uint8)
    wide = write_images(tmp_path / "wide", image=image)
    argv = ["cri2-cifar-1", "--dataset", str(wide), *TRAIN, "--epochs", "1", "--out", "t"]
    ended = run(tmp_path, "train", *argv)
    assert ended.status == 0, ended.err
    result = json.loads((tmp_path / "t" / "result.json").read_text())
    shown = json.loads(run(tmp_path, "show", "t", "--json").out)
    assert shown["sizes"]["image_size"] == 12 and shown["sizes"]["image_width"] == 20
    task = ImageModels(ImageModelConfig(channels=4, num_cells=3), 3, 3, 12, 20)
    network = task.build_network(family.FAMILY.load_published("cri2-cifar-1"), False)
    flops = num_flops(network, torch.zeros(1, 3, 12, 20))
    assert result["flops"] == shown["flops"] == flops


def test_a_pasted_genotype_is_called_by_its_hash(tmp_path: Path, images: Path) -> None:
    genotype = family.FAMILY.load_published("cri2-cifar-1")
    text, name = genotype.to_text(), genotype.content_hash[:8]
    shown = json.loads(run(tmp_path, "show", text, "--json").out)
    assert sorted(shown["pictures"]) == [f"{name}-normal.svg", f"{name}-reduce.svg"]
    argv = [text, "--dataset", str(images), *TRAIN, "--epochs", "1"]
    ended = run(tmp_path, "train", *argv)
    assert ended.status == 0, ended.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [f"images-{name}-train-0"]
    ended = command(["show", f"runs/images-{name}-train-0"], tmp_path, family="sgas_gcn.family")
    assert ended.status == 2 and "is a run of sgas-cnn train; this is sgas-gcn" in ended.err


def test_nasbench201_decides_every_edge(tmp_path: Path, images: Path) -> None:
    argv = ["search", "--dataset", str(images), *SMALL_201, "--out", "found"]
    assert run(tmp_path, *argv).status == 0
    genotype = json.loads((tmp_path / "found" / "genotype.json").read_text())
    assert len(genotype["cells"]["normal"]["edges"]) == 6
    ended = run(tmp_path, "train", "found", "--epochs", "1", "--num_cells", "1", "--out", "t")
    assert ended.status == 0, ended.err
    ended = run(tmp_path, "train", "found", "--auxiliary", "true", "--out", "no")
    assert ended.status == 2 and "no auxiliary head" in ended.err
    assert not (tmp_path / "no").exists()


def test_killed_and_resumed(tmp_path: Path, images: Path) -> None:
    argv = ["search", "--dataset", str(images), *SMALL, "--out", "run"]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    assert run(alone, *argv).status == 0
    interrupted = command(argv, killed, family="interrupted_cnn", STOP_AFTER="5")
    assert interrupted.status == -9
    assert run(killed, "search", "--resume", "run").status == 0
    states = [read_checkpoint(folder / "run" / "checkpoint.pt") for folder in (alone, killed)]
    assert states[0] is not None and states[1] is not None
    for name, tensor in states[0]["supernet"].items():
        assert tensor.equal(states[1]["supernet"][name]), name
    logs = [(folder / "run" / "decisions.jsonl").read_bytes() for folder in (alone, killed)]
    assert logs[0] == logs[1]


def test_published_sizes(tmp_path: Path) -> None:
    shown = json.loads(run(tmp_path, "show", "cri1-cifar-best", "--json").out)
    assert shown["params"] == 3_795_166
    assert shown["flops"] == 2 * 601_653_888


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": np.zeros((48, 8, 8, 3), np.float32)}, "image"),
        ({"image": np.zeros((48, 8, 8, 2), np.uint8)}, "image"),
        ({"image": np.zeros((48, 8), np.uint8)}, "image"),
        ({"label": np.full(48, -1)}, "label"),
        ({"label": np.arange(47) % 3}, "47"),
    ],
    ids=["float", "two channels", "flat", "negative labels", "other lengths"],
)
def test_bad_images(tmp_path: Path, changes: dict[str, np.ndarray], told: str) -> None:
    write_images(tmp_path / "bad", **changes)
    ended = run(tmp_path, "search", "--dataset", "./bad", *SMALL)
    assert (ended.status, ended.out) == (2, ""), ended.err
    assert told in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["search", "--dataset", "cifar"], "did you mean cifar10?"),
        (["search", "--space", "nasbench"], "did you mean nasbench201?"),
        (["search", "--stem", "imagenet"], "needs images of at least 64 pixels"),
        (["search", "--num_steps", "3"], "num_steps is 3; it has to be at least 4"),
        (["train", "cri2-cifar-bets"], "did you mean cri2-cifar-best?"),
        (["search", "--jitter", "0.3"], "only images that are read from files"),
    ],
)
def test_bad_options(tmp_path: Path, argv: list[str], told: str) -> None:
    ended = run(tmp_path, *argv)
    assert ended.status == 2, ended.err
    assert told in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
