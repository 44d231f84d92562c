"""CIFAR-10 in its binary form, read straight from the archive.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. A record is a label
and 32x32 pixels, first all red ones, then green, then blue; no pickles.

    DATA_ROOT/cifar-10-binary.tar.gz   downloaded, or put there by hand
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.download import Sha256, download

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = Sha256("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
ARCHIVE = "cifar-10-binary.tar.gz"
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

    The first call downloads the archive where it is missing. DataError where the download fails
    (it says which file to put where), and where the archive is damaged.
    """
    names = FILES[split]
    inputs = np.empty((len(names) * RECORDS, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(len(names) * RECORDS, np.int64)
    for name, content in _packed(data_root, names):
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
                    if member.size != (wanted := RECORDS * RECORD_BYTES):
                        raise DataError(
                            f"{name} in {path} has {member.size} bytes, CIFAR-10 has {wanted}: "
                            f"delete {path.name} to download the published one"
                        )
                    missing.remove(name)
                    yield name, file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): delete it to download it again") from error
    if missing:
        raise DataError(f"{path} has no {min(missing)}: delete it to download the published one")
