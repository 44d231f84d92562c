"""The benchmark of search quality on a made table: what it prints follows from the table alone."""

from __future__ import annotations

import argparse
import itertools
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import search_quality
from sgas.cells.decisions import genotype_of
from sgas.errors import DataError, InputError
from sgas_cnn.config import NASBENCH201_OPERATIONS


def cells() -> list[str]:
    return [
        f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        for a, b, c, d, e, f in itertools.product(NASBENCH201_OPERATIONS, repeat=6)
    ]


def accuracy(cell: str) -> float:
    """More convolutions are better here."""
    return 50 + 5 * cell.count("3x3~") + cell.count("1x1~")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    rows = [f"{cell},{accuracy(cell)}" for cell in cells()]
    path.write_text("arch,test accuracy\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.exhaustive  # as by the table of graphs, below
def test_the_searches_are_judged_by_the_table(
    table: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"warmup_epochs": 0, "decision_interval": 1, "scored_paths": 32}
    monkeypatch.setattr(search_quality, "SEARCH", {**search_quality.SEARCH, **quick})
    options = argparse.Namespace(
        table=str(table),
        images=str(images),
        seeds="0,3",
        strategies="effects,darts",
        control="permuted_labels",
        space="nasbench201",
        restarts=1,
        keep=str(images / "kept.jsonl"),
    )
    result = search_quality.run(options)
    monkeypatch.setattr(search_quality, "search_once", lambda *_: pytest.fail("ran again"))
    assert search_quality.run(options) == result
    assert set(result["strategies"]) == {"effects", "darts"}
    tests = np.array([accuracy(cell) for cell in cells()])
    for figures in result["strategies"].values():
        assert [row["seed"] for row in figures["seeds"]] == [0, 3]
        for row in figures["seeds"]:
            assert row["test"] == accuracy(row["cell"])
            assert row["regret"] == tests.max() - row["test"]
            assert row["percentile"] == pytest.approx(100 * (tests > row["test"]).mean())
        ranks = [row["percentile"] for row in figures["seeds"]]
        assert figures["mean_percentile"] == pytest.approx(np.mean(ranks))
        assert figures["worst_percentile"] == max(ranks)
    controls = result["controls"]
    assert controls["random_convolutions"]["cells"] == 2**6
    assert controls["random_without_none"]["cells"] == 4**6
    assert set(controls["permuted_labels"]) == set(result["strategies"])
    assert set(result["paired_with_darts"]) == {"effects"}


@pytest.mark.usefixtures("quick_nasbenchgraph")
def test_searches_in_nasbenchgraph_are_judged_by_its_table(graph: Path, graph_table: Path) -> None:
    module = search_quality.nasbenchgraph
    options = argparse.Namespace(
        space="nasbenchgraph",
        restarts=1,
        keep=None,
        table=str(graph_table),
        graph=str(graph),
        seeds="0,3",
        strategies="cri2",
        control="permuted_labels",
    )
    result = search_quality.run(options)
    for row in result["strategies"]["cri2"]["seeds"]:
        skips = row["cell"][1:].count("8")
        assert row["test"] == pytest.approx(90 - 10 * skips if skips < 4 else 0)
    controls = result["controls"]
    assert set(controls["permuted_labels"]) == {"cri2"}
    assert controls["gcn_of_two_layers"]["mean_test"] == pytest.approx(70)
    assert controls["best_validation_of_192"]["mean_test"] == pytest.approx(90)
    task = module.BenchmarkTask(graph, 0, False)
    parts = task.search_parts(module.DEVICE)
    assert (parts.weights.num_asked, parts.alphas.num_asked) == (40, 60)
    assert 120 not in parts.alphas.graphs[0].asked_nodes  # it is no part of the largest component
    mixed = module.BenchmarkTask(graph, 0, True).search_parts(module.DEVICE)
    assert not torch.equal(mixed.weights.targets[0], parts.weights.targets[0])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_best_of_random_cells_is_the_mean_over_all_draws(count: int) -> None:
    draw = np.random.default_rng(0)
    judged = list(zip(*draw.permuted([range(7)] * 2, axis=1).astype(float).tolist(), strict=True))
    table = {str(test): test for _, test in judged}
    best = [max(cells)[1] for cells in itertools.combinations(judged, count)]
    found = search_quality.best_of_random(table, judged, count)
    assert found["mean_test"] == pytest.approx(np.mean(best))
    above = [search_quality.percentile(table, test) for test in best]
    assert found["mean_percentile"] == pytest.approx(np.mean(above))
    middle = np.quantile(above, 0.5, method="inverted_cdf")
    assert found["median_percentile"] == pytest.approx(middle)


def test_of_what_restarts_find_the_cell_that_trains_best_is_taken(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {**search_quality.CHOICE, "candidate_epochs": 1}
    monkeypatch.setattr(search_quality, "CHOICE", quick)
    benchmark, chosen = search_quality.BENCHMARKS["nasbench201"], []

    class Choice(search_quality.Loop):
        def execute(self) -> None:
            super().execute()
            chosen.append(self.body)

    monkeypatch.setattr(search_quality, "Loop", Choice)
    data = search_quality.load_small_images(str(images))
    found = search_quality.search_with_restarts(benchmark, data, "random", 0, False, 3)
    *searches, last = chosen
    cells = [search.genotype().cells for search in searches]
    assert len(cells) == 3 and len({str(cell) for cell in cells}) > 1
    assert last.task.model.num_cells == search_quality.CHOICE_CELLS
    figures = [turns[-1].figure for turns in last.judged]
    best = last.genotype().cells
    assert best == genotype_of(last.space, last.candidates[figures.index(max(figures))]).cells
    assert best in cells and found.cell == benchmark.cell(last.genotype())


def test_what_a_space_needs_is_said() -> None:
    given = {"space": "nasbenchgraph", "images": "x", "graph": None, "restarts": 1}
    options = argparse.Namespace(table="t", seeds="0", strategies="cri2", **given)
    with pytest.raises(InputError, match="takes its data by --graph PATH"):
        search_quality.run(options)
    options.graph, options.table, options.restarts = "g", __file__, 2
    with pytest.raises(InputError, match="--restarts is of nasbench201 alone"):
        search_quality.run(options)


def test_networks_are_taken_at_even_ranks_and_trained_once(
    graph: Path, graph_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, out = search_quality.nasbenchgraph, tmp_path / "networks.jsonl"
    table = module.read_table(graph_table)
    first = module.chosen_keys(table, 8)
    assert len(set(first)) == 8
    assert table[first[1]] > table[first[0]]
    quick = {"epochs": 2, "channels": 4, "learning_rate": 0.1, "learning_rate_min": 0.1}
    preset = module.load_preset(module.FAMILY, "nasbenchgraph", "cora", "train")
    monkeypatch.setattr(module, "load_preset", lambda *names: {**preset, **quick})
    options = argparse.Namespace(
        table=str(graph_table), graph=str(graph), out=str(out), preset="cora", count=3, seed=0
    )
    result = module.compare(options)
    assert result["n"] == 3 and len(out.read_text().splitlines()) == 3
    differences = [line["test"] - line["table"] for line in result["networks"]]
    assert result["mean_difference"] == pytest.approx(np.mean(differences))
    monkeypatch.delattr(module, "train_network")
    assert module.compare(options) == result


def test_an_incomplete_table_is_refused(table: Path) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if "|none~0|+|none~0|" not in line))
    known = search_quality.read_table(table)
    with pytest.raises(DataError, match="is it whole"):
        search_quality.random_cells(known, NASBENCH201_OPERATIONS)


def test_the_search_cannot_reach_the_table() -> None:
    functions = (search_quality.search_once, search_quality.searching)
    names = {name for function in functions for name in unwrap(function).__code__.co_names}
    assert "read_table" not in names and "judge" not in names
