"""CIFAR-10 in its binary form, read straight from the archive.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. A record is a label
and 32x32 pixels, first all red ones, then green, then blue; no pickles.

    DATA_ROOT/cifar-10-binary.tar.gz   downloaded, or put there by hand
    DATA_ROOT/cifar-10-batches-bin     the unpacked archive; read where it is there
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.download import FirstSeen, Sha256, compared, download

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = Sha256("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
# fmt: off
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
# fmt: on
FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
RECORDS = 10_000  # of each file
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE


def load_cifar10(split: str, data_root: Path) -> LabelledArrays:
    """One split: inputs uint8 `[N, 32, 32, 3]`, labels int64 `[N]`; 50,000 train, 10,000 test.

    The unpacked folder is read where it is there, else the archive, which is downloaded where it is
    missing. DataError where the download fails (it says which file to put where), and where
    archive or files are damaged.
    """
    names, folder = FILES[split], data_root / FOLDER
    inputs = np.empty((len(names) * RECORDS, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(len(names) * RECORDS, np.int64)
    contents = _unpacked(folder, names) if folder.is_dir() else _packed(data_root, names)
    for name, content in contents:
        rows = slice(names.index(name) * RECORDS, (names.index(name) + 1) * RECORDS)
        records = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD_BYTES)
        labels[rows] = records[:, 0]
        inputs[rows] = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        highest = records[:, 0].max()
        if highest >= len(CLASSES):
            raise DataError(
                f"{name} of CIFAR-10 has a label {highest} of 0 to {len(CLASSES) - 1}: it is "
                f"damaged; delete it in {data_root.resolve()} and put a whole one there"
            )
    return LabelledArrays(inputs, labels, CLASSES)


def _unpacked(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of an unpacked archive."""
    for name in names:
        path = folder / name
        try:
            _check_size(path, name, path.stat().st_size)
            yield name, compared(path, FirstSeen()).read_bytes()
        except OSError as error:
            raise DataError(
                f"cannot read {path} ({error.strerror}): put all of {ARCHIVE} there, or take "
                f"{folder} away to have it downloaded"
            ) from error


def _packed(data_root: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of the archive, in the archive's order."""
    path = download(URL, data_root / ARCHIVE, CHECKSUM)
    missing = set(names)
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if name in missing else None
                if file is not None:
                    _check_size(path, name, member.size)
                    missing.remove(name)
                    yield name, file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): delete it to download it again") from error
    if missing:
        raise DataError(f"{path} has no {min(missing)}: delete it to download the published one")


def _check_size(path: Path, name: str, size: int) -> None:
    if size != RECORDS * RECORD_BYTES:
        raise DataError(
            f"{name} in {path} has {size} bytes, CIFAR-10 has {RECORDS * RECORD_BYTES}: delete it "
            "and put a whole one there"
        )
