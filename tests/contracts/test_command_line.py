"""Both commands on small data of every space: the whole way, resuming, bad input in one line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import CONTEXT, Ended, child, command
from sampling import some
from small_models import SPACES

from sgas.running.complexity import num_flops
from sgas.running.runs import read_checkpoint
from sgas_cnn.config import ImageModelConfig
from sgas_cnn.published import load_published
from sgas_cnn.task import ImageModels

SCHEDULE = (
    "--warmup_epochs 1 --decision_interval 1 --final_epochs 0 --alpha_learning_rate 0.05"
).split()


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


def write_graph(folder: Path, **changes: np.ndarray) -> Path:
    """A folder with one graph of 60 nodes in 3 classes, of which 12 are for tests: one sample."""
    draw, label = np.random.default_rng(0), np.arange(60) % 3
    folder.mkdir(exist_ok=True)
    x = draw.normal(size=(60, 5)) + label[:, None]
    edge = np.unique(np.sort(draw.integers(0, 60, (150, 2)), axis=1), axis=0)
    parts = {"train": np.arange(36), "val": np.arange(36, 48), "test": np.arange(48, 60)}
    arrays = {"x": x.astype(np.float32), "label": label, "edge": edge, **parts}
    np.savez(folder / "graph.npz", **(arrays | changes))
    return folder


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


@dataclass(frozen=True)
class Small:
    """A space on the command line: data, options of a search and a training, and what comes out."""

    family: str
    write: Callable[..., Path]
    search: str
    train: str
    samples: int
    sizes: dict[str, Any]
    figure: str = "accuracy"

    def run(self, folder: Path, *argv: str) -> Ended:
        return command(argv, folder, family=f"{self.family}.family")

    @property
    def search_options(self) -> list[str]:
        return [*self.search.split(), *SCHEDULE]


POINTS = "--num_points 24 --k 3 --channels 4 --emb_dims 8 --batch_size 8"
IMAGES = "--num_cells 3 --batch_size 16"
ENTRIES = {
    "point": Small(
        "sgas_gcn",
        write_clouds,
        f"{POINTS} --resample true",
        f"{POINTS} --num_cells 2 --epochs 4 --drop_path 0.3 --auxiliary true",
        24,
        {"in_channels": 3, "num_classes": 3},
        "balanced_accuracy",
    ),
    "graph": Small(
        "sgas_gcn",
        write_graph,
        "--channels 4",
        "--channels 4 --num_cells 2 --epochs 2 --drop_path 0.3 --auxiliary true",
        1,
        {"in_channels": 5, "num_outputs": 3},
    ),
    "nasbenchgraph": Small(
        "sgas_gcn",
        write_graph,
        "--space nasbenchgraph --channels 4",
        "--channels 4 --pre_layers 0 --epochs 2 --drop_path 0.3",
        1,
        {"in_channels": 5, "num_outputs": 3},
    ),
    "image": Small(
        "sgas_cnn",
        write_images,
        f"--channels 2 {IMAGES} --crop_padding 1",
        f"--channels 4 {IMAGES} --epochs 2 --drop_path 0.2 --auxiliary true --cutout 2 "
        "--label_smoothing 0.1 --learning_rate_schedule linear --learning_rate_warmup 1",
        12,
        {"channels": 4, "image_size": 8},
    ),
    "nasbench201": Small(
        "sgas_cnn",
        write_images,
        "--space nasbench201 --channels 2 --num_cells 1 --batch_size 16",
        "--channels 2 --num_cells 1 --batch_size 16 --epochs 1",
        12,
        {"channels": 2, "image_size": 8},
    ),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of data for each space."""
    root = tmp_path_factory.mktemp("data")
    return {name: entry.write(root / name) for name, entry in ENTRIES.items()}


@pytest.mark.parametrize("space", ENTRIES)
def test_the_whole_way(tmp_path: Path, own: dict[str, Path], space: str) -> None:
    entry = ENTRIES[space]
    (tmp_path / "own").symlink_to(own[space])  # a relative path has to do from elsewhere too
    ended = entry.run(tmp_path, "search", "--dataset", "./own", *entry.search_options, "--out", "s")
    assert ended.status == 0, ended.err
    assert "s/genotype.json" in ended.out
    for kind in SPACES[space].space.cell_kinds:
        assert (tmp_path / "s" / f"cell-{kind}.svg").exists()
    ended = entry.run(tmp_path, "train", "s", *entry.train.split(), "--out", "t")
    assert ended.status == 0, ended.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ended = entry.run(elsewhere, "evaluate", "../t", "--json")
    assert ended.status == 0, ended.err
    figures = json.loads(ended.out)
    assert figures["samples"] == entry.samples
    assert 0 <= figures["accuracy"] <= 1 and 0 <= figures[entry.figure] <= 1
    ended = entry.run(tmp_path, "replay", "s", "--json")
    assert json.loads(ended.out)["same"] is True
    ended = entry.run(tmp_path, "show", "t", "--json")
    assert ended.status == 0, ended.err
    assert entry.sizes.items() <= json.loads(ended.out)["sizes"].items()
    if space == "nasbench201":  # every edge is decided, none pruned
        genotype = json.loads((tmp_path / "s" / "genotype.json").read_text())
        assert len(genotype["cells"]["normal"]["edges"]) == 6


@pytest.mark.parametrize("space", some(ENTRIES, "nasbench201"))
def test_searches_among_trained_cells_with_a_control_and_halves(
    tmp_path: Path, own: dict[str, Path], space: str
) -> None:
    entry = ENTRIES[space]
    words = "--strategy halving --num_candidates 4 --candidate_epochs 1 --patience 1".split()
    words += ["--control", "permuted_labels", "--halves", "true", "--out", "s"]
    data = ["--dataset", str(own[space])]
    ended = entry.run(tmp_path, "search", *data, *entry.search_options, *words)
    assert ended.status == 0, ended.err
    assert "on permuted labels: " in ended.err and "edges that agree: " in ended.err
    for run in ("s", "s/control", "s/half-1"):
        ended = entry.run(tmp_path, "replay", run, "--json")
        assert json.loads(ended.out)["same"] is True


SHOWN = {
    "cri2-modelnet-best": ("point", "--preset paper --num_cells 3 --k 9", 3_857_320, None),
    "cri1-cifar-best": ("image", "", 3_795_166, 2 * 601_653_888),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_published_networks_sizes(tmp_path: Path, name: str) -> None:
    space, options, params, flops = SHOWN[name]
    ended = ENTRIES[space].run(tmp_path, "show", name, *options.split(), "--json")
    assert ended.status == 0, ended.err
    shown = json.loads(ended.out)
    assert shown["params"] == params
    assert shown["flops"] == flops if flops else shown["flops"] > 2e9
    assert (tmp_path / f"{name}-normal.svg").exists()


KILLED = [("point", "search"), ("point", "train"), ("image", "search")]


@pytest.mark.parametrize(("space", "verb"), some(KILLED, ("point", "search")))
def test_killed_at_any_moment_and_resumed(
    tmp_path: Path, own: dict[str, Path], space: str, verb: str
) -> None:
    """SIGKILL comes from outside, at a time that has nothing to do with our steps."""
    entry = ENTRIES[space]
    options = {
        "search": entry.search_options,
        "train": ["random-modelnet-3", *entry.train.split()],
    }[verb]
    argv = [verb, *options, "--dataset", str(own[space]), "--out", "run"]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    began = time.monotonic()
    assert entry.run(alone, *argv).status == 0
    took = time.monotonic() - began
    moments = random.Random(verb)
    for turn in range(3):
        again = [verb, "--resume", "run"] if (killed / "run").exists() else argv
        family = f"{entry.family}.family"
        process = CONTEXT.Process(target=child, args=(family, again, str(killed), {}))
        process.start()
        process.join(took * moments.uniform(0.3, 0.8) / (1 + turn))
        process.kill()
        process.join()
    again = [verb, "--resume", "run"] if (killed / "run").exists() else argv
    ended = entry.run(killed, *again)
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


# What own data have wrong, and a word of its refusal. Every wrong array of a file is in
# test_own_folders; here it reaches the user in one line, before a run has a folder.
BAD_DATA: list[tuple[str, dict[str, np.ndarray], str]] = [
    ("point", {"points": nan_cloud()}, "1 cloud has NaN or infinite points, first cloud 7"),
    ("point", {"label": np.arange(89) % 3}, "89"),
    ("graph", {"edge": np.full((9, 2), 99)}, "name nodes that are not there"),
    ("image", {"image": np.zeros((48, 8, 8, 3), np.float32)}, "image"),
    ("image", {"label": np.full(48, -1)}, "label"),
]


@pytest.mark.parametrize(("space", "changes", "message"), BAD_DATA)
def test_bad_data(tmp_path: Path, space: str, changes: dict[str, np.ndarray], message: str) -> None:
    entry = ENTRIES[space]
    entry.write(tmp_path / "bad", **changes)
    ended = entry.run(tmp_path, "search", "--dataset", "./bad", *entry.search_options)
    assert (ended.status, ended.out) == (2, ""), ended.err
    assert message in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert entry.run(tmp_path, "check", "bad").status == 2


BAD_OPTIONS = [
    ("point", "search --dataset modelnet30", "did you mean modelnet"),
    ("point", "search --dataset ./nowhere", "nowhere"),
    ("point", "search --dataset ./empty", "train*.npz"),
    ("point", "search --dataset nowhere.npz", "nowhere.npz does not exist: give an .npz file"),
    ("point", "search --dataset no_edge.npz", "no array 'edge' (it has: x)"),
    ("point", "search --dataset points.npz", "is a file, not a folder: give a folder"),
    ("point", "search --k 20 --num_points 32", "needs 40 points; a cloud has 32: lower k"),
    ("point", "search --num_points 99999", "num_points is 99999"),
    ("point", "train cri2-modelnet-bets", "did you mean cri2-modelnet-best?"),
    ("point", "train cri2-modelnet-best --num_steps 4", "unknown option --num_steps"),
    ("point", "show cri2-modelnet-best --preset papper", "did you mean paper?"),
    ("point", "check nowhere", "nowhere"),
    ("image", "search --dataset cifar", "did you mean cifar10?"),
    ("image", "search --space nasbench", "did you mean nasbench201?"),
    ("image", "search --stem imagenet", "needs images of at least 64 pixels"),
    ("image", "search --num_steps 3", "num_steps is 3; it has to be at least 4"),
    ("image", "train cri2-cifar-bets", "did you mean cri2-cifar-best?"),
    ("image", "search --jitter 0.3", "only images that are read from files"),
]


@pytest.mark.parametrize(("space", "line", "message"), BAD_OPTIONS)
def test_bad_options(tmp_path: Path, space: str, line: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "no_edge.npz", x=np.ones((3, 2)))
    np.savez(tmp_path / "points.npz", points=np.ones((3, 2, 3)), label=np.zeros(3, int))
    ended = ENTRIES[space].run(tmp_path, *line.split())
    assert ended.status == 2, ended.err
    assert message in ended.out + ended.err
    assert line.startswith("check") or ended.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_protocol_paper_is_labelled(tmp_path: Path, own: dict[str, Path]) -> None:
    entry, protocol = ENTRIES["point"], ["--dataset", str(own["point"]), "--protocol", "paper"]
    ended = entry.run(tmp_path, "search", *protocol, *entry.search_options, "--out", "s")
    assert "protocol paper: the test split trains the alphas" in ended.err
    ended = entry.run(tmp_path, "train", "s", *protocol, *entry.train.split(), "--out", "t")
    assert ended.status == 0, ended.err
    result = json.loads((tmp_path / "t" / "result.json").read_text())
    assert result["best_test_epoch_accuracy"] >= result["test_accuracy"]
    assert "chosen by the test split" in result["note"]


GRAPHS = dict.fromkeys(("graph", "nasbenchgraph"), "validation split")
SPLITS = {"point": "test split", **GRAPHS, "image": "", "nasbench201": ""}


@pytest.mark.parametrize("space", some(ENTRIES, "graph"))
def test_a_clean_training_of_a_cell_of_protocol_paper_is_paper(
    tmp_path: Path, own: dict[str, Path], space: str
) -> None:
    entry, data = ENTRIES[space], ["--dataset", str(own[space]), "--space", space]
    paper = [*data, *entry.search_options, "--protocol", "paper"]
    ended = entry.run(tmp_path, "search", *paper, "--out", "s")
    assert ended.status == 0, ended.err
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Protocol paper: " in page and ("test split" in page) == (space == "point")
    its = f" with its {SPLITS[space]}" if SPLITS[space] else ""
    words = (
        f"cell searched on {space}{its} (protocol paper); "
        f"network trained on {space} (protocol clean)"
    )
    clean = [*entry.train.split(), "--protocol", "clean"]
    for cell, run in (("s", "of-run"), ("s/genotype.json", "of-file")):
        ended = entry.run(tmp_path, "train", cell, *data, *clean, "--out", run)
        assert ended.status == 0 and words in ended.out, ended.err
        evaluated = json.loads(entry.run(tmp_path, "evaluate", run, "--json").out)
        shown = json.loads(entry.run(tmp_path, "show", run, "--json").out)
        files = (tmp_path / run / f"{name}.json" for name in ("config", "result", "evaluation"))
        for line in (evaluated, shown, *(json.loads(file.read_text()) for file in files)):
            assert (line["protocol"], line["provenance"]) == ("paper", words)


def test_what_a_search_was_asked_of_its_clouds_goes_to_the_training(
    tmp_path: Path, own: dict[str, Path]
) -> None:
    entry = ENTRIES["point"]
    searching = ["--dataset", str(own["point"]), *entry.search_options, "--out", "s"]
    assert entry.run(tmp_path, "search", *searching).status == 0
    ended = entry.run(tmp_path, "show", "s", "--preset", "demo", "--json")
    shown = json.loads(ended.out)
    training = "--preset demo --epochs 1 --batch_size 8 --out t".split()
    ended = entry.run(tmp_path, "train", "s", *training)
    assert ended.status == 0, ended.err
    assert "protocol clean · num_points 24 · k 3 · resample True\n" in ended.err
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    assert (config["model"]["num_points"], config["model"]["k"]) == (24, 3)
    assert config["model"]["channels"] != 4
    assert f"{shown['params']:,} parameters" in ended.err


def test_check_tells_what_a_folder_holds(tmp_path: Path, own: dict[str, Path]) -> None:
    entry, folder = ENTRIES["point"], str(own["point"])
    ended = entry.run(tmp_path, "check", folder, "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    assert report["clouds"] == {"train": 90, "test": 24} and report["problems"] == []
    ended = entry.run(tmp_path, "check", folder)
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    for label in range(3):
        assert f"{label} train 30 test 8" in lines
    (test,) = [line for line in lines if line.startswith("test.npz")]
    assert test.startswith("test.npz split test clouds 24 arrays: points [24, ")


def test_images_may_have_sides_of_two_lengths(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 12, 20, 3)).astype(np.uint8)
    wide, entry = write_images(tmp_path / "wide", image=image), ENTRIES["image"]
    argv = ["cri2-cifar-1", "--dataset", str(wide), *entry.train.split(), "--epochs", "1"]
    ended = entry.run(tmp_path, "train", *argv, "--out", "t")
    assert ended.status == 0, ended.err
    result = json.loads((tmp_path / "t" / "result.json").read_text())
    shown = json.loads(entry.run(tmp_path, "show", "t", "--json").out)
    assert shown["sizes"]["image_size"] == 12 and shown["sizes"]["image_width"] == 20
    task = ImageModels(ImageModelConfig(channels=4, num_cells=3), 3, 3, 12, 20)
    network = task.build_network(load_published("cri2-cifar-1"), False)
    flops = num_flops(network, torch.zeros(1, 3, 12, 20))
    assert result["flops"] == shown["flops"] == flops


def test_a_pasted_genotype_is_called_by_its_hash(tmp_path: Path, own: dict[str, Path]) -> None:
    genotype, entry = load_published("cri2-cifar-1"), ENTRIES["image"]
    text, name = genotype.to_text(), genotype.content_hash[:8]
    shown = json.loads(entry.run(tmp_path, "show", text, "--json").out)
    assert sorted(shown["pictures"]) == [f"{name}-normal.svg", f"{name}-reduce.svg"]
    argv = [text, "--dataset", str(own["image"]), *entry.train.split(), "--epochs", "1"]
    ended = entry.run(tmp_path, "train", *argv)
    assert ended.status == 0, ended.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [f"image-{name}-train-0"]
    ended = ENTRIES["point"].run(tmp_path, "show", f"runs/image-{name}-train-0")
    assert ended.status == 2 and "is a run of sgas-cnn train; this is sgas-gcn" in ended.err


@pytest.mark.parametrize(
    ("space", "dataset"), [("nasbench201", "digits"), ("nasbenchgraph", "tissues")]
)
def test_networks_of_a_benchmark_have_no_auxiliary_head(
    tmp_path: Path, space: str, dataset: str
) -> None:
    (tmp_path / "cell.json").write_text(SPACES[space].genotype(0).to_json())
    argv = ["cell.json", "--dataset", dataset, "--space", space, "--auxiliary", "true"]
    ended = ENTRIES[space].run(tmp_path, "train", *argv, "--out", "no")
    assert ended.status == 2 and "no auxiliary head" in ended.err
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_real_clouds(tmp_path: Path, data: Path) -> None:
    """The whole schedule on ModelNet10, with a network too small to learn much."""
    argv = ["--dataset", str(data / "modelnet10"), "--out", "s"]
    entry = ENTRIES["point"]
    options = [*entry.search_options, "--batch_size", "400", "--resample", "false"]
    ended = entry.run(tmp_path, "search", *argv, *options)
    assert ended.status == 0, ended.err
    assert json.loads((tmp_path / "s" / "genotype.json").read_text())["meta"]["final"] is True


def test_a_terminal_that_knows_few_characters_is_no_obstacle(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = "import sys; from sgas_gcn.cli import main; sys.argv[1:] = ['doctor']; main()"
    words, environ = [sys.executable, "-c", program], os.environ | plain
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.isascii() and b"python" in done.stdout
