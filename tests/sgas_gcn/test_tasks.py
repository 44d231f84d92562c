"""Every task: labels of graphs, numbers at every level, many labels; search, train, predict."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from processes import Cli
from sampling import some
from torch import nn
from torch_geometric.data import Data

import sgas_cnn
import sgas_gcn
from sgas.cells.genotype import CellGene, EdgeGene
from sgas.commands.sweep import _asked
from sgas.config import NUMBERS, RunConfig, rebuild
from sgas.errors import DataError, InputError
from sgas.labels import ClassOfPoints, Numbers, OneClass, kept, labels_of, restored
from sgas_gcn.config import (
    GraphDataConfig,
    GraphModelConfig,
    PointDataConfig,
    PointModelConfig,
)
from sgas_gcn.datasets.graphs import load_graphs
from sgas_gcn.family import default_preset
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import models
from sgas_gcn.pooling import pool_graphs
from sgas_gcn.published import load_published
from sgas_gcn.task import open_task

CPU = torch.device("cpu")
QUICK: dict[str, Any] = {"preset": "demo", "quiet": True, "kernels": "torch", "channels": 4}
SEARCH = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0, "strategy": "random"}


def graphs(count: int, kind: str) -> list[Data]:
    """Rings with chords: what is to be predicted follows from the number of chords."""
    made = []
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        size, chords = 6 + number % 5, 5 * (number % 2)
        ring = torch.stack([torch.arange(size), (torch.arange(size) + 1) % size])
        edges = torch.cat([ring, torch.randint(size, (2, chords), generator=draw)], dim=1)
        degree = torch.bincount(edges.flatten(), minlength=size).float()
        y: Any = {"class": chords // 5, "labels": [[chords > 0, size > 8]]}.get(kind, chords / 2)
        x = torch.stack([degree, torch.rand(size, generator=draw)], dim=1)
        both = torch.cat([edges, edges.flip(0)], dim=1)
        made.append(Data(x=x, edge_index=both, y=torch.tensor(y)))
    return made


# Kinds of targets of graphs, and the figure that a trained network has.
KINDS = {"class": "accuracy", "labels": "micro_f1", "numbers": "r2"}


@pytest.mark.parametrize("kind", some(KINDS, "labels"))
def test_a_cell_is_searched_for_whole_graphs(here: Path, cli: Cli, kind: str) -> None:
    target: dict[str, Any] = {"target": NUMBERS} if kind == NUMBERS else {}
    data = {"test_fraction": 0.2, **target}
    searched = sgas_gcn.search(graphs(60, kind), batch_size=8, **QUICK, **SEARCH, **data)
    trained = sgas_gcn.train(searched, epochs=12, num_cells=1, batch_size=8, **QUICK)
    assert trained.config["data"]["test_fraction"] == 0.2
    figures = trained.evaluate()
    assert figures["samples"] == 12 and figures[KINDS[kind]] > 0.8
    asked = graphs(7, kind)
    found = trained.predict(asked)
    if kind == NUMBERS:
        assert found.shape == (7, 1) and figures["mae"] < figures["rmse"] < 1.25
        np.testing.assert_allclose(found[:, 0], [one.y for one in asked], atol=1.2)
        with pytest.raises(InputError, match="numbers have no probabilities"):
            trained.predict_proba(asked)
    else:
        assert len(found) == 7 and trained.predict_proba(asked).shape == (7, 2)
        assert (found[1] == trained.predict(asked[1])).all()
    own = trained.config["run"]["dataset"]
    assert default_preset(own, "graph") == "graphs"
    rows = cli("predict", str(trained.folder), own, "--out", "p.csv", family=sgas_gcn.family.FAMILY)
    assert rows.status == 0 and len(Path("p.csv").read_text().splitlines()) == 13
    assert trained.export("net.py").to_plain == 0


def bonds(count: int, seed: int = 0) -> list[Data]:
    """Rings of nodes of two kinds, whose label says from which of them marked edges come."""
    made = []
    for number in range(seed, seed + count):
        draw = torch.Generator().manual_seed(number)
        size, label = 8 + number % 5, number % 2
        ring = torch.stack([torch.arange(size), (torch.arange(size) + 1) % size])
        kind = torch.randint(2, (size,), generator=draw)
        edges = torch.cat([ring, ring.flip(0)], dim=1)
        mark = (kind[edges[0]] == label).float()
        x, attr = nn.functional.one_hot(kind, 2).float(), torch.stack([mark, 1 - mark], 1)
        made.append(Data(x=x, edge_index=edges, edge_attr=attr, y=label))
    return made


@pytest.mark.parametrize("op", ["gat", "gin"])
def test_attributes_of_edges_are_learnt_from(here: Path, op: str) -> None:
    edges = tuple(EdgeGene(op, source) for source in (0, 1, 0, 2))
    cell = msgspec.structs.replace(
        load_published("cri2-ppi-best"), cells={"normal": CellGene(edges, (2, 3))}
    )
    options: Any = {**QUICK, "batch_size": 8, "num_cells": 1, "test_fraction": 0.2, "channels": 8}
    trained = sgas_gcn.train(cell, bonds(80), epochs=30, **options)
    assert trained.evaluate()["accuracy"] > 0.8
    asked = bonds(5, 200)
    answers = trained.predict_proba(asked)
    assert not np.allclose(answers[0], answers[1], atol=0.1)
    assert (trained.predict(asked[:1]) == answers[:1].argmax(1)).all()
    for graph in asked:
        graph.edge_attr = None
    with pytest.raises(DataError, match="have 0 attributes; the network takes 2"):
        trained.predict(asked)
    lone = Data(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0).long(), y=0)
    bare = lone.clone()
    bare.edge_attr = torch.zeros(0, 2)
    assert (trained.predict_proba([lone])[0] == trained.predict_proba([bare])[0]).all()
    both = sgas_gcn.train(cell, [*bonds(40), lone, bare], epochs=1, **options)
    assert both.config["dimensions"]["edge_channels"] == 2
    for wrong in (torch.zeros(9, 0), torch.zeros(4)):
        lone.edge_index, lone.edge_attr = torch.zeros(2, 9).long(), wrong
        with pytest.raises(DataError, match=r"0 attributes; the network takes 2|a row each"):
            trained.predict([lone])
    without = sgas_gcn.train(cell, bonds(80), epochs=1, edge_attributes=False, **options)
    assert "edge_channels" not in without.config["dimensions"] and len(without.predict(asked)) == 5
    own = load_graphs(without.config["run"]["dataset"], "train", "data", 0,
                      GraphDataConfig(edge_attributes=False))  # fmt: skip
    assert "not used: edge_attr" in own.remarks
    path = Path(without.folder, "config.json")
    config = json.loads(path.read_text())
    assert config["data"].pop("edge_attributes") is False
    assert rebuild(GraphDataConfig, config["data"], "") == GraphDataConfig(
        **config["data"], edge_attributes=False
    )  # as of runs from before there were any


def test_files_of_graphs_without_labels_are_read_as_those_with(here: Path) -> None:
    cell, draw = load_published("cri2-ppi-best"), np.random.default_rng(0)
    edge = draw.integers(0, 30, (50, 2))
    of_edges = {"edge": edge, "edge_attr": edge.sum(1, keepdims=True) % 5}
    x = draw.normal(size=(30, 3))
    np.savez("own.npz", x=x, label=np.arange(30) % 2, **of_edges)
    options: Any = {"epochs": 1, "num_cells": 1, **QUICK}
    trained = sgas_gcn.train(cell, "own.npz", **options)
    (wanted,) = trained.predict_proba("own.npz")
    asked = load_graphs("own.npz", "test", "data", 0).graphs[0].nodes
    twice = {name: np.concatenate([array, array]) for name, array in of_edges.items()}
    for own in (of_edges, twice, {**of_edges, "edge": edge[:, ::-1]}):  # each edge counts once
        np.savez("new.npz", x=x, **own)
        np.testing.assert_allclose(trained.predict_proba("new.npz")[asked], wanted, rtol=1e-4)
    for wrong in (np.ones((49, 1)), np.ones(())):
        np.savez("wrong.npz", x=x, edge=edge, edge_attr=wrong)
        with pytest.raises(DataError, match=r"edge_attr has shape \[.*\] for 50 edges: a row each"):
            trained.predict("wrong.npz")
    other = sgas_gcn.train(cell, "own.npz", edge_attributes=False, **options)
    assert len(other.predict("new.npz")) == 30


def test_other_spaces_and_heads_of_nodes_refuse_graphs() -> None:
    with pytest.raises(InputError, match="nasbenchgraph labels nodes, and these labels are of"):
        sgas_gcn.search(graphs(20, "class"), space="nasbenchgraph", quiet=True)
    cell = load_published("cri2-ppi-best")
    with pytest.raises(InputError, match="auxiliary"):
        sgas_gcn.train(cell, graphs(20, "class"), auxiliary=True, **QUICK)


def test_graphs_are_pooled_each_by_itself_and_answered_alike_in_any_batch() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = []
    for size in (3, 1, 5):
        x, edges = torch.rand(size, 4, generator=draw), torch.randint(size, (2, 6), generator=draw)
        parts.append(GraphBatch.of_graph(x, edges))
    joined = GraphBatch.join(parts)
    wanted = [torch.cat([p.x.mean(0), p.x.amax(0), p.x.sum(0)]) for p in parts]
    pooled = pool_graphs(joined.x, joined.graph_of_node, len(parts))
    torch.testing.assert_close(pooled, torch.stack(wanted))
    sizes = {"in_channels": 4, "num_outputs": 3, "per_graph": 1}
    made = models(GraphModelConfig(channels=4, num_cells=2), sizes)
    network = made.build_network(load_published("cri2-ppi-best"), False).eval()
    each = torch.cat([network(part) for part in parts])
    torch.testing.assert_close(network(joined), each, atol=1e-5, rtol=1e-4)


def test_nodes_clouds_and_images_have_numbers(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    size = np.tile([0.5, 1.0, 2.0, 3.0], 12)
    cloud = draw.standard_normal((48, 32, 3)) * size[:, None, None]
    image = (60 * size[:, None, None, None] + draw.integers(0, 9, (48, 8, 8, 1))).astype(np.uint8)
    edges = torch.randint(48, (2, 90))
    graph = Data(x=torch.from_numpy(size)[:, None].float(), edge_index=edges, y=torch.tensor(size))
    small = {"num_points": 16, "k": 2, "emb_dims": 8, "scale": 1.0, "shift": 0.0}
    for package, data, own in (
        (sgas_gcn, graph, {"num_cells": 1}),
        (sgas_gcn, (cloud, size), {**small, "num_cells": 1}),
        (sgas_cnn, (image, size), {"num_cells": 3}),
    ):
        cell = "cri1-cifar-1" if package is sgas_cnn else "cri2-ppi-best"
        cell = "cri2-modelnet-best" if "k" in own else cell
        options: Any = {"target": NUMBERS, "epochs": 20, "batch_size": 8, "learning_rate": 0.02}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        trained = package.train(cell, data, out=str(folder), **own, **options, **QUICK)
        line = trained.history[-1]
        assert line["validation_r2"] > 0.3 and line["validation_mae"] < 0.8, (package, line)
        assert trained.predict(data if data is graph else data[0])[0].shape[-1:] == (1,)


def parts_of_clouds(count: int, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of a flat disc (0) below a rod (1), which are told by z beside the cloud's middle."""
    draw = np.random.default_rng(seed)
    part = draw.integers(0, 2, (count, points))
    flat, tall = draw.normal(size=(2, count, points, 3))
    xyz = np.where(part[..., None] == 1, tall * [0.1, 0.1, 1] + [0, 0, 3], flat * [1, 1, 0.1])
    return xyz + draw.normal(size=(count, 1, 3)), part


SMALL: dict[str, Any] = {"num_points": 24, "k": 4, "emb_dims": 16, "batch_size": 8, **QUICK}


def test_the_points_of_clouds_are_labelled(here: Path, cli: Cli) -> None:
    xyz, part = parts_of_clouds(48, 30, 0)
    label = np.where(np.arange(30) < 2, -1, part)  # unknown
    data = {"test_fraction": 0.25, "num_cells": 1, **SMALL}
    searched = sgas_gcn.search((xyz, label), **SEARCH, **data)
    trained = sgas_gcn.train(searched, epochs=12, learning_rate=0.05, **data)
    figures = trained.evaluate()
    assert figures["samples"] == 12 and figures["mean_iou"] > 0.85
    assert figures["mean_iou"] <= figures["accuracy"]
    for points in (20, 24, 100):  # fewer than in training, as many, and several parts of it
        asked, truth = parts_of_clouds(3, points, points)
        found = trained.predict(asked)
        assert [len(each) for each in found] == [points] * 3
        assert (np.stack(found) == truth).mean() > 0.9
        assert trained.predict_proba(asked[0]).shape == (points, 2)
    own = trained.config["run"]["dataset"]
    family = sgas_gcn.family.FAMILY
    content = family.check_folder(own, "auto")
    assert content["labels_of"] == "points" and not content["problems"]
    assert [c["train"] for c in content["classes"]] == [int((label == c).sum()) for c in (0, 1)]
    rows = cli("predict", str(trained.folder), own, "--out", "p.csv", family=family)
    with open("p.csv") as file:
        lines = list(csv.DictReader(file))
    assert rows.status == 0 and len(lines) == 12 * 24
    drawn = [
        int(line["point"]) for line in lines[:24]
    ]  # numbers in the data, of which 24 are taken
    assert drawn == sorted(set(drawn)) and drawn[-1] < 30
    known = [line for line in lines if line["true"]]
    accuracy = np.mean([line["true"] == line["predicted"] for line in known])
    assert len(known) < len(lines) and accuracy == pytest.approx(figures["accuracy"], abs=1e-6)
    page = (trained.folder / "report.html").read_text()
    assert "IoU" in page and f"{len(known):,} points" in page
    trained.export("net.py")
    with pytest.raises(InputError, match="does not predict one class a sample"):
        sgas_gcn.PointCloudClassifier.from_run(trained)
    with pytest.raises(InputError, match=r"labels of points.*search and train"):
        sgas_gcn.PointCloudClassifier().fit(xyz, label)
    with pytest.raises(InputError, match="auxiliary"):
        sgas_gcn.train(searched, epochs=1, auxiliary=True, **data)


def test_points_keep_their_labels_where_they_are_drawn_or_augmented(tmp_path: Path) -> None:
    xyz = np.random.default_rng(0).normal(size=(6, 20, 3))
    names = np.where(xyz[..., 0] > 0, "right", "left")
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", points=xyz, label=names)
    options = PointDataConfig(resample=True)
    task = open_task(RunConfig(dataset=str(tmp_path)), PointModelConfig(num_points=8, k=2), options)
    assert task.classes == ("left", "right")
    for part in (task.training_part(CPU), task.test_part(CPU)):
        for generator in (None, torch.Generator().manual_seed(0)):
            clouds, targets = part.batch(torch.tensor([4, 1]), generator)
            moved = clouds[..., 0] - torch.from_numpy(xyz[[4, 1], :, 0].mean(1, keepdims=True))
            assert targets.shape == (16,) and clouds.shape == (2, 8, 3)
            if generator is None:
                assert torch.equal(clouds[..., 0].flatten() > 0, targets == 1)
            else:  # scaled and shifted along x: still in the same order
                low, high = (moved.flatten()[targets == c].view(-1) for c in (0, 1))
                assert len(low) + len(high) == 16
    points = task.test_part(CPU).row_names(2)
    assert len(points) == 8 and all(name[0] == "2" for name in points)


def test_intersection_over_union_is_that_of_its_definition() -> None:
    labels = ClassOfPoints()
    truth, guess = torch.tensor([0, 0, 1, 2, 2, -1]), torch.tensor([0, 1, 1, 2, 0, 1])
    wanted = {"mean_iou": (1 / 3 + 1 / 2 + 1 / 2) / 3, "accuracy": 3 / 5}
    figures = labels.metrics(guess, truth)
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(labels.loss(logits, truth), OneClass().loss(logits[:5], truth[:5]))
    assert labels.loss(logits, torch.full((6,), -1)) == 0
    assert isinstance(restored(kept(labels)), ClassOfPoints)


def test_figures_of_numbers_are_in_the_users_units() -> None:
    truth = np.array([[10.0], [20.0], [40.0]], np.float32)
    labels = restored(kept(labels_of([truth], measure="mae")))
    assert isinstance(labels, Numbers)
    logits = (torch.tensor([[11.0], [20.0], [37.0]]) - labels.mean[0]) / labels.std[0]
    found = labels.predictions(logits)
    figures = labels.metrics(found, torch.from_numpy(truth))
    assert figures["mae"] == pytest.approx(4 / 3, 1e-5)
    assert figures["rmse"] == pytest.approx((10 / 3) ** 0.5, 1e-5)
    assert figures["r2"] == pytest.approx(1 - 10 / np.square(truth - truth.mean()).sum(), 1e-5)
    for measure, power in (("mse", 2), ("mae", 1)):
        loss = labels_of([truth], measure=measure).loss(logits, torch.from_numpy(truth))
        off = np.array([1, 0, 3]) / labels.std[0]
        assert float(loss) == pytest.approx((off**power).mean(), 1e-5)


def test_predictions_read_the_weights_of_edges_as_trainings_do(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    x, edges = torch.rand(60, 1, generator=draw), torch.randint(60, (2, 300), generator=draw)
    weights = torch.rand(300, generator=draw).round()  # half of the neighbours are not looked at
    graph = Data(x=x, edge_index=edges, edge_weight=weights, y=torch.arange(60) % 2)
    options = {"epochs": 4, "num_cells": 1, "out": str(tmp_path / "run"), "data_root": tmp_path}
    trained = sgas_gcn.train("cri2-ppi-best", graph, **{**QUICK, **options})
    found, answers = trained.predict_proba(graph), trained.answers(trained.config["run"]["dataset"])
    wanted = answers.collected(answers.labels.probabilities)[0]
    np.testing.assert_allclose(found[answers.samples.rows[0]], wanted, atol=1e-6)
    graph.edge_weight = 1 - weights
    assert abs(trained.predict_proba(graph) - found).max() > 1e-3
    graph.edge_weight = -weights
    with pytest.raises(InputError, match=r"edge_weight of graph 0 has shape.*0 or more"):
        trained.predict(graph)


def test_graphs_without_features_have_degrees_in_training_and_after(tmp_path: Path) -> None:
    bare = [
        Data(edge_index=g.edge_index, y=g.y, num_nodes=g.num_nodes) for g in graphs(40, "class")
    ]
    cell, options = "cri2-ppi-best", {"epochs": 8, "num_cells": 1, "batch_size": 8, **QUICK}
    trained = sgas_gcn.train(cell, bare, out=str(tmp_path / "run"), **options)
    own = load_graphs(trained.config["run"]["dataset"], "train", tmp_path, 0).graphs
    items = trained._inputs[1].read(bare, RunConfig(), GraphDataConfig()).items
    assert all((item.x.numpy() == graph.x).all() for item, graph in zip(items, own, strict=True))
    assert (trained.predict(bare) == [int(one.y) for one in bare]).mean() > 0.8


def test_the_trainings_of_a_sweep_take_what_own_data_are_from_its_searches(tmp_path: Path) -> None:
    folder = sgas_gcn.family.FAMILY.keep_own(graphs(12, "numbers"), None, str(tmp_path), "numbers")
    words = [
        "--dataset",
        str(folder),
        "--search.target",
        "numbers",
        "--search.test_fraction",
        "0.2",
    ]
    asked = _asked(sgas_gcn.family.FAMILY, words)
    assert asked.train.data.target == "numbers" and asked.train.data.test_fraction == 0.2
    other = _asked(sgas_gcn.family.FAMILY, [*words, "--train.test_fraction", "0.3"])
    assert other.train.data.test_fraction == 0.3 and "target" in (other.train.asked or ())
