"""The page of a training and its predictions: complete, in agreement, right after every verb."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_searches import assert_apart, assert_inside
from processes import Cli
from toy_family import FAMILY, NUM_FEATURES, QUICK

from sgas.data import DeviceSource, SubsetSource
from sgas.errors import RunError
from sgas.interface import load, search, train
from sgas.labels import ManyLabels, OneClass
from sgas.reports import LayerOfNetwork, draw_confusion, draw_network
from sgas.running.predictions import Said, as_csv, labels_in, read_predictions

pytestmark = pytest.mark.usefixtures("here")


def accuracy(part: str) -> float:
    rows = [row for row in read_predictions(Path("t")) if row["part"] == part]
    return float(np.mean([row["true"] == row["predicted"] for row in rows]))


def test_a_page_and_predictions_agree_with_the_figures_after_every_verb(cli: Cli) -> None:
    searched = search(FAMILY, quiet=True, **QUICK)
    trained = train(FAMILY, searched, epochs=2, out="t", quiet=True)
    page = Path("t/report.html").read_text()
    assert accuracy("validation") == pytest.approx(trained.result["validation_accuracy"])
    assert f"{trained.result['validation_accuracy']:.4f}" in page
    assert "The test part has not been opened" in page and "evaluate t" in page
    assert re.findall(r'<section id="(\w+)"', page) == [
        *("network", "cell", "curves", "confusion", "classes", "mistakes", "usage", "stamp")
    ]
    assert "normal cell" in page and "reduce cell" in page
    assert re.findall(r"\b(?:src|href|srcset)\s*=\s*(\S+)", page) == ['"data:,">']

    test = trained.evaluate()["accuracy"]
    evaluated = Path("t/report.html").read_text()
    assert accuracy("test") == pytest.approx(test) and f"{test:.4f}" in evaluated
    assert "test part, 60 samples" in evaluated and "has not been opened" not in evaluated
    assert cli("train", "--resume", "t").status == 0
    assert accuracy("test") == pytest.approx(test)
    assert cli("show", "t", "--out", "again").status == 0
    for text in (Path("t/report.html").read_text(), Path("again/report.html").read_text()):
        (*_, shown) = re.findall(r"test part, 60 samples.*?</section>", text, re.DOTALL)
        assert shown in evaluated
    assert {path.name for path in Path("again").iterdir()} == {
        *("cell-normal.svg", "cell-reduce.svg", "network.svg", "curves.svg", "confusion.svg"),
        "report.html",
    }
    Path("t/report.html").unlink()  # as where it was killed before it wrote the page
    assert train(FAMILY, searched, epochs=2, out="t", quiet=True).folder == Path("t")
    assert Path("t/report.html").is_file()


def test_predictions_are_sealed(here: Path) -> None:
    train(FAMILY, search(FAMILY, quiet=True, **QUICK), epochs=1, out="t", quiet=True)
    path = here / "t" / "predictions.csv"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(RunError, match=r"predictions\.csv is damaged"):
        load(FAMILY, "t").evaluate()


def source(targets: torch.Tensor) -> SubsetSource:
    whole = DeviceSource(torch.zeros(9, NUM_FEATURES), targets, lambda x, _: x, lambda x: x)
    return SubsetSource(whole, torch.tensor([4, 7, 2]))


def test_rows_name_samples_labels_and_the_surest_mistake() -> None:
    names = ["a", 'b|"x', "c,d"]
    one, logits = Said(OneClass()), torch.tensor([[0.0, 2, 0], [3, 0, 0], [0, 0, 1]])
    one.add(logits[:2], torch.tensor([1, 2]))
    one.add(logits[2:], torch.tensor([2]))
    rows = one.rows("test", source(torch.zeros(9)), names)
    assert [(row["sample"], row["true"], row["predicted"]) for row in rows] == [
        *(("4", names[1], names[1]), ("7", "c,d", "a"), ("2", "c,d", "c,d"))
    ]
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        logits.softmax(1).amax(1).tolist(), rel=1e-5
    )
    many = Said(ManyLabels())
    logits = torch.tensor([[1.0, 5, -2], [1, -4, 6], [-1, -3, -1]])
    many.add(logits, torch.tensor([[1, 1, 0]] * 3))
    rows = many.rows("test", source(torch.zeros(9)), names)
    assert [labels_in(row["predicted"]) for row in rows] == [names[:2], ["a", "c,d"], []]
    assert [row["mistake"] for row in rows] == ["", "+c,d", f"-{names[1]}"]
    assert [row["probability"] for row in rows] == ["", "0.997527", "0.952574"]  # of 6 and 3
    Path("predictions.csv").write_bytes(as_csv(rows))
    assert read_predictions(Path()) == rows


@pytest.mark.parametrize("count", [2, 16, 40])
def test_a_confusion_matrix_of_any_size_stays_inside(count: int) -> None:
    counts = np.random.default_rng(0).integers(0, 30, (count, count)).tolist()
    svg = draw_confusion(counts, [f"class {n} " + "long " * 9 for n in range(count)], "matrix")
    assert_inside(svg)
    assert_apart(svg)
    right = sum(counts[n][n] for n in range(count))
    assert f"{right} of {sum(map(sum, counts))} right" in svg


def test_equal_cells_of_a_network_share_a_box() -> None:
    cells = [LayerOfNetwork(f"cell {n}", (8, 4), 100, True) for n in (1, 2, 3)]
    layers = [LayerOfNetwork("stem", (8, 4), 7), *cells, LayerOfNetwork("head", (), 3_000_000)]
    svg = draw_network(layers * 3, "a network")
    assert_inside(svg)
    assert_apart(svg)
    assert svg.count(">cell 1–3<") == 3
    assert "300 parameters" in svg and "3 M parameters" in svg
