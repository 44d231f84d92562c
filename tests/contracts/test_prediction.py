"""A trained run of every space predicts without its data what `evaluate` found."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset
from torch_geometric.data import Batch, Data

import sgas_cnn
import sgas_gcn
from sgas.cli import main
from sgas.errors import DataError, RunError
from sgas.files import SEALS
from sgas.running.predictions import read_predictions
from sgas_cnn.family import FAMILY as IMAGES
from sgas_cnn.nasbench201_text import from_nasbench201
from sgas_gcn.family import FAMILY as GRAPHS

LABELS = np.arange(24) % 3
CLASSES = ("ball", "rod", "disc")


class Named(TensorDataset):
    """Samples and labels with names of classes."""

    classes = CLASSES


def clouds(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    stretch = np.array([[1, 1, 1], [1, 1, 4], [3, 3, 0.3]])[LABELS][:, None]
    return (draw.normal(size=(24, 32, 3)) * stretch).astype(np.float32)


def images(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed).integers(0, 80, (24, 8, 8, 3))
    return (draw + 60 * LABELS[:, None, None, None]).astype(np.uint8)


def named(samples: np.ndarray) -> Dataset[Any]:
    return Named(torch.from_numpy(samples), torch.from_numpy(LABELS))


def graph(seed: int) -> Data:
    draw = torch.Generator().manual_seed(seed)
    edges = torch.randint(24, (2, 60), generator=draw)
    x = torch.randn(24, 5, generator=draw) + torch.from_numpy(LABELS)[:, None]
    both = torch.cat([edges, edges.flip(0)], dim=1)
    return Data(x=x, edge_index=both, y=torch.from_numpy(LABELS))


@dataclass(frozen=True)
class Trained:
    """A space: what it is trained on and asked, and forms of that which give the same answers."""

    package: Any
    genotype: Any
    data: Callable[[int], Any]
    test: Any
    asked: Any
    forms: list[Callable[[Any], Any]]
    options: dict[str, Any]

    @property
    def family(self) -> Any:
        return GRAPHS if self.package is sgas_gcn else IMAGES


FEW = {"epochs": 2, "batch_size": 8, "preset": "demo", "quiet": True}


def of_pyg(x: Any) -> list[Data]:
    """Clouds as PyG's data."""
    return [Data(pos=torch.from_numpy(one)) for one in x]


def joined(x: Any) -> Batch:
    """Clouds as one of PyG's batches."""
    return Batch.from_data_list(of_pyg(x))


class Items(Dataset[Any]):
    """A data set of what a list has."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


POINT = Trained(
    sgas_gcn,
    "random-modelnet-3",
    lambda seed: named(clouds(seed)),
    named(clouds(1)),
    clouds(1),
    [torch.from_numpy, list, named, lambda x: Items(of_pyg(x)), of_pyg, joined],
    {"num_points": 24, "k": 3, "channels": 4, "num_cells": 2, "emb_dims": 8, **FEW},
)
GRAPH = Trained(
    sgas_gcn,
    "random-ppi-3",
    lambda seed: [graph(seed + 7 * number) for number in range(4)],
    [graph(1), graph(2)],
    [graph(1), graph(2)],
    [lambda x: [(one.x.numpy(), one.edge_index) for one in x], Batch.from_data_list],
    {"channels": 4, **FEW},
)
IMAGE = Trained(
    sgas_cnn,
    "cri2-cifar-best",
    lambda seed: named(images(seed)),
    named(images(1)),
    images(1),
    [lambda x: torch.from_numpy(x).permute(0, 3, 1, 2), list, named],
    {"channels": 2, "num_cells": 3, **FEW},
)
CELL = from_nasbench201(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|"
)
SPACES = {
    "point": POINT,
    "graph": GRAPH,
    "image": IMAGE,
    "nasbench201": Trained(
        sgas_cnn, CELL, IMAGE.data, IMAGE.test, IMAGE.asked, IMAGE.forms,
        {"channels": 2, "num_cells": 1, "space": "nasbench201", **FEW},
    ),
}  # fmt: skip


@dataclass
class Run:
    """A run that was trained and evaluated, whose data are gone."""

    entry: Trained
    folder: Path
    data: Path
    evaluation: dict[str, Any]


@pytest.fixture(scope="module", params=SPACES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    entry, root = SPACES[request.param], tmp_path_factory.mktemp(request.param)
    where = {"out": root / "run", "data_root": root}
    result = entry.package.train(
        entry.genotype, entry.data(0), test=entry.test, **entry.options, **where
    )
    made = Run(entry, result.folder, root / "own", result.evaluate())
    made.data.rename(root / "gone")
    return made


def rows(answers: Any) -> np.ndarray:
    return np.concatenate(answers) if isinstance(answers, list) else answers


def test_its_figures_on_the_test_part_are_those_of_evaluate(run: Run) -> None:
    trained = run.entry.package.load(run.folder)
    predicted = trained.predict(run.entry.asked)
    accuracy = float((rows(predicted) == np.resize(LABELS, len(rows(predicted)))).mean())
    assert accuracy == run.evaluation["accuracy"]
    wanted = ("0", "1", "2") if run.entry is GRAPH else CLASSES
    assert trained.classes == wanted
    probs = rows(trained.predict_proba(run.entry.asked))
    assert probs.shape == (len(rows(predicted)), 3) and probs.dtype == np.float32
    assert np.allclose(probs.sum(1), 1) and (probs.argmax(1) == rows(predicted)).all()
    assert not trained.network.training
    trained.network.half()
    with pytest.raises(DataError, match=r"network is torch.float16: network.float\(\)"):
        trained.predict(run.entry.asked)
    written = [row for row in read_predictions(run.folder) if row["part"] == "test"]
    assert [row["predicted"] for row in written] == [wanted[n] for n in rows(predicted)]
    assert [float(row["probability"]) for row in written] == pytest.approx(
        probs.max(1).tolist(), rel=1e-4
    )


def test_samples_may_come_in_any_form(run: Run) -> None:
    trained, asked = run.entry.package.load(run.folder), run.entry.asked
    wanted = trained.predict_proba(asked)
    for form in run.entry.forms:
        answers = trained.predict_proba(form(asked))
        assert type(answers) is type(wanted)
        assert np.array_equal(rows(answers), rows(wanted))
    alone = trained.predict_proba(asked[3 % len(asked)])
    assert np.allclose(alone, wanted[3 % len(asked)], atol=1e-6)
    assert alone.ndim == (2 if run.entry is GRAPH else 1)


def test_the_command_says_the_same(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = run.data.parent / "gone", run.folder.parent / "out.csv"
    (data,) = folder.iterdir()
    trained = run.entry.package.load(run.folder)
    argv = ["predict", str(run.folder), str(data)]
    assert main(run.entry.family, [*argv, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"accuracy           {run.evaluation['accuracy']:.4f}" in told
    with open(out, newline="") as file:
        table = list(csv.DictReader(file))
    classes, predicted = trained.classes, rows(trained.predict(run.entry.asked))
    assert [row["predicted"] for row in table] == [classes[number] for number in predicted]
    assert [row["true"] for row in table] == [classes[n] for n in np.resize(LABELS, len(table))]
    shares = np.array([[float(row[name]) for name in classes] for row in table])
    assert np.allclose(shares, rows(trained.predict_proba(run.entry.asked)), atol=1e-5)
    assert main(run.entry.family, argv) == 0
    assert capsys.readouterr().out == out.read_text()


def test_a_training_starts_from_its_weights_with_another_head(run: Run, tmp_path: Path) -> None:
    options = {**run.entry.options, "epochs": 1, "learning_rate": 1e-9, "learning_rate_min": 0.0}
    sizes = ("channels", "num_cells", "emb_dims")  # are those of the run
    options = {name: value for name, value in options.items() if name not in sizes}
    common: dict[str, Any] = {"weights": run.folder, "data_root": tmp_path, **options}
    before = dict(run.entry.package.load(run.folder).network.named_parameters())

    def changed(trained: Any) -> set[str]:
        after = dict(trained.network.named_parameters())
        apart = {n for n, p in after.items() if p.shape != before[n].shape}
        return apart | {
            n for n in after.keys() - apart if (after[n] - before[n]).abs().max() > 1e-5
        }

    train = run.entry.package.train
    same = train(run.folder, run.entry.data(0), out=tmp_path / "same", **common)
    assert changed(same) == set()
    words = (
        f"trained on {Path(same.config['run']['dataset']).name} (protocol clean) from weights of"
    )
    assert words in same.result["provenance"]
    other = train(run.folder, of_two(run.entry.data(0)), out=tmp_path / "other", **common)
    (layer,) = {name.rpartition(".")[0] for name in changed(other)}
    assert isinstance(other.network.get_submodule(layer), torch.nn.Linear)
    assert len(other.classes) == other.network.get_submodule(layer).out_features == 2
    with pytest.raises(RunError, match=r"are of another network: .* here; give the genotype"):
        train(run.folder, run.entry.data(0), out=tmp_path / "wider", channels=6, **common)
    assert not (tmp_path / "wider").exists()
    assert main(run.entry.family, ["train", "--resume", str(tmp_path / "other")]) == 0


def of_two(dataset: Any) -> Any:
    """The same samples in two classes."""
    if isinstance(dataset, list):
        return [Data(x=one.x, edge_index=one.edge_index, y=one.y % 2) for one in dataset]
    return TensorDataset(dataset.tensors[0], dataset.tensors[1] % 2)


def test_a_run_of_before_finds_its_classes_in_its_data_or_says_that_they_are_gone(
    run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.folder, tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["classes"], config["inputs"]
    (tmp_path / "old" / SEALS).unlink()
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    old = run.entry.package.load(tmp_path / "old")
    assert sum(map(torch.numel, old.network.parameters())) == old.result["parameters"]
    with pytest.raises(RunError, match="kept no classes and no preprocessing, and its data"):
        old.predict(run.entry.asked)
    gone = run.data.parent / "gone"
    gone.rename(run.data)
    try:
        wanted = run.entry.package.load(run.folder).predict(run.entry.asked)
        assert np.array_equal(rows(old.predict(run.entry.asked)), rows(wanted))
    finally:
        run.data.rename(gone)


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("point")
    where = {"out": root / "run", "data_root": root}
    return sgas_gcn.train(POINT.genotype, POINT.data(0), **POINT.options, **where)


@pytest.fixture(scope="module")
def graph_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("graph")
    where = {"out": root / "run", "data_root": root}
    return sgas_gcn.train(GRAPH.genotype, GRAPH.data(0), **GRAPH.options, **where)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("image")
    where = {"out": root / "run", "data_root": root}
    return sgas_cnn.train(IMAGE.genotype, IMAGE.data(0), **IMAGE.options, **where)


def test_clouds_of_different_sizes(point: Any, tmp_path: Path) -> None:
    x = clouds(2)
    sizes = [x[0], x[1, :9], x[2], x[3, :9], x[4, :20]]
    together, alone = point.predict_proba(sizes), [point.predict_proba(cloud) for cloud in sizes]
    assert np.allclose(together, np.stack(alone), atol=1e-6)
    np.save(tmp_path / "one.npy", x[0])
    assert np.allclose(point.predict_proba(tmp_path / "one.npy"), alone[0])


def test_files_of_pictures(image: Any, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    x = images(3)
    for number, pixels in enumerate(x[:4]):
        pillow.fromarray(pixels).save(tmp_path / f"{number}.png")
    wanted = image.predict_proba(x[:4])
    assert np.array_equal(image.predict_proba(tmp_path), wanted)
    np.save(tmp_path / "four.npy", x[:4])
    assert np.array_equal(image.predict_proba(tmp_path / "four.npy"), wanted)
    files = [tmp_path / f"{number}.png" for number in range(4)]
    assert np.array_equal(image.predict_proba(files), wanted)
    assert np.allclose(image.predict_proba(files[2]), wanted[2], atol=1e-6)
    assert np.allclose(image.predict_proba(pillow.open(files[2])), wanted[2], atol=1e-6)
    colours = pillow.fromarray(x[0]).quantize(8)
    wanted = image.predict_proba(np.asarray(colours.convert("RGB")))
    assert np.array_equal(image.predict_proba(colours), wanted)
    large = pillow.fromarray(x[0]).resize((24, 16), pillow.Resampling.NEAREST)
    large.save(tmp_path / "large.png")
    assert image.predict(tmp_path / "large.png") in (0, 1, 2)


X, E = torch.zeros(5, 3), torch.zeros(2, 4)
BAD = [
    ("point", np.zeros((4, 24, 2)), r"cloud 0 has shape \[24, 2\]; the network takes \[points, 3"),
    ("point", [np.zeros((24, 3)), np.zeros((5, 3))], "cloud 1 has 5 points.*give as many"),
    ("point", np.full((24, 3), np.nan), "cloud 0 has NaN"),
    ("point", [], "there is no cloud to predict"),
    ("point", 3, "the data are of type int; give one cloud"),
    ("point", "nowhere.npz", "nowhere.npz"),
    ("point", "modelnet30", "did you mean modelnet"),
    ("point", np.full((2, 24, 3), "1"), "cloud 0 is of <U1; give real numbers"),
    ("point", Data(pos=torch.zeros(24, 3), x=torch.zeros(7)), r"pos and x of \[24, 3\], \[7\]"),
    ("point", __file__, "is no .npy or .npz file"),
    ("graph", [X, E], "graph 0 is of type Tensor; give PyG's Data or a pair"),
    ("graph", (X, E + 0.5), "edge_index of graph 0 has fractions"),
    ("graph", (X * np.nan, E), "graph 0 has NaN"),
    ("graph", (X[:, :2], E), "graph 0 has 2 features a node; the network takes"),
    ("image", np.zeros((2, 9, 8, 3), np.uint8), "image 0 is .9, 8, 3.*scale it, or give it as"),
    ("image", np.zeros((2, 8, 8, 3)) - 1, "give uint8, or floats from 0 to 1"),
    ("image", "nowhere.png", "nowhere.png cannot be read as a picture"),
    ("image", "nowhere.npy", "nowhere.npy cannot be read as an array"),
    ("image", {"x": 1}, "the data set is a dict"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "data", "told"), BAD)
def test_what_it_cannot_take_is_one_clear_line(
    point: Any, graph_run: Any, image: Any, space: str, data: Any, told: str
) -> None:
    with pytest.raises(DataError, match=told) as raised:
        {"point": point, "graph": graph_run, "image": image}[space].predict(data)
    assert "\n" not in str(raised.value)
