"""Estimators keep scikit-learn's manners, and give what the verbs give."""

from __future__ import annotations

import copy
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sampling import some
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data
from torch_geometric.data import Data

import sgas_cnn
import sgas_gcn
from sgas.errors import DataError
from sgas_gcn.family import FAMILY

LABELS = np.array(["rod", "disc", "ball"])[np.arange(36) % 3]
SEARCH = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0, "batch_increase": 0}
POINTS = {"num_points": 24, "k": 3, "emb_dims": 8, "num_cells": 1}


def options(**sizes: int) -> dict[str, Any]:
    small = {"channels": 2, "batch_size": 4, **sizes}
    search = {"strategy": "random", **SEARCH, **small}
    return {"preset": "demo", "search_options": search, "train_options": {"epochs": 1, **small}}


def clouds(seed: int) -> np.ndarray:
    stretch = {"rod": (1, 1, 4), "disc": (3, 3, 0.3), "ball": (1, 1, 1)}
    scale = np.array([stretch[label] for label in LABELS])[:, None]
    return (np.random.default_rng(seed).normal(size=(36, 30, 3)) * scale).astype(np.float32)


def images(seed: int) -> np.ndarray:
    level = np.unique(LABELS, return_inverse=True)[1][:, None, None]
    return np.random.default_rng(seed).random((36, 8, 8)) / 2 + level / 4


SAMPLES = {
    "clouds": (lambda: sgas_gcn.PointCloudClassifier(**options(**POINTS)), clouds),
    "images": (lambda: sgas_cnn.ImageClassifier(**options(num_cells=3)), images),
}


@pytest.mark.parametrize("name", some(SAMPLES, "clouds"))
def test_a_classifier_of_samples(name: str, tmp_path: Path) -> None:
    made, draw = SAMPLES[name][0](), SAMPLES[name][1]
    asked = draw(1)
    with pytest.raises(NotFittedError):
        made.predict(asked)
    fitted = clone(made).fit(draw(0), LABELS)
    assert vars(made).keys() == made.get_params().keys(), "parameters alone before fit"
    assert fitted.classes_.tolist() == ["ball", "disc", "rod"] == list(fitted.run_.classes)
    probs, names = fitted.predict_proba(asked), fitted.predict(asked)
    assert probs.shape == (36, 3) and (fitted.classes_[probs.argmax(1)] == names).all()
    assert fitted.score(asked, LABELS) == np.mean(names == LABELS)
    again = clone(made).fit(list(draw(0)), LABELS.tolist())
    assert np.array_equal(again.predict_proba(asked), probs), "same data, same seed"

    folder = tmp_path / "kept"
    shutil.copytree(fitted.run_.folder, folder)
    packed, deep = pickle.dumps(fitted), copy.deepcopy(fitted)
    temporary = fitted.run_.folder
    del fitted
    assert not temporary.exists(), "what is not asked for does not stay"
    for other in (pickle.loads(packed), deep, type(made).from_run(folder)):
        assert np.array_equal(other.predict_proba(asked), probs)
        assert other.predict(asked).tolist() == names.tolist()
        assert other.genotype_.cells == again.genotype_.cells
    assert type(made).from_run(folder).get_params()["random_state"] == 0


def test_runs_stay_where_that_is_asked_and_a_cell_may_be_given(tmp_path: Path) -> None:
    made = SAMPLES["clouds"][0]().set_params(folder=tmp_path, genotype="random-modelnet-3")
    made.fit(clouds(0), LABELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "train"]
    assert made.run_.folder == tmp_path / "train"
    assert made.genotype_.cells == FAMILY.load_published("random-modelnet-3").cells
    made.export(tmp_path / "my_net")
    assert (tmp_path / "my_net.py").is_file()


def test_scikit_learns_tools_take_it() -> None:
    made = SAMPLES["images"][0]()
    scores = cross_val_score(made, images(0), LABELS, cv=2, error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (LABELS[:-1], "inconsistent numbers of samples"),
        (np.zeros(36, int), "one class alone"),
        (np.linspace(0, 1, 36), "continuous"),
        (None, "requires y"),
    ],
)
def test_labels_that_are_none_are_refused(labels: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SAMPLES["images"][0]().fit(images(0), labels)


def graph(seed: int) -> Data:
    draw = torch.Generator().manual_seed(seed)
    edges = torch.randint(30, (2, 80), generator=draw)
    y = torch.arange(30) % 3
    x = torch.randn(30, 5, generator=draw) + y[:, None]
    return Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), y=y)


def labels_of(y: torch.Tensor, many: bool) -> np.ndarray:
    """Classes, or each as a label beside the first one."""
    return (torch.nn.functional.one_hot(y) | torch.tensor([1, 0, 0])).numpy() if many else y.numpy()


@pytest.mark.parametrize("many", [False, True])
def test_a_classifier_of_nodes(many: bool) -> None:
    made = sgas_gcn.GraphNodeClassifier(**options())
    graphs, asked = [graph(seed) for seed in range(6)], [graph(9), graph(8)]
    y, own = ([labels_of(one.y, many) for one in several] for several in (asked, graphs))
    fitted = clone(made).fit(graphs, own if many else None)
    assert fitted.predict(asked[0]).shape == ((30, 3) if many else (30,))
    predicted, probs = fitted.predict(asked), fitted.predict_proba(asked)
    assert [one.shape for one in probs] == [(30, 3)] * 2
    score = fitted.score(asked, y)
    assert 0 <= score <= 1 and graphs[0].y.ndim == 1
    if not many:
        assert score == np.mean([p == t for p, t in zip(predicted, y, strict=True)])
        masked = graph(9)
        masked.test_mask = torch.arange(30) < 10
        assert fitted.score(masked) == np.mean(predicted[0][:10] == y[0][:10])
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict(asked[0]), predicted[0])
    with pytest.raises(DataError, match="there are 2 graphs: give y as a list"):
        fitted.score(asked, y[:1])


class OfRows:
    """Samples of floats from rows of any length, as scikit-learn's checks give them."""

    shape: tuple[int, ...]

    def _samples(self, X: Any, fitting: bool = False) -> Any:  # noqa: N803
        rows = validate_data(self, X, reset=fitting, dtype=np.float64)
        spread = 1 / (1 + np.exp(-np.clip(rows, -50, 50)))
        grid = np.arange(np.prod(self.shape)).reshape(self.shape) / 1000  # no two points are equal
        return np.stack([np.resize(row, self.shape) * 0.9 + grid for row in spread])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array, tags.classifier_tags.poor_score = True, True
        return tags


class RowsAsImages(OfRows, sgas_cnn.ImageClassifier):
    """Images of 8 × 8 pixels."""

    shape = (8, 8)


class RowsAsClouds(OfRows, sgas_gcn.PointCloudClassifier):
    """Clouds of 24 points."""

    shape = (24, 3)


ROWS = {
    "clouds": (RowsAsClouds, "random-modelnet-3", POINTS),
    "images": (RowsAsImages, "cri2-cifar-best", {"num_cells": 3}),
}


@pytest.mark.parametrize(
    ("name", "legacy"),
    [("clouds", False), pytest.param("images", True, marks=pytest.mark.exhaustive)],
)
def test_scikit_learns_own_checks_pass(name: str, legacy: bool) -> None:
    """Those of its interface for both; the older ones, which are long, for the shared class."""
    kind, cell, sizes = ROWS[name]
    made = kind(genotype=cell, **options(**sizes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(made, legacy=legacy, on_skip=None)
