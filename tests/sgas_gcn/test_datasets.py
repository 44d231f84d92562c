"""Folders of clouds of one's own: what tests/contracts does not have for images too."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from own_folders import KINDS

from sgas.errors import DataError
from sgas.own import npz
from sgas_gcn.datasets import load_points
from sgas_gcn.datasets.folder import describe_folder

KIND = KINDS["cloud"]
P = 20  # points of a cloud


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder, whose files tests replace."""
    return KIND.sound(tmp_path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_types_and_more_channels(tmp_path: Path, dtype: type) -> None:
    points = np.concatenate([KIND.samples(0), KIND.samples(1)], -1)
    KIND.write(tmp_path, "train.npz", points=points.astype(dtype))
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
    points = KIND.samples().astype(np.float64)
    points[2, 3, 1], points[5, 0, 0] = np.nan, np.inf
    KIND.write(folder, "train.npz", points=points)
    assert "2 clouds have NaN or infinite points, first cloud 2" in KIND.failure(folder)
    points = KIND.samples().astype(np.float64)
    points[4, 0, 0] = 1e300
    KIND.write(folder, "train.npz", points=points)
    assert "1 cloud has NaN or infinite points, first cloud 4" in KIND.failure(folder)


def test_more_points_than_stored(folder: Path) -> None:
    with pytest.raises(DataError, match="clouds of 20 points, but num_points is 64") as caught:
        load_points(str(folder), "train", "unused", 64, 0)
    assert "\n" not in str(caught.value)


def test_a_lone_array_or_a_pickle_is_no_npz(folder: Path) -> None:
    with open(folder / "train.npz", "wb") as file:
        np.save(file, KIND.samples())
    assert "not an .npz file" in KIND.failure(folder)


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
    message = KIND.failure(folder)
    assert f"points claims shape {list(shape)}" in message
    assert "100 bytes are stored" in message


def test_a_claim_that_the_zip_confirms_is_held_to_what_is_packed(folder: Path) -> None:
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
    assert "points.npy claims 10.9 TiB of next to nothing" in KIND.failure(folder)


def test_an_array_that_is_there_meets_the_memory_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "available_memory", lambda: 100)
    assert "points takes" in KIND.failure(folder)


def test_the_real_clouds_load(data: Path) -> None:
    report = describe_folder(data / "modelnet10")
    assert report["problems"] == [] and report["warnings"] == []
    assert report["clouds"] == {"train": 3592, "test": 454}
    assert [row["train"] for row in report["classes"]][:3] == [95, 463, 800]
    test = load_points(str(data / "modelnet10"), "test", "unused", 256, 0)
    assert test.inputs.shape == (454, 256, 3)
    assert np.linalg.norm(test.inputs, axis=-1).max() < 1.001
