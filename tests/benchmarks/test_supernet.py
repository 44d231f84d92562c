"""What a supernet says of cells: asked at each stage, without a trace in the search."""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_searches import SPACES, small_search

from benchmarks import search_quality
from benchmarks.quality import cells, supernet
from sgas.cells.decisions import genotype_of
from sgas.errors import DataError
from sgas.running.paths import paths
from sgas.studies.statistics import kendall_tau
from sgas_cnn.family import FAMILY as IMAGES
from sgas_cnn.nasbench201_text import to_nasbench201
from sgas_gcn.family import FAMILY


@pytest.mark.parametrize("space", SPACES)
def test_a_cell_is_asked_alone_and_the_search_does_not_notice(space: str) -> None:
    search = small_search(space).search
    stream = paths(search.decisions, search.space.operations, 0, "asked")
    asked = [next(stream) for _ in range(3)]
    alphas = search.parts.alphas
    first = alphas.batch(torch.arange(4), None)
    before = {name: value.clone() for name, value in search.network.state_dict().items()}
    chance = torch.get_rng_state()
    losses, figures = supernet.losses_of(search, asked, 4)
    assert torch.equal(torch.get_rng_state(), chance)
    after = search.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(set(losses)) == 3 and all(0 <= figure <= 1 for figure in figures)
    search.network.select(asked[1])  # the same by hand, of the first batch
    torch.manual_seed(0)
    with torch.no_grad():
        loss = search.labels.loss(search.network.train()(first[0]), first[1])
    assert losses[1] == pytest.approx(float(loss), rel=1e-5)


def test_the_probability_of_a_cell_is_the_product_over_its_edges() -> None:
    search = small_search("point").search
    cell = next(paths(search.decisions, search.space.operations, 0, "asked"))
    with torch.no_grad():
        search.network.alphas["normal"].normal_(generator=torch.Generator().manual_seed(0))
    probs = search.network.alphas["normal"].softmax(-1).tolist()
    product = 1.0
    for edge, state in enumerate(cell["normal"].states):
        if state.op is not None:
            product *= probs[edge][search.space.operations.index(state.op)]
    assert math.exp(supernet.log_probability(cell, search)) == pytest.approx(product, rel=1e-5)


def test_a_search_is_asked_after_each_quarter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = cells.random_cells(FAMILY.search_space("graph"), 3)
    texts = [next(stream).to_text() for _ in range(5)]
    lines = [
        {"genotype": text, "validation_micro_f1": number / 10, "validation_loss": 1.0}
        for number, text in enumerate([*texts, texts[0]])
    ]
    path = tmp_path / "cells.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    quick = ["warmup_epochs=1", "decision_interval=1", "final_epochs=1"]
    where = {"space": "graph", "dataset": "tissues", "cells": str(path), "preset": "demo"}
    options = argparse.Namespace(**where, seed=0, trained=None, settings=quick)
    said: list[Any] = []
    losses_of = supernet.losses_of

    def kept(*given: Any) -> Any:
        said.append(losses_of(*given))
        return said[-1]

    monkeypatch.setattr(supernet, "losses_of", kept)
    result = supernet.measure(options)
    assert [stage["epochs"] for stage in result["stages"]] == [2, 4, 6, 7]
    assert result["cells"] == 5
    truth = [0.25, 0.1, 0.2, 0.3, 0.4]  # of the first, two trainings
    for stage, (losses, _) in zip(result["stages"], said, strict=True):
        wanted = kendall_tau([-loss for loss in losses], truth)
        assert stage["tau"]["loss of the cell alone"]["tau"] == pytest.approx(wanted)
        assert 0 <= stage["without_weights"] <= 1
    options = argparse.Namespace(**where, seed=0, trained=1, settings=["optimizer=adam"])
    (stage,) = supernet.measure(options)["stages"]
    assert stage["epochs"] == 1 and len(set(stage["figures"])) == 5
    wanted = kendall_tau(stage["figures"], truth)
    assert stage["tau"]["training of the cell alone"]["tau"] == pytest.approx(wanted)
    with pytest.raises(DataError, match="has no trainings"):
        supernet.known_cells(tmp_path / "none", FAMILY.search_space("graph"))


@pytest.mark.usefixtures("quick_nasbenchgraph")
def test_cells_of_the_table_of_nasbenchgraph_are_asked_about(
    graph: Path, graph_table: Path
) -> None:
    where = {"space": "nasbenchgraph", "dataset": str(graph), "cells": str(graph_table)}
    options = argparse.Namespace(**where, preset="", seed=0, trained=None, settings=[])
    asked, truth = supernet.known_cells(graph_table, FAMILY.search_space("nasbenchgraph"))
    assert len(asked) == supernet.FROM_TABLE
    skips = [sum(state.op == "skip" for state in cell["normal"].states) for cell in asked]
    assert [90 - 10 * count for count in skips] == pytest.approx(truth)
    assert supernet.measure(options)["stages"][-1]["epochs"] == 3


def test_cells_of_the_table_of_nasbench201_are_asked_about(images: Path) -> None:
    ops = ("none", "skip_connect", "nor_conv_3x3")
    names = [
        f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in product(ops, repeat=6)
    ]
    tests = [50.0 + 5 * name.count("conv") + name.count("skip") for name in names]
    np.savez(images / "table.npz", arch=names, test=tests)
    space = IMAGES.search_space("nasbench201")
    asked, truth = supernet.known_cells(images / "table.npz", space)
    assert len(asked) == supernet.FROM_TABLE and len(set(truth)) > 10
    for cell, test in zip(asked, truth, strict=True):
        name = to_nasbench201(genotype_of(space, cell))
        assert test == 50 + 5 * name.count("conv") + name.count("skip")
    options = argparse.Namespace(space="nasbench201", dataset=str(images), seed=3)
    _, config, parts = supernet.opened(options, IMAGES, {"strategy": "darts"})
    assert config.learning_rate == search_quality.SEARCH["learning_rate"]
    assert (len(parts.weights), len(parts.alphas)) == (60, 60)
