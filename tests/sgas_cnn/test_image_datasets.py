"""Digits, grey images of one's own, and real images; tests/contracts has all the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_folders import KINDS

from sgas.data import LabelledArrays
from sgas_cnn.datasets import load_images
from sgas_cnn.datasets.folder import describe_folder

KIND = KINDS["image"]


def load(dataset: str | Path, split: str = "train", data_root: str = "unused") -> LabelledArrays:
    """A split of a data set that lies in memory."""
    arrays = load_images(str(dataset), split, data_root, 0)
    assert isinstance(arrays, LabelledArrays)
    return arrays


def test_digits_are_real_fixed_and_stratified() -> None:
    from sklearn.datasets import load_digits

    train, test = load("digits"), load("digits", "test")
    assert train.inputs.shape == (1438, 16, 16, 1)
    assert test.inputs.shape == (359, 16, 16, 1)
    assert train.inputs.dtype == np.uint8 and train.labels.dtype == np.int64
    assert (train.inputs.min(), train.inputs.max()) == (0, 255)
    assert train.classes == tuple("0123456789")
    for label in range(10):
        share = (test.labels == label).sum() / (train.labels == label).sum()
        assert share == pytest.approx(0.25, abs=0.01)
    # All samples are there once: as images of 8x8 in units of 255/16, with their labels.
    both = np.concatenate([train.inputs, test.inputs])[:, ::2, ::2, 0] / (255 / 16)
    mine = {(*np.rint(image).ravel().tolist(),) for image in both}
    stored = load_digits()
    assert mine == {(*image.ravel().tolist(),) for image in stored.images}
    np.testing.assert_array_equal(train.inputs[:, 1::2, 1::2], train.inputs[:, ::2, ::2])
    other = load_images("digits", "test", "unused", 7)
    np.testing.assert_array_equal(other.labels, test.labels)


def test_grey_images_with_and_without_an_axis_of_channels(tmp_path: Path) -> None:
    grey = KIND.samples()[..., :1]
    KIND.write(tmp_path, "train_0.npz", image=grey)
    KIND.write(tmp_path, "train_1.npz", image=grey[..., 0])
    arrays = load(tmp_path)
    np.testing.assert_array_equal(arrays.inputs, np.concatenate([grey, grey]))
    assert arrays.classes == ("0", "1", "2")


def test_the_real_images_load(data: Path) -> None:
    report = describe_folder(data / "cifar10_small")
    assert report["problems"] == []
    assert report["images"] == {"train": 10000, "test": 2000}
    assert (report["height"], report["width"], report["channels"]) == (32, 32, 3)
    assert {row["train"] for row in report["classes"]} == {1000}
    test = load(data / "cifar10_small", "test")
    assert test.inputs.shape == (2000, 32, 32, 3)


def test_the_compressed_images_are_refused_with_advice(data: Path) -> None:
    assert "decode each with Pillow" in KIND.failure(data / "cifar10")
