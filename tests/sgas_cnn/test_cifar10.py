"""CIFAR-10 from a small archive of the published form; the network is closed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.download import checksum_of
from sgas_cnn.datasets import cifar10, load_images

pytestmark = pytest.mark.usefixtures("no_network")
RECORDS = 30
NAMES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


def content(name: str, records: int = RECORDS) -> bytes:
    """A file's records: labels in turn, pixels by chance."""
    draw = np.random.default_rng(NAMES.index(name))
    rows = draw.integers(0, 256, (records, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(records) % 10
    return rows.tobytes()


def write_archive(path: Path, **changed: bytes | None) -> None:
    """An archive as published; `changed` replaces a file by its stem, or leaves it out (None)."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        # The published archive does not have the files in the order of their numbers.
        for name in (*NAMES[::-1], "batches.meta.txt"):
            body = b"airplane\n" if name.endswith("txt") else content(name)
            body = changed.get(name.split(".")[0], body)
            if body is not None:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))


@pytest.fixture(autouse=True)
def few_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the published form, but short."""
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)


def bless(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes an archive the published one by its checksum."""
    monkeypatch.setattr(cifar10, "CHECKSUM", checksum_of(path))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole archive where the download would lie."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path)
    bless(path, monkeypatch)
    return path


def load(data_root: Path, split: str = "train") -> LabelledArrays:
    arrays = load_images("cifar10", split, data_root, 0)
    assert isinstance(arrays, LabelledArrays)
    return arrays


def expected(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels by the plain reading of the format: red, green, blue, row by row."""
    images, labels = [], []
    for name in names:
        body = content(name)
        for start in range(0, len(body), 3073):
            record = body[start : start + 3073]
            labels.append(record[0])
            planes = [
                np.frombuffer(record[1 + c * 1024 : 1025 + c * 1024], np.uint8) for c in (0, 1, 2)
            ]
            images.append(np.stack([plane.reshape(32, 32) for plane in planes], axis=-1))
    return np.stack(images), np.array(labels)


@pytest.mark.usefixtures("archive")
def test_both_splits_in_the_order_of_the_files(tmp_path: Path) -> None:
    for split, names in (("train", NAMES[:5]), ("test", NAMES[5:])):
        arrays = load(tmp_path, split)
        images, labels = expected(names)
        np.testing.assert_array_equal(arrays.inputs, images)
        np.testing.assert_array_equal(arrays.labels, labels)
        assert arrays.inputs.dtype == np.uint8 and arrays.labels.dtype == np.int64
        assert arrays.classes[3] == "cat" and len(arrays.classes) == 10


def test_no_network_says_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"put the file cifar-10-binary.tar.gz into {tmp_path}"):
        load(tmp_path)


def test_another_archive_is_refused_by_its_checksum(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"has the checksum sha256:.* delete it"):
        load(tmp_path)


def test_the_published_checksum_is_asked_for() -> None:
    assert str(cifar10.CHECKSUM).startswith("sha256:c4a38c50a1bc5f3a")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_batch_3": None}, r"has no data_batch_3\.bin"),
        ({"data_batch_2": content(NAMES[1])[:-1]}, r"data_batch_2\.bin in .* has 92189 bytes"),
        ({"data_batch_4": b"\x0a" * 3073 * RECORDS}, r"data_batch_4\.bin .* label 10 of 0 to 9"),
    ],
)
def test_bad_files_in_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, bytes | None], message: str
) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, **changed)
    bless(path, monkeypatch)
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    assert len(load(tmp_path, "test")) == RECORDS


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_damaged_archive_is_named(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: float
) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(part * len(whole))])
    bless(archive, monkeypatch)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        load(tmp_path)


def test_the_published_size_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "RECORDS", 10_000)
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, test_batch=content("test_batch.bin", 10_000))
    bless(path, monkeypatch)
    assert load(tmp_path, "test").inputs.shape == (10_000, 32, 32, 3)
