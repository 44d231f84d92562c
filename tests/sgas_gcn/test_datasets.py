"""The table of point data sets, and folders of one's own: good ones, and every kind of bad one."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgas.errors import DataError
from sgas_gcn.datasets import load_points
from sgas_gcn.datasets.folder import describe_folder

P = 20  # points of a cloud


def clouds(count: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, P, channels)).astype(np.float32)


def write(folder: Path, name: str, **arrays: Any) -> None:
    """An .npz of six clouds of three classes; keywords replace its arrays, None leaves one out."""
    seed = sum(name.encode())
    content: dict[str, Any] = {"points": clouds(6, seed), "label": np.arange(6) % 3, **arrays}
    np.savez(folder / name, **{key: value for key, value in content.items() if value is not None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder, whose files tests replace."""
    write(tmp_path, "train.npz", classes=np.array(["a", "b", "c"]))
    write(tmp_path, "test.npz", classes=np.array(["a", "b", "c"]))
    return tmp_path


def failure(folder: Path, split: str = "train", num_points: int = P) -> str:
    """The error of loading; `check` lists problems too, and raises none."""
    report = describe_folder(folder)
    json.dumps(report, allow_nan=False)
    with pytest.raises(DataError) as caught:
        load_points(str(folder), split, "unused", num_points, 0)
    message = str(caught.value)
    assert "\n" not in message
    if num_points <= P:
        assert any(message.startswith(problem) for problem in report["problems"])
    return message


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_types_and_more_channels(tmp_path: Path, dtype: type) -> None:
    write(tmp_path, "train.npz", points=clouds(6, channels=6).astype(dtype))
    arrays = load_points(str(tmp_path), "train", "unused", P, 0)
    assert arrays.inputs.shape == (6, P, 6)
    assert arrays.inputs.dtype == np.float32
    assert arrays.classes == ("0", "1", "2")


def test_fewer_points_are_a_seeded_choice_of_each_cloud(folder: Path) -> None:
    whole = load_points(str(folder), "train", "unused", P, 0).inputs
    few, again, other = (
        load_points(str(folder), "train", "unused", 7, s).inputs for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(few, again)
    assert not np.array_equal(few, other)
    choices = set()
    for cloud, part in zip(whole, few, strict=True):
        rows = {tuple(row): number for number, row in enumerate(cloud.tolist())}
        chosen = frozenset(rows[tuple(row)] for row in part.tolist())
        assert len(chosen) == 7
        choices.add(chosen)
    assert len(choices) > 1


def test_points_that_are_not_finite_are_counted(folder: Path) -> None:
    points = clouds(6).astype(np.float64)
    points[2, 3, 1], points[5, 0, 0] = np.nan, np.inf
    write(folder, "train.npz", points=points)
    assert "2 clouds have NaN or infinite points, first cloud 2" in failure(folder)
    points = clouds(6).astype(np.float64)
    points[4, 0, 0] = 1e300
    write(folder, "train.npz", points=points)
    assert "1 cloud has NaN or infinite points, first cloud 4" in failure(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": clouds(6)[0]}, "points have shape [20, 3]"),
        ({"points": clouds(6)[..., :2]}, "points have shape [6, 20, 2]"),
        ({"points": clouds(6).astype(int)}, "points are int64; write float16"),
        ({"points": clouds(6).astype(complex)}, "points are complex128"),
        ({"points": clouds(0), "label": np.arange(0)}, "there are no clouds"),
    ],
)
def test_bad_training_files(folder: Path, arrays: dict[str, Any], message: str) -> None:
    write(folder, "train.npz", **{"classes": np.array(["a", "b", "c"]), **arrays})
    assert message in failure(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": clouds(6, channels=4)}, "of [20, 4], train.npz of [20, 3]: write the same ch"),
    ],
)
def test_bad_test_files(folder: Path, arrays: dict[str, Any], message: str) -> None:
    write(folder, "test.npz", **arrays)
    assert message in failure(folder, "test")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": clouds(6)[:, :9]}, "has clouds of [9, 3], train.npz of [20, 3]"),
        ({"classes": np.array(["x", "y", "z"])}, "differ in classes"),
        ({}, "differ in classes"),
    ],
)
def test_training_files_that_disagree(folder: Path, arrays: dict[str, Any], message: str) -> None:
    write(folder, "train_2.npz", **arrays)
    assert message in failure(folder)


def test_more_points_than_stored(folder: Path) -> None:
    message = failure(folder, num_points=64)
    assert "clouds of 20 points, but num_points is 64" in message


def test_a_lone_array_or_a_pickle_is_no_npz(folder: Path) -> None:
    with open(folder / "train.npz", "wb") as file:
        np.save(file, clouds(6))
    assert "not an .npz file" in failure(folder)


def write_raw(folder: Path, points: bytes) -> Path:
    """A training file whose array `points` is these bytes, whatever they claim."""
    label = io.BytesIO()
    np.save(label, np.arange(6) % 3)
    with zipfile.ZipFile(folder / "train.npz", "w") as archive:
        archive.writestr("label.npy", label.getvalue())
        archive.writestr("points.npy", points)
    return folder / "train.npz"


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a .npy file of float32."""
    file = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**6, 10**6, 3), (6, -P, 3)])
def test_a_claim_of_more_than_is_stored(folder: Path, shape: tuple[int, ...]) -> None:
    write_raw(folder, npy_header(shape) + bytes(100))
    message = failure(folder)
    assert f"points claims shape {list(shape)}" in message
    assert "100 bytes are stored" in message


def test_a_claim_that_the_zip_confirms_meets_the_memory_limit(folder: Path) -> None:
    shape = (10**6, 10**6, 3)
    header = npy_header(shape)
    path = write_raw(folder, header + bytes(100))
    raw = path.read_bytes()
    directory = raw.rindex(b"PK\x01\x02")
    # A ZIP64 field of the directory says that the member is as long as its header claims.
    field = struct.pack("<HHQ", 1, 8, 4 * 10**12 * 3 + len(header))
    end = raw.index(b"PK\x05\x06")
    entry = bytearray(raw[directory:end])
    entry[24:28], entry[30:32] = b"\xff" * 4, struct.pack("<H", len(field))
    tail = bytearray(raw[end:])
    (size,) = struct.unpack("<I", tail[12:16])
    tail[12:16] = struct.pack("<I", size + len(field))
    path.write_bytes(raw[:directory] + bytes(entry) + field + bytes(tail))
    assert "points takes 10.9 TiB" in failure(folder)


def test_the_description_of_a_sound_folder(folder: Path) -> None:
    report = describe_folder(folder)
    assert report["problems"] == []
    assert report["clouds"] == {"train": 6, "test": 6}
    assert (report["points_per_cloud"], report["channels"]) == (P, 3)
    assert report["classes"][1] == {"name": "b", "train": 2, "test": 2}
    first = report["files"][0]
    assert (first["file"], first["split"], first["clouds"]) == ("train.npz", "train", 6)
    assert first["arrays"]["points"] == {"shape": [6, P, 3], "dtype": "float32"}
    low, high = report["value_range"]
    both = np.concatenate([load_points(str(folder), s, "", P, 0).inputs for s in ("train", "test")])
    assert (low, high) == (both.min(), both.max())
    assert report["largest_norm"] == pytest.approx(np.linalg.norm(both, axis=-1).max())


def test_the_description_warns(folder: Path) -> None:
    points = clouds(6)
    points[1] = points[0]
    points[2] = 0.5
    write(folder, "train.npz", points=points)
    write(folder, "test.npz", points=points[[0, 3, 4]], label=np.array([0, 1, 0]))
    report = describe_folder(folder)
    assert report["problems"] == []
    assert report["duplicates_between_splits"] == 3
    assert report["duplicates_in_train"] == 1
    text = " | ".join(report["warnings"])
    assert "3 test clouds are in training too" in text
    assert "1 clouds have all their points in one place" in text
    assert "unit sphere" in text
    assert "class 2 has no test clouds" in text
    assert "class 0 has 2 training clouds" in text


def test_the_real_clouds_load(data: Path) -> None:
    report = describe_folder(data / "modelnet10")
    assert report["problems"] == [] and report["warnings"] == []
    assert report["clouds"] == {"train": 3592, "test": 454}
    assert [row["train"] for row in report["classes"]][:3] == [95, 463, 800]
    test = load_points(str(data / "modelnet10"), "test", "unused", 256, 0)
    assert test.inputs.shape == (454, 256, 3)
    assert np.linalg.norm(test.inputs, axis=-1).max() < 1.001
