"""The Python interface: the verbs' rules and runs, and data of one's own from memory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest
import torch
from processes import Cli
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torch_geometric.data import Batch, Data, HeteroData, TemporalData
from toy_family import FAMILY, QUICK

import sgas_cnn
import sgas_cnn.keywords as of_images
import sgas_gcn
import sgas_gcn.keywords as of_graphs
from sgas.cli import main
from sgas.config import STRATEGIES, RunConfig, fields_of
from sgas.errors import ConfigError, DataError, InputError, Interrupted
from sgas.interface import evaluate, load, search, train
from sgas.protocols import train_parts
from sgas.running.listeners import Silent
from sgas.running.loop import measure
from sgas.running.run_results import SearchResult
from sgas.running.runs import is_run, read_config
from sgas.running.settings import open_settings, sections_of
from sgas_cnn.datasets import load_images
from sgas_cnn.family import FAMILY as IMAGES
from sgas_gcn.config import GraphDataConfig
from sgas_gcn.datasets import load_points
from sgas_gcn.datasets.graph_file import read_graph_file
from sgas_gcn.datasets.graphs import load_graphs
from sgas_gcn.family import FAMILY as GRAPHS
from sgas_gcn.own_data import keep_own
from sgas_gcn.preparation import CloudPreparation

pytestmark = pytest.mark.usefixtures("here")


def test_a_search_is_what_the_command_makes(here: Path) -> None:
    searched = search(FAMILY, "blobs", strategy="cri1", seed=4, **QUICK)
    assert searched.folder == Path("runs/blobs-cri1-4")
    assert len(searched.history) == 5 and searched.history[-1]["decided"] == 8
    assert len(searched.decisions) == 8
    assert {record.cell for record in searched.decisions} == {"normal", "reduce"}
    assert searched.genotype.meta["strategy"] == "cri1" and searched.genotype.meta["final"] is True
    words = [f"--{name}={value}" for name, value in QUICK.items()]
    assert main(FAMILY, ["search", "--strategy=cri1", "--seed=4", "--out=mine", *words]) == 0
    assert SearchResult.from_run(FAMILY, "mine").decisions == searched.decisions


def test_a_training_of_a_result_a_genotype_and_a_folder_agree() -> None:
    searched = search(FAMILY, strategy="random", **QUICK)
    given = searched, searched.genotype, searched.folder, str(searched.folder)
    results = [
        train(FAMILY, one, "blobs", epochs=2, auxiliary=True, out=f"trained-{number}")
        for number, one in enumerate(given)
    ]
    assert all(result.result == results[0].result for result in results)
    assert len(results[0].history) == 2 and results[0].result["parameters"] > 0
    first, again = results[0].evaluate(), results[0].evaluate()
    assert first == again and 0 <= first["accuracy"] <= 1
    network = results[0].network
    logits = network(torch.zeros(7, 5))
    assert logits.shape == (7, 3) and torch.equal(logits, results[1].network(torch.zeros(7, 5)))


def test_the_command_in_a_run_makes_it_again(here: Path) -> None:
    searched = search(FAMILY, "blobs", strategy="cri1", **QUICK)
    trained = train(FAMILY, searched.genotype, "blobs", epochs=2)
    for number, run in enumerate((searched.folder, trained.folder)):
        program, *words = shlex.split(read_config(run)["command"])
        assert program == FAMILY.command
        assert main(FAMILY, [*words, "--out", f"again-{number}"]) == 0
        assert (here / f"again-{number}" / "genotype.json").is_file()
    assert SearchResult.from_run(FAMILY, "again-0").decisions == searched.decisions
    figures = json.loads(Path("again-1/result.json").read_text())
    assert figures == json.loads((trained.folder / "result.json").read_text())


@pytest.mark.parametrize(
    ("name", "value"),
    [("strategy", "cri3"), ("batch_size", 2.5), ("cuda_graphs", 1), ("learning_rate", "fast")],
)
def test_an_error_has_field_value_and_choices_and_is_phrased_for_its_surface(
    here: Path, cli: Cli, name: str, value: Any
) -> None:
    with pytest.raises(ConfigError) as raised:
        search(FAMILY, **{name: value})
    error = raised.value
    assert (error.field, error.value) == (name, value) and f"{name}=" in str(error)
    assert error.choices == (tuple(STRATEGIES) if name == "strategy" else ())
    flagged = str(error).replace(f"{name}=", f"--{name}").replace(f"got {value}", f"got '{value}'")
    assert cli("search", f"--{name}={value}").is_refused(f"error: {flagged}\n")
    assert list(here.iterdir()) == []


def test_a_value_may_be_its_text_or_a_path(here: Path) -> None:
    searched = search(FAMILY, out=here / "run", seed="4", learning_rate=1, **QUICK)
    config = read_config(here / "run")
    assert config["run"]["seed"] == 4 and config["loop"]["learning_rate"] == 1.0
    assert searched.config == config


class Heard(Silent):
    """Counts what a loop tells."""

    def __init__(self) -> None:
        self.steps, self.epochs, self.news = 0, 0, 0

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        self.steps += 1

    def epoch_ended(self, epoch: int, metrics: Any, news: tuple[str, ...]) -> None:
        self.epochs, self.news = self.epochs + 1, self.news + len(news)


def test_a_listener_hears_and_quiet_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    heard = Heard()
    searched = search(FAMILY, listener=heard, quiet=True, **QUICK)
    assert (heard.epochs, heard.news) == (5, 8) and heard.steps > 5
    train(FAMILY, searched, epochs=2, listener=heard, quiet=True)
    assert heard.epochs == 7
    assert capfd.readouterr() == ("", "")
    train(FAMILY, searched, epochs=1)
    assert "epoch 1/1" in capfd.readouterr().err


def test_a_result_is_shown_in_a_few_lines_and_as_its_cells() -> None:
    searched = search(FAMILY, quiet=True, **QUICK)
    trained = train(FAMILY, searched, epochs=1, quiet=True)
    for result in (searched, trained):
        text = repr(result)
        assert text.count("\n") < 8 and result.genotype.to_text() in text
        assert "blobs · protocol clean · seed 0" in text and "validation_accuracy" in text
        assert result._repr_svg_().startswith("<svg") and "normal cell" in result._repr_svg_()
        page = result._repr_html_()
        assert page.count("<svg") == 2 and "<th>genotype</th>" in page
    assert "parameters" in repr(trained) and "decisions  8" in repr(searched)


def test_the_best_epoch_is_kept_where_that_is_asked() -> None:
    searched = search(FAMILY, **QUICK, quiet=True)
    trained = train(FAMILY, searched, epochs=6, learning_rate=0.3, kept_epoch="best", quiet=True)
    figures = [line["validation_accuracy"] for line in trained.history]
    best = max(figures)
    assert figures[-1] < best == trained.result["validation_accuracy"]
    words = f"{figures.index(best) + 1} of 6, best on validation"
    assert trained.result["epoch"] == trained.evaluate()["epoch"] == words
    assert f"epoch {words}" in repr(trained)
    settings, _ = open_settings(FAMILY, trained.folder)
    task = FAMILY.open_task(settings.run, settings.model, settings.data)
    part = train_parts(task, "clean", 0, 0.1, torch.device("cpu")).measured["validation"]
    again = measure(trained.network, task.labels, part, 16, torch.device("cpu"))
    assert again["accuracy"] == best


def test_a_trained_run_is_loaded() -> None:
    searched = search(FAMILY, quiet=True, **QUICK)
    with pytest.raises(InputError, match="is a search; train it first"):
        load(FAMILY, searched.folder)
    folder = train(FAMILY, searched, epochs=1, quiet=True).folder
    loaded = load(FAMILY, str(folder))
    assert isinstance(loaded.network, nn.Module) and loaded.network is loaded.network
    assert loaded.genotype.cells == searched.genotype.cells
    assert loaded.config["loop"]["epochs"] == 1 and loaded.evaluation is None
    figures = evaluate(FAMILY, loaded)
    assert load(FAMILY, folder).evaluation == figures == evaluate(FAMILY, folder)


def typed(config: type, verb: str) -> dict[str, Any]:
    """The options of a dataclass, each with its type or the choices that it has."""
    return {
        name: Literal[spec.metadata["choices"]]
        if spec.metadata["choices"] and name != "strategy"  # to which a user may add
        else kind
        for name, (spec, kind) in fields_of(config, verb).items()
        if name != "dataset"
    }


@pytest.mark.parametrize("family", [GRAPHS, IMAGES], ids=lambda family: family.name)
@pytest.mark.parametrize("verb", ["search", "train"])
def test_typed_keywords_are_the_options(family: Any, verb: str) -> None:
    keywords = of_graphs if family is GRAPHS else of_images
    options = keywords.SearchOptions if verb == "search" else keywords.TrainOptions
    wanted: dict[str, Any] = {}
    for space in family.spaces:
        for config in sections_of(family, verb, space).values():
            wanted |= typed(config, verb)
    if verb == "search":
        wanted["candidates"] = str | Sequence[Any] | None  # a command names them in one text
    assert get_type_hints(options) == wanted
    for package in ("sgas", "sgas_gcn", "sgas_cnn"):
        assert (Path(__file__).parents[2] / package / "py.typed").is_file()


def test_the_functions_of_a_family_are_those_of_the_interface(here: Path) -> None:
    label, draw = np.arange(48) % 3, np.random.default_rng(0)
    images = draw.integers(0, 256, (48, 8, 8, 1)).astype(np.uint8)
    for split in ("train", "test"):
        np.savez(here / f"{split}.npz", image=images, label=label)
    mine = {"preset": "demo", "quiet": True, "channels": 2, "num_cells": 3, "batch_size": 16}
    searched = sgas_cnn.search("./", strategy="random", **mine, **QUICK)
    again = search(IMAGES, "./", strategy="random", out="again", **mine, **QUICK)
    assert searched.genotype.cells == again.genotype.cells
    trained = sgas_cnn.train(searched, epochs=1, **mine)
    assert sgas_cnn.evaluate(trained) == sgas_cnn.load(trained.folder).evaluation
    with pytest.raises(InputError, match=r"is a run of sgas-cnn train; this is sgas-gcn"):
        sgas_gcn.load(trained.folder)


hetero = HeteroData()
hetero["paper"].x = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: search(FAMILY, batch_sise=3), "option batch_sise=; did you mean batch_size=?"),
        (lambda: search(FAMILY, batch_size="many"), "batch_size= takes a whole number, got 'many'"),
        (lambda: search(FAMILY, preset="tinny"), "did you mean tiny?"),
        (lambda: search(FAMILY, resume="run"), "the same call goes on with its run"),
        (lambda: search(FAMILY, "blobs", test=[1]), "test goes with data in memory"),
        (lambda: train(FAMILY, "nothing"), "unknown genotype 'nothing'"),
        (lambda: SearchResult.from_run(FAMILY, "nowhere"), "nowhere is not a run"),
        (lambda: search("gcn", "shapes"), "the family is 'gcn'; give FAMILY of sgas_gcn.family"),
        (lambda: sgas_gcn.search("gcn"), "unknown data set 'gcn'.*or give the path of a folder"),
        (
            lambda: sgas_gcn.search(DataLoader(Clouds(4), 2)),
            "the data set is a DataLoader, which gives batches: give its .dataset",
        ),
        (
            lambda: sgas_cnn.search({"x": torch.ones(2, 3), "y": torch.ones(2)}),
            "the data set is a dict of 'x', 'y': give a pair of arrays, .images, labels.",
        ),
        (lambda: sgas_gcn.search(hetero), "is a HeteroData.*give its to_homogeneous"),
        (lambda: sgas_gcn.search([hetero], test=[hetero]), "is a HeteroData"),
        (lambda: sgas_gcn.train(3), "the genotype is of type int; give what a search returned"),
        (lambda: sgas_gcn.search("shapes", chanels=3), "option chanels=; did you mean channels=?"),
        (lambda: sgas_gcn.search("shapes", feature_dropout=0.1), "unknown option feature_dropout="),
    ],
)
def test_bad_input_is_told_in_one_sentence(here: Path, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", ".")) as raised:
        call()
    assert "\n" not in str(raised.value) and list(here.iterdir()) == []


class Clouds(Dataset):
    classes = ("ball", "rod")

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        draw = torch.Generator().manual_seed(number)
        points = torch.randn(32, 3, generator=draw)
        return points * torch.tensor([1.0, 1.0, 1 + 4.0 * (number % 2)]), number % 2


SMALL_POINTS = {"num_points": 16, "k": 2, "channels": 4, "emb_dims": 8, "batch_size": 4}


def test_clouds_in_memory_become_a_folder_that_the_command_line_opens(cli: Cli) -> None:
    mine = {"preset": "demo", **SMALL_POINTS, **QUICK}
    searched = search(GRAPHS, Clouds(24), test=Clouds(8), **mine)
    trained = train(GRAPHS, searched, preset="demo", epochs=1, **SMALL_POINTS)
    assert trained.evaluate()["samples"] == 8
    (folder,) = Path("data/own").iterdir()
    assert folder.name.startswith("clouds-")
    assert "ball" in cli("check", str(folder), family=GRAPHS).out
    search(GRAPHS, Clouds(24), test=Clouds(8), strategy="random", **mine)
    assert list(Path("data/own").iterdir()) == [folder]  # equal data is kept once


class Swapped(Dataset):
    """Another data set's samples with labels of its own."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        points, label = self.dataset[number]
        return points, 1 - label


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        (Subset(Subset(Clouds(60), range(40)), range(24)), True),
        (Swapped(Clouds(60)), False),
        (Subset(Clouds(60), range(0, 60, 2)), False),  # some of the classes
    ],
)
def test_a_part_has_the_names_of_its_classes_and_other_labels_none(
    dataset: Any, named: bool
) -> None:
    arrays = np.load(keep_own(dataset, None, "data", "auto") / "train.npz")
    assert ("classes" in arrays) is named and len(arrays["label"]) == len(dataset)
    assert not named or arrays["classes"].tolist() == ["ball", "rod"]


def test_one_sample_is_no_batch(here: Path) -> None:
    one = torch.randn(1, 32, 3), torch.zeros(1, dtype=torch.int64)
    name = "cri2-modelnet-best"
    options = {"preset": "demo", "epochs": 1, "validation_fraction": 0.0, **SMALL_POINTS}
    with pytest.raises(DataError, match="training part has 1 sample; training takes at least 2"):
        train(GRAPHS, GRAPHS.load_published(name), one, **options)
    assert not (here / "runs").exists()


@pytest.mark.parametrize("form", ["float tensors", "bytes", "pair of arrays"])
def test_images_in_memory_keep_their_values(form: str) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (12, 8, 9, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    dataset: Any = (images, labels)
    if form == "float tensors":
        tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        dataset = TensorDataset(tensors, torch.from_numpy(labels))
    elif form == "bytes":
        dataset = list(zip(images, labels.tolist(), strict=True))
    folder = IMAGES.keep_own(dataset, dataset, "data", "auto")
    for split in ("train", "test"):
        arrays = load_images(str(folder), split, "data", 0)
        assert np.array_equal(arrays.inputs, images) and np.array_equal(arrays.labels, labels)


def graph(nodes: int, **more: Any) -> Data:
    x = torch.arange(nodes * 2).view(nodes, 2).float()
    around = torch.arange(nodes)
    there = torch.stack([around, (around + 1) % nodes])
    edges = torch.cat([there, there.flip(0)], dim=1)
    return Data(x=x, edge_index=edges, y=around % 3, **more)


def test_graphs_in_memory_keep_nodes_edges_and_splits() -> None:
    folder = GRAPHS.keep_own([graph(6), graph(9), graph(5)], [graph(7)], "data", "auto")
    split = load_graphs(str(folder), "train", "data", 0)
    assert [len(one.x) for one in split.graphs] == [6, 9, 5] and not split.multi_label
    assert split.graphs[1].edges.tolist() == graph(9).edge_index.tolist()
    assert split.graphs[1].targets.tolist() == graph(9).y.tolist()
    (test,) = load_graphs(str(folder), "test", "data", 0).graphs
    assert test.x.tolist() == graph(7).x.tolist()


def test_one_graph_in_memory_keeps_its_masks() -> None:
    masks = {
        name: torch.isin(torch.arange(30) // 3 % 3, torch.tensor(number))
        for number, name in enumerate(("train_mask", "val_mask", "test_mask"))
    }
    folder = GRAPHS.keep_own(graph(30, **masks), None, "data", "auto")
    for number, split in enumerate(("train", "val", "test")):
        (part,) = load_graphs(str(folder), split, "data", 0).graphs
        assert part.nodes is not None
        assert part.nodes.tolist() == [n for n in range(30) if n // 3 % 3 == number]
        assert part.edges.tolist() == graph(30).edge_index.tolist()


def test_pygs_clouds_are_clouds() -> None:
    clouds = [Data(pos=torch.full((4, 3), float(n)), y=torch.tensor([n % 2])) for n in range(8)]
    folder = GRAPHS.keep_own(clouds, None, "data", "auto")
    arrays = load_points(str(folder), "train", "data", None, 0)
    assert arrays.inputs[:, 0, 0].tolist() == list(range(8))
    assert arrays.labels.tolist() == [0, 1] * 4


points = np.zeros((4, 5, 3), np.float32)
soft = Data(x=torch.ones(30, 2), edge_index=torch.ones(2, 9).long(), y=torch.full((30, 3), 0.4))
huge = torch.sparse_coo_tensor(torch.ones(2, 1).long(), torch.ones(1), (30, 10**12))


@pytest.mark.parametrize(
    ("family", "dataset", "told"),
    [
        (GRAPHS, [], "the data set is empty"),
        (GRAPHS, 3, "the data set is int, which has no length"),
        (GRAPHS, [points[0]], "item 0 of the data set is ndarray"),
        (GRAPHS, [(points[0], 0.5)], "label is float64; write integers"),
        (GRAPHS, [(points[0], 0), (points[0], "a")], "label 1 is 'a', label 0 0: give all in one"),
        (GRAPHS, [(points[0], {"boxes": 1})], "label 0 is a dict of boxes: boxes and masks"),
        (GRAPHS, [([[1, 2], [3]], 0)], "a list of parts of different sizes is no array"),
        (GRAPHS, [soft] * 9, "the labels of node 0 are not all 0 or 1 .270 such nodes., the first"),
        (GRAPHS, soft, "not all 0 or 1"),
        (GRAPHS, Data(x=soft.x, edge_index=soft.edge_index.t(), y=soft.y), "give edge_index.t()"),
        (
            GRAPHS,
            Data(x=soft.x, edge_index=soft.edge_index, y=torch.ones(1)),
            "and one label: give",
        ),
        (
            GRAPHS,
            Data(x=huge, edge_index=soft.edge_index, y=soft.y),
            "sparse .* would take .* dense",
        ),
        (GRAPHS, TemporalData(src=torch.ones(3)), "temporal graphs are not supported"),
        (GRAPHS, (points, np.zeros(3, int)), r"the clouds have shape \[4, 5, 3\], the labels"),
        (GRAPHS, [(points[0], 0), (points[0, :3], 0)], r"cloud 1 has shape \[3, 3\], cloud 0"),
        (GRAPHS, Data(x=torch.ones(3, 2)), "the graph has no edge_index, y"),
        (IMAGES, [(torch.full((3, 8, 8), 2.0), 0)], "image 0 is float32 from 2 to 2; give uint8"),
    ],
)
def test_data_that_cannot_be_kept_is_one_clear_error(
    here: Path, family: Any, dataset: Any, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        family.keep_own(dataset, None, "data", "auto")
    assert list(here.iterdir()) == []


def test_an_interrupted_call_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TOY_SIGNAL", "SIGTERM@20")
        with pytest.raises(Interrupted, match="go on with: sgas-toy search --resume"):
            search(FAMILY, **QUICK)
    searched = search(FAMILY, **QUICK)
    assert searched.folder == Path("runs/blobs-cri2-0") and is_run(searched.folder)
    whole = search(FAMILY, out="whole", **QUICK)
    assert whole.decisions == searched.decisions


def test_a_result_is_read_from_a_search_alone() -> None:
    trained = train(FAMILY, search(FAMILY, **QUICK), epochs=1)
    with pytest.raises(InputError, match="is a run of sgas-toy train"):
        SearchResult.from_run(FAMILY, trained.folder)
    with pytest.raises(ConfigError, match="was begun with other options"):
        train(FAMILY, trained.genotype, epochs=2, out=str(trained.folder))


def test_data_of_any_type_is_kept_with_what_is_not_used(here: Path) -> None:
    graphs = [graph(5), graph(6), graph(7)]
    for number, one in enumerate(graphs):
        one.y, one.year = torch.tensor([number % 2]), torch.ones(one.num_edges)
        one.x = one.x.to_sparse() if number == 1 else one.x.bfloat16()
    for data in (graphs, Batch.from_data_list([Data(**one.to_dict()) for one in graphs[::2]] * 2)):
        folder = GRAPHS.keep_own(data, None, "data", "auto")
        split = load_graphs(str(folder), "train", "data", 0)
        assert split.per_graph and split.graphs[0].targets.tolist() == [0]
        assert split.graphs[0].x.tolist() == graph(5).x.tolist()
        assert "not used: year" in split.remarks
    chain = torch.sparse_coo_tensor([[1, 2], [0, 1]], torch.ones(2), (3, 3))
    folder = GRAPHS.keep_own(
        Data(x=torch.ones(3, 2), adj_t=chain, y=torch.arange(3)), None, "data", "auto"
    )
    file, problems = read_graph_file(folder / "graph.npz", GraphDataConfig())
    assert file is not None and not problems
    assert file.edge.tolist() == [[0, 1], [1, 2]]  # adj_t has targets first


class Drawn(Clouds):
    def __getitem__(self, number: int) -> Any:
        points, label = super().__getitem__(number)
        return points[torch.randperm(32)], ["ball", "rod"][label], "more"


def test_items_that_differ_from_reading_to_reading_are_told() -> None:
    folder = GRAPHS.keep_own(Drawn(8), None, "data", "auto")
    arrays = load_points(str(folder), "train", "data", None, 0)
    assert arrays.remarks[:2] == (
        "not used: parts 3 to 3 of each item",
        "an item differs from one reading to the next: what was read first is kept",
    )
    assert arrays.classes == ("ball", "rod")


def test_clouds_far_from_the_origin_are_centred_before_they_are_rounded() -> None:
    draw = np.random.default_rng(0)
    near = draw.standard_normal((6, 32, 3))
    near -= near.mean(axis=1, keepdims=True)
    far = near + np.array([539719.0, 4065740.0, 120.0])
    far[0] = near[0] + 1
    folder = GRAPHS.keep_own((far, np.arange(6) % 2), None, "data", "auto")
    arrays = load_points(str(folder), "train", "data", None, 0)
    np.testing.assert_allclose(arrays.inputs[1:], near[1:], atol=1e-6)
    np.testing.assert_array_equal(arrays.inputs[0], far[0].astype(np.float32))
    assert "5 clouds far from the origin are centred" in arrays.remarks
    told = " ".join(GRAPHS.check_folder(str(folder), "auto")["warnings"])
    assert "5 clouds lie up to 4.101e+06 from the origin" in told
    taken = CloudPreparation(3, 32, 2, "chosen", 0).read(far, RunConfig(), None).items
    np.testing.assert_array_equal(torch.stack([*taken]), arrays.inputs)


def test_a_run_and_its_data_may_be_moved(here: Path, cli: Cli) -> None:
    draw = np.random.default_rng(0)
    Path("data").mkdir()
    for split in ("train", "test"):
        images = draw.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
        np.savez(f"data/{split}.npz", image=images, label=np.arange(24) % 2)
    mine = {"preset": "demo", "channels": 2, "num_cells": 3, "batch_size": 8, "quiet": True}
    trained = sgas_cnn.train("cri1-cifar-1", "./data", epochs=1, out="old", **mine)
    figures = dict(trained.history[-1])
    Path("new").mkdir()
    for name in ("data", "old"):
        Path(name).rename(Path("new") / name)
    gone = cli("evaluate", "new/old", family=IMAGES)
    assert gone.status == 2 and "say where they are by --dataset" in gone.err
    again = cli("train", "--resume", "new/old", "--dataset", "new/data", family=IMAGES)
    assert again.status == 0, again.err
    assert sgas_cnn.load("new/old").history[-1]["train_loss"] == figures["train_loss"]
    with np.load("new/data/train.npz") as arrays:
        np.savez("new/data/train.npz", image=255 - arrays["image"], label=arrays["label"])
    with pytest.raises(DataError, match="the training data are not those of new/old"):
        sgas_cnn.evaluate("new/old", dataset="new/data")
    with np.load("new/data/train.npz") as arrays:
        np.savez("new/data/train.npz", image=255 - arrays["image"], label=arrays["label"])
    assert sgas_cnn.evaluate("new/old", dataset="new/data")["samples"] == 24
