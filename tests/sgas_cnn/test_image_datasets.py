"""The table of image data sets, digits, and folders of one's own, good ones and bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas_cnn.datasets import load_images
from sgas_cnn.datasets.folder import describe_folder

H, W = 6, 8  # rows and columns of an image


def pictures(count: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, H, W, channels), dtype=np.uint8)


def write(folder: Path, name: str, **arrays: Any) -> None:
    """An .npz of six images of three classes; keywords replace its arrays, None leaves one out."""
    seed = sum(name.encode())
    content: dict[str, Any] = {"image": pictures(6, seed), "label": np.arange(6) % 3, **arrays}
    np.savez(folder / name, **{key: value for key, value in content.items() if value is not None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder, whose files tests replace."""
    write(tmp_path, "train.npz", classes=np.array(["a", "b", "c"]))
    write(tmp_path, "test.npz", classes=np.array(["a", "b", "c"]))
    return tmp_path


def load(dataset: str | Path, split: str = "train", data_root: str = "unused") -> LabelledArrays:
    """A split of a data set that lies in memory."""
    arrays = load_images(str(dataset), split, data_root, 0)
    assert isinstance(arrays, LabelledArrays)
    return arrays


def failure(folder: Path, split: str = "train") -> str:
    """The error of loading; `check` lists it too, and raises none."""
    report = describe_folder(folder)
    json.dumps(report, allow_nan=False)
    with pytest.raises(DataError) as caught:
        load(folder, split)
    message = str(caught.value)
    assert "\n" not in message
    assert any(message.startswith(problem) for problem in report["problems"])
    return message


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
    grey = pictures(6, channels=1)
    write(tmp_path, "train_0.npz", image=grey)
    write(tmp_path, "train_1.npz", image=grey[..., 0])
    arrays = load(tmp_path)
    np.testing.assert_array_equal(arrays.inputs, np.concatenate([grey, grey]))
    assert arrays.classes == ("0", "1", "2")


JPEG = {
    "image": None,
    "header": np.zeros(609, np.uint8),
    "data": np.zeros(100, np.uint8),
    "offset": np.arange(7),
}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": pictures(6) / np.float32(255)}, "float32; write uint8 from 0 to 255 (where"),
        ({"image": pictures(6).astype(int)}, "image is int64; write uint8 from 0 to 255"),
        ({"image": pictures(6)[0, 0]}, "image has shape [8, 3]; wanted is [images, height, width"),
        ({"image": pictures(6, channels=4)}, "image has shape [6, 6, 8, 4]"),
        ({"image": pictures(6).transpose(0, 3, 1, 2)}, "put channels last with image.transpose"),
        ({"image": pictures(6)[:, :3]}, "height and width have to be 4 at least"),
        ({"image": pictures(0), "label": np.arange(0)}, "there are no images"),
        ({"image": np.array(5, np.uint8)}, "image has shape []"),
        (JPEG, "it seems to hold compressed images: decode each with Pillow"),
    ],
)
def test_bad_training_files(folder: Path, arrays: dict[str, Any], message: str) -> None:
    write(folder, "train.npz", **{"classes": np.array(["a", "b", "c"]), **arrays})
    assert message in failure(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": pictures(6, channels=1)}, "of [6, 8, 1], train.npz of [6, 8, 3]: write the"),
        ({"image": pictures(6)[:, :5]}, "of [5, 8, 3], train.npz of [6, 8, 3]: write the same he"),
    ],
)
def test_bad_test_files(folder: Path, arrays: dict[str, Any], message: str) -> None:
    write(folder, "test.npz", **arrays)
    assert message in failure(folder, "test")


def test_training_files_of_different_sizes(folder: Path) -> None:
    write(folder, "train_2.npz", image=pictures(6)[:, :5, :7], classes=np.array(["a", "b", "c"]))
    assert "of [6, 8, 3]: write the same height and width" in failure(folder)


def test_the_description_of_a_sound_folder(folder: Path) -> None:
    report = describe_folder(folder)
    assert report["problems"] == []
    assert report["images"] == {"train": 6, "test": 6}
    assert (report["height"], report["width"], report["channels"]) == (H, W, 3)
    assert report["classes"][1] == {"name": "b", "train": 2, "test": 2}
    first = report["files"][0]
    assert (first["file"], first["split"], first["images"]) == ("train.npz", "train", 6)
    assert first["arrays"]["image"] == {"shape": [6, H, W, 3], "dtype": "uint8"}
    both = np.concatenate([load(folder, split).inputs for split in ("train", "test")])
    assert report["value_range"] == [both.min(), both.max()]


def test_the_description_warns(folder: Path) -> None:
    image = pictures(6) % 2
    image[1] = image[0]
    image[2] = 1
    write(folder, "train.npz", image=image)
    write(folder, "test.npz", image=image[[0, 3, 4]], label=np.array([0, 1, 0]))
    report = describe_folder(folder)
    assert report["problems"] == []
    assert report["duplicates_between_splits"] == 3
    assert report["duplicates_in_train"] == 1
    text = " | ".join(report["warnings"])
    assert "3 test images are in training too" in text
    assert "1 training images repeat another training image" in text
    assert "1 images have one colour alone" in text
    assert "have to be multiplied by 255" in text
    assert "class 2 has no test images" in text
    assert "class 0 has 2 training images" in text


def test_the_real_images_load(data: Path) -> None:
    report = describe_folder(data / "cifar10_small")
    assert report["problems"] == []
    assert report["images"] == {"train": 10000, "test": 2000}
    assert (report["height"], report["width"], report["channels"]) == (32, 32, 3)
    assert {row["train"] for row in report["classes"]} == {1000}
    test = load(data / "cifar10_small", "test")
    assert test.inputs.shape == (2000, 32, 32, 3)


def test_the_compressed_images_are_refused_with_advice(data: Path) -> None:
    assert "decode each with Pillow" in failure(data / "cifar10")
