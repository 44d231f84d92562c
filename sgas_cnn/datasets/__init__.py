"""Data sets of the image family: a table of names, and folders of one's own.

A new data set is a loader in a file of this folder and a line in `DATASETS`. Loaders import numpy
(and what they need beyond) when they are called: the command line reads this module for the names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgas.errors import DataError, unknown_name
from sgas.own import has_test_part, refuse_options, refuse_target
from sgas_cnn.config import ImageDataConfig

if TYPE_CHECKING:
    from sgas.data import LabelledArrays
    from sgas.own.class_folders import ClassFiles

SPLITS = ("train", "test")

Load = Callable[[str, Path, int], "LabelledArrays | ClassFiles"]


@dataclass(frozen=True)
class DatasetEntry:
    """A data set with a name: `load(split, data_root, seed)` gives one split of it.

    Inputs are uint8 `[N, H, W, C]` with C 1 or 3, labels int64 `[N]`; a data set too large for
    memory gives the names of its files instead. `seed` is for data that is generated.
    """

    name: str
    help: str
    load: Load


def _load_cifar10(split: str, data_root: Path, seed: int) -> LabelledArrays:
    from sgas_cnn.datasets.cifar10 import load_cifar10

    return load_cifar10(split, data_root)


def _load_digits(split: str, data_root: Path, seed: int) -> LabelledArrays:
    from sgas_cnn.datasets.digits import load_digits

    return load_digits(split)


def _load_imagenet(split: str, data_root: Path, seed: int) -> ClassFiles:
    from sgas_cnn.datasets.imagenet import load_imagenet

    return load_imagenet(split, data_root)


_ENTRIES = (
    DatasetEntry("cifar10", "photos of 10 classes, 32x32; downloads 170 MB", _load_cifar10),
    DatasetEntry("digits", "1,797 handwritten digits, 16x16; no download", _load_digits),
    DatasetEntry("imagenet", "photos in data_root/imagenet/{train,val}/CLASS", _load_imagenet),
)

DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in _ENTRIES}


def load_images(
    dataset: str,
    split: str,
    data_root: str | Path,
    seed: int,
    options: ImageDataConfig | None = None,
) -> LabelledArrays | ClassFiles:
    """One split, "train" or "test", of a data set of `DATASETS` or of a folder.

    Inputs are uint8 `[N, H, W, C]` with C 1 or 3, labels int64 `[N]`; for `imagenet` the names of
    the files, which `sgas_cnn.file_source` reads. `dataset` is taken for a folder where it is no
    name of the table and contains a path separator or exists (`folder.py` states its format).
    `options` say what own data is, `data_root` where downloads lie. DataError where the name is
    unknown or the data cannot be used, ConfigError for options that it does not have.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, DataError)
    options = options or ImageDataConfig()
    if dataset in DATASETS:
        refuse_options(dataset, options)
        return DATASETS[dataset].load(split, Path(data_root), seed)
    folder = Path(dataset).expanduser()
    if os.sep in dataset or folder.exists():
        from sgas.own.folders import drawn_split

        read, has_test = _reader(folder, options)
        if not options.test_fraction:
            return read(split)
        if has_test:
            raise has_test_part(folder)
        drawn: LabelledArrays | ClassFiles = drawn_split(
            read("train"), split, options.test_fraction
        )
        return drawn
    known = unknown_name("data set", dataset, DATASETS, DataError)
    raise DataError(f"{known}, or give the path of a folder with train*.npz and test*.npz")


def _reader(
    folder: Path, options: ImageDataConfig
) -> tuple[Callable[[str], LabelledArrays | ClassFiles], bool]:
    """What reads a split of a folder of one's own, and whether it has a test part."""
    from sgas.own import class_folders, folders
    from sgas_cnn.datasets.folder import load_folder
    from sgas_cnn.datasets.pictures import load_pictures

    if not class_folders.holds_classes(folder):
        return lambda split: load_folder(folder, split, options.target), folders.has_test(folder)
    refuse_target(folder, options.target)
    has_test = class_folders.places(folder).test is not None
    return lambda split: load_pictures(folder, split), has_test
