"""The page of a training and its predictions: complete, in agreement, right after every verb."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
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


@dataclass
class _Head:
    """Stands for the hub library's class, with the arguments that its documentation names."""

    model_name: str
    library_name: str
    tags: list[str]
    metrics: list[str] | None
    eval_results: list[Any] | None

    def to_yaml(self) -> str:
        return yaml.safe_dump({"model_name": self.model_name, "results": self.eval_results})


def test_a_card_has_figures_data_limits_and_code(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = search(FAMILY, quiet=True, **QUICK)
    if importlib.util.find_spec("huggingface_hub") is None:
        argv = ("train", str(searched.folder), "--epochs", "1", "--out", "without")
        assert "pip install 'sgas[hub]'" in cli(*argv).out
        assert not Path("without/README.md").exists()
        hub = ModuleType("huggingface_hub")
        hub.__spec__ = ModuleSpec("huggingface_hub", None)
        hub.__dict__.update(ModelCard=str, ModelCardData=_Head, EvalResult=dict)
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    trained = train(FAMILY, searched, epochs=1, out="t", quiet=True)
    before = Path("t/README.md").read_text()
    assert "The test part has not been opened" in before
    figure = trained.evaluate()["accuracy"]
    _, head, body = Path("t/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["model_name"] == "t" and f"{figure}" in head
    for words in (
        f"| test accuracy | {figure:.4f} | 60 samples",
        *("cell searched on blobs (protocol clean)", "the test part of blobs", "one seed"),
        *(trained.config["command"], "@inproceedings{li2020sgas", "load('t')"),
        *("![cell-normal.svg](cell-normal.svg)", "Classes: 0, 1, 2"),
    ):
        assert words in body, words


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
