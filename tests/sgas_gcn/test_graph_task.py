"""GraphTask: what each protocol may see, batches of whole graphs, and a search from end to end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_family import QUICK

from sgas.config import RunConfig, SearchConfig, TrainConfig
from sgas.data import SubsetSource
from sgas.errors import DataError
from sgas.protocols import TrainParts, search_parts, train_parts
from sgas.running.loop import Loop, measure, run_network
from sgas.running.runs import Run
from sgas.running.search import Search
from sgas.running.train import Training
from sgas_gcn.config import GraphDataConfig, GraphModelConfig
from sgas_gcn.datasets import graphs
from sgas_gcn.datasets.graph_arrays import GraphArrays, GraphSplit
from sgas_gcn.datasets.graphs import GraphEntry
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.graph_task import GraphSource, GraphTask, models
from sgas_gcn.published import load_published

CPU = torch.device("cpu")
CELL = "cri2-ppi-best"
MODEL = GraphModelConfig(channels=4)


def task(dataset: str, feature_dropout: float = 0.0) -> GraphTask:
    data = GraphDataConfig(feature_dropout=feature_dropout)
    return GraphTask(dataset, MODEL, data, RunConfig(dataset=dataset))


def random_graph(number: int, nodes: np.ndarray | None, multi_label: bool) -> GraphArrays:
    """A graph of 8 nodes or more, whose first feature is its number."""
    generator = np.random.default_rng(number)
    size = 8 + number % 3
    x = generator.standard_normal((size, 5)).astype(np.float32)
    x[:, 0] = number
    count = size if nodes is None else len(nodes)
    classes = np.arange(count) % 3
    targets = generator.random((count, 4)) < 0.4 if multi_label else classes
    return GraphArrays(x, generator.integers(0, size, (2, 20)), targets, nodes)


class Shelf:
    """Splits of made-up graphs that note which of them were opened."""

    def __init__(self, counts: dict[str, int], multi_label: bool = True) -> None:
        self.counts, self.multi_label, self.opened = counts, multi_label, set[str]()

    def __call__(self, split: str, data_root: Path, seed: int) -> GraphSplit:
        self.opened.add(split)
        first = 100 * list(self.counts).index(split)
        numbers = range(first, first + self.counts[split])
        made = tuple(random_graph(number, None, self.multi_label) for number in numbers)
        return GraphSplit(made, tuple("abcd" if self.multi_label else "abc"), self.multi_label)


class OneGraph(Shelf):
    """One graph of 60 nodes, whose nodes are split."""

    def __call__(self, split: str, data_root: Path, seed: int) -> GraphSplit:
        self.opened.add(split)
        first = sum(list(self.counts.values())[: list(self.counts).index(split)])
        nodes = np.arange(first, first + self.counts[split])
        generator = np.random.default_rng(0)
        x = generator.standard_normal((60, 5)).astype(np.float32)
        graph = GraphArrays(x, generator.integers(0, 60, (2, 200)), nodes % 3, nodes)
        made = (graph,) if len(nodes) else ()
        return GraphSplit(made, tuple("abc"), self.multi_label, transductive=True)


def put(monkeypatch: pytest.MonkeyPatch, shelf: Any) -> None:
    """Makes `shelf` the data set `made-up`."""
    monkeypatch.setitem(graphs.GRAPH_DATASETS, "made-up", GraphEntry("made-up", "", shelf))


def graph_numbers(part: Any) -> list[int]:
    """The numbers of the graphs of a part, told by their first feature."""
    found = []
    for number in range(len(part)):
        batch, _ = part.batch(torch.tensor([number]), None)
        found.append(int(batch.x[0, 0]))
    return found


def test_protocol_clean_splits_the_training_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf({"train": 7, "val": 2, "test": 3})
    put(monkeypatch, shelf)
    parts = search_parts(task("made-up"), "clean", 0, 0.1, CPU)
    weights, alphas = graph_numbers(parts.weights), graph_numbers(parts.alphas)
    assert sorted(weights + alphas) == list(range(7)) and {len(weights), len(alphas)} == {3, 4}
    assert graph_numbers(parts.validation) == [100, 101]
    assert shelf.opened == {"train", "val"}
    assert "graphs for weights/alphas/validation" in parts.label
    again = search_parts(task("made-up"), "clean", 0, 0.1, CPU)
    other = search_parts(task("made-up"), "clean", 1, 0.1, CPU)
    assert graph_numbers(again.weights) == weights != graph_numbers(other.weights)


def test_without_validation_graphs_a_part_of_training_validates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(monkeypatch, Shelf({"train": 10, "val": 0, "test": 1}))
    parts = search_parts(task("made-up"), "clean", 0, 0.2, CPU)
    found = [graph_numbers(p) for p in (parts.weights, parts.alphas, parts.validation)]
    assert [len(numbers) for numbers in found] == [4, 4, 2]
    assert sorted(number for numbers in found for number in numbers) == list(range(10))
    training = train_parts(task("made-up"), "clean", 0, 0.2, CPU)
    assert (len(training.training), len(training.measured["validation"])) == (8, 2)
    assert train_parts(task("made-up"), "clean", 0, 0.0, CPU).measured == {}
    with pytest.raises(DataError, match="no validation split, which protocol paper"):
        search_parts(task("made-up"), "paper", 0, 0.2, CPU)
    put(monkeypatch, Shelf({"train": 2, "val": 0, "test": 1}))
    with pytest.raises(DataError, match="has 2 training graphs; splitting them takes at least 3"):
        search_parts(task("made-up"), "clean", 0, 0.2, CPU)


def test_nodes_of_one_graph_are_split_within_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = OneGraph({"train": 24, "val": 10, "test": 20}, multi_label=False)
    put(monkeypatch, shelf)
    transductive = task("made-up")
    parts = search_parts(transductive, "clean", 0, 0.1, CPU)
    assert len(parts.weights) == len(parts.alphas) == 1  # one graph, one batch
    assert "12/12/10 nodes" in parts.label and "test" not in shelf.opened
    asked = []
    for part in (parts.weights, parts.alphas, parts.validation):
        batch, targets = part.batch(torch.tensor([0]), None)
        assert len(batch.x) == 60 and torch.equal(targets, batch.asked_nodes % 3)
        asked.append(set(batch.asked_nodes.tolist()))
        logits = transductive.build_supernet()(batch)
        assert logits.shape == (len(targets), 3)
    assert asked[0] | asked[1] == set(range(24)) and not asked[0] & asked[1]
    assert asked[2] == set(range(24, 34))
    counts = torch.bincount(parts.weights.batch(torch.tensor([0]), None)[1])
    assert counts.tolist() == [4, 4, 4]


class SomeAsked(Shelf):
    """Several graphs, of each of which one node has no label."""

    def __call__(self, split: str, data_root: Path, seed: int) -> GraphSplit:
        whole = super().__call__(split, data_root, seed)
        made = []
        for graph in whole.graphs:
            nodes = np.arange(1, len(graph.x))
            made.append(dataclasses.replace(graph, targets=graph.targets[nodes], nodes=nodes))
        return dataclasses.replace(whole, graphs=tuple(made))


@pytest.mark.parametrize("shelf", [OneGraph, Shelf, SomeAsked])
def test_halves_of_the_validation_split_are_disjoint(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, shelf({"train": 24, "val": 12, "test": 20}, multi_label=False))

    def numbers(part: Any) -> set[int]:
        if shelf is not OneGraph:
            return set(graph_numbers(part))
        return set(part.batch(torch.tensor([0]), None)[0].asked_nodes.tolist())

    first = 24 if shelf is OneGraph else 100
    for sees, weights, alphas in (("all", 24, 6), ("first_half", 12, 3), ("second_half", 12, 3)):
        parts = search_parts(task("made-up"), "clean", 0, 0.1, CPU, sees, "validation")
        found = [numbers(part) for part in (parts.weights, parts.alphas, parts.validation)]
        assert [*map(len, found)] == [weights, alphas, 6]
        assert f"{weights}/{alphas}/6 " in parts.label
        assert found[0] <= set(range(24)) and not found[1] & found[2]
        assert found[1] | found[2] <= set(range(first, first + 12))
        if sees == "first_half":
            other = found
    assert not other[0] & found[0] and not other[1] & found[1] and other[2] == found[2]


def test_batches_are_whole_graphs_side_by_side() -> None:
    source = search_parts(task("tissues"), "clean", 0, 0.1, CPU).validation
    assert isinstance(source, GraphSource)
    batch, targets = source.batch(torch.tensor([1, 0]), torch.Generator())
    assert batch.sizes == tuple(len(graph.x) for graph in reversed(source.graphs))
    assert torch.equal(targets, torch.cat([source.targets[1], source.targets[0]]))
    assert torch.equal(batch.x, torch.cat([source.graphs[1].x, source.graphs[0].x]))


def test_feature_dropout_is_for_training_and_keeps_the_mean() -> None:
    source = search_parts(task("tissues", feature_dropout=0.4), "clean", 0, 0.1, CPU).weights
    assert isinstance(source, SubsetSource)
    index = torch.arange(3)
    plain, _ = source.batch(index, None)
    dropped, _ = source.batch(index, torch.Generator().manual_seed(0))
    again, _ = source.batch(index, torch.Generator().manual_seed(0))
    assert torch.equal(dropped.x, again.x)
    kept = dropped.x != 0
    assert abs(kept.float().mean().item() - 0.6) < 0.02
    torch.testing.assert_close(dropped.x[kept], plain.x[kept] / 0.6)


def test_a_graph_of_one_node_cannot_be_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def shelf(split: str, data_root: Path, seed: int) -> GraphSplit:
        one = GraphArrays(np.ones((1, 2), "f4"), np.zeros((2, 0), int), np.ones((1, 2), bool))
        return GraphSplit((one,), ("a", "b"), True)

    put(monkeypatch, shelf)
    with pytest.raises(DataError, match="training graph 0 of made-up has 1 nodes; it takes 2"):
        task("made-up")


def test_test_graphs_have_to_look_like_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def shelf(split: str, data_root: Path, seed: int) -> GraphSplit:
        width = 3 if split == "test" else 2
        x, edges = np.ones((4, width), "f4"), np.zeros((2, 1), int)
        return GraphSplit((GraphArrays(x, edges, np.ones((4, 2), bool)),), ("a", "b"), True)

    put(monkeypatch, shelf)
    with pytest.raises(DataError, match="test graphs have 3 features, training graphs 2"):
        task("made-up").test_part(CPU)


def test_an_example_is_one_graph_of_the_right_width() -> None:
    made = models(MODEL, {"in_channels": 50, "num_outputs": 121})
    network = made.build_network(load_published("cri2-ppi-best"), auxiliary=False).eval()
    assert network(made.example_input()).shape == (2245, 121)


def test_a_search_and_a_training_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, Shelf({"train": 6, "val": 2, "test": 1}))
    made = task("made-up")
    search = SearchConfig(**QUICK, batch_size=1, batch_increase=1)
    parts = search_parts(made, "clean", 0, 0.1, CPU)
    run = Run.create(tmp_path / "search", {"seed": 0})
    searching = Search(made, search, parts=parts, seed=0, device=CPU, notes={})
    Loop(searching, run).execute()
    genotype = searching.genotype()
    genotype.validate(made.space)
    assert [line["batch_size"] for line in run.metrics] == [1, *range(1, 7)]
    assert all(0 <= line["validation_micro_f1"] <= 1 for line in run.metrics)

    run = Run.create(tmp_path / "train", {"seed": 0})
    config = TrainConfig(epochs=2, batch_size=2, auxiliary=True, drop_path=0.5)
    train: TrainParts = train_parts(made, "clean", 0, 0.1, CPU)
    training = Training(made, genotype, config, parts=train, seed=0, device=CPU)
    Loop(training, run).execute()
    network = training.network
    figures = measure(network, made.labels, made.test_part(CPU), 1, CPU)
    assert set(figures) == {"loss", "micro_f1"}
    assert_same_without_batches(network, made.test_part(CPU))


def test_micro_f1_is_that_of_each_graph_weighted_by_its_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(monkeypatch, Shelf({"train": 2, "val": 3, "test": 1}))
    data, run = GraphDataConfig(micro_f1_by="graph"), RunConfig(dataset="made-up")
    made = GraphTask("made-up", MODEL, data, run)
    source, network = made.validation_part(CPU), made.build_network(load_published(CELL), False)
    assert source is not None
    network.eval()
    right, wrong, graphs = [], [], []
    for graph, targets in zip(source.graphs, source.targets, strict=True):
        guess = network(graph) > 0
        right.append(2 * (guess & targets).sum().item())
        wrong.append((guess ^ targets).sum().item())
        graphs.append((len(targets), right[-1] / (right[-1] + wrong[-1])))
    nodes = sum(count for count, _ in graphs)
    by_graph = sum(count * figure for count, figure in graphs) / nodes
    for batch_size in (1, 2):
        figures = measure(network, made.labels, source, batch_size, CPU)
        assert figures["micro_f1"] == pytest.approx(by_graph, abs=1e-12)
        over_nodes = sum(right) / (sum(right) + sum(wrong))
        assert figures["micro_f1_over_nodes"] == pytest.approx(over_nodes, abs=1e-12) != by_graph


def test_rows_are_the_asked_nodes_of_each_graph() -> None:
    x, edges = torch.ones(4, 2), torch.tensor([[0, 1], [1, 0]])
    graphs = [GraphBatch.of_graph(x, edges, torch.tensor(n)) for n in ([0, 2, 3], [1])]
    assert GraphBatch.join(graphs).rows == [3, 1]
    assert GraphBatch.join([GraphBatch.of_graph(x, edges)] * 2).rows == [4, 4]


def assert_same_without_batches(network: Any, source: GraphSource) -> None:
    """Evaluation does not depend on the batch that a graph is in."""
    index: Tensor = torch.arange(len(source))
    network.eval()
    with torch.no_grad():
        together = network(source.batch(index, None)[0])
        alone = torch.cat([network(source.batch(one, None)[0]) for one in index.split(1)])
    torch.testing.assert_close(together, alone)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One graph whose nodes have few of many words, some of them none."""
    draw, path = np.random.default_rng(0), tmp_path_factory.mktemp("words") / "words.npz"
    counts = (draw.random((60, 40)) < 0.05) * draw.integers(1, 4, (60, 40))
    parts = dict(zip(("train", "val", "test"), np.split(np.arange(60), [20, 40]), strict=True))
    edge, label = draw.integers(0, 60, (150, 2)), draw.integers(0, 3, 60)
    np.savez(path, x=counts.astype(np.float32), edge=edge, label=label, **parts)
    return str(path)


def opened(words: str, feature_dropout: float = 0.0, **model: Any) -> GraphTask:
    sizes = GraphModelConfig(**{"channels": 4, "stem": "none", **model})
    data = GraphDataConfig(feature_dropout=feature_dropout)
    return GraphTask(words, sizes, data, RunConfig(dataset=words))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("searched", [False, True])
def test_sparse_features_give_what_dense_ones_do(
    words: str, searched: bool, precision: str
) -> None:
    task = opened(words, row_normalize=True, norms="affine")
    net: Any = task.build_supernet() if searched else task.build_network(load_published(CELL), True)
    batch, targets = task.training_part(CPU).batch(torch.tensor([0]), None)
    assert batch.x.is_sparse and batch.x.to_dense()[0].any()
    found = []
    for x in (batch.x, batch.x.to_dense()):
        net.zero_grad()
        torch.manual_seed(0)
        output = run_network(net, batch.with_features(x), precision, CPU)
        logits = output[0] if isinstance(output, tuple) else output
        task.labels.loss(logits, targets).backward()
        gradients = [p.grad for n, p in net.named_parameters() if n.startswith("cells.0.pre")]
        found.append([logits.detach(), *gradients])
    close = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.1, "atol": 1e-2}
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense, **close)


def test_sparse_features_are_dropped_one_by_one_and_scaled_up(words: str) -> None:
    source = opened(words, feature_dropout=0.5).training_part(CPU)
    whole = source.batch(torch.tensor([0]), None)[0].x.to_dense()
    draw = torch.Generator().manual_seed(0)
    dropped = [source.batch(torch.tensor([0]), draw)[0].x.to_dense() for _ in range(400)]
    assert all(set((x / whole)[whole > 0].tolist()) <= {0.0, 2.0} for x in dropped)
    mean = torch.stack(dropped).mean(0)
    assert not mean[whole == 0].any() and (mean / whole - 1)[whole > 0].abs().max() < 0.3


def test_features_stay_dense_where_something_needs_them_so(words: str) -> None:
    for model in ({"stem": "linear"}, {"standardize": True}):
        assert not opened(words, **model).training_part(CPU).graphs[0].x.is_sparse
