"""Data sets of the point family: a table of names, and folders of one's own.

A new data set is a loader in a file of this folder and a line in `DATASETS`. Loaders import numpy
(and what they need beyond) when they are called: the command line reads this module for the names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sgas.errors import DataError, option, unknown_name
from sgas.own import has_test_part, refuse_options, refuse_target
from sgas_gcn.config import PointDataConfig

if TYPE_CHECKING:
    from sgas.data import LabelledArrays

SPLITS = ("train", "test")

Load = Callable[[str, Path, int, int], "LabelledArrays"]


@dataclass(frozen=True)
class DatasetEntry:
    """A data set with a name: `load(split, data_root, num_points, seed)` gives one split of it.

    Inputs are float32 `[N, num_points, C]`, coordinates first; labels int64 `[N]`. `most_points` is
    how many points a cloud can have.
    """

    name: str
    help: str
    most_points: int
    load: Load


def _load_shapes(split: str, data_root: Path, num_points: int, seed: int) -> LabelledArrays:
    from sgas_gcn.datasets.shapes import load_shapes

    return load_shapes(split, num_points, seed)


def _load_modelnet(
    num_classes: int, split: str, data_root: Path, num_points: int, seed: int
) -> LabelledArrays:
    from sgas_gcn.datasets.modelnet import load_modelnet

    return load_modelnet(num_classes, split, data_root, num_points)


_ENTRIES = (
    DatasetEntry("shapes", "12 kinds of generated solids; no download", 1024, _load_shapes),
    DatasetEntry(
        "modelnet10",
        "CAD models of 10 classes; downloads 0.5 GB",
        2048,
        partial(_load_modelnet, 10),
    ),
    DatasetEntry(
        "modelnet40",
        "CAD models of 40 classes; downloads 2 GB",
        2048,
        partial(_load_modelnet, 40),
    ),
)

DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in _ENTRIES}


def load_points(
    dataset: str,
    split: str,
    data_root: str | Path,
    num_points: int | None,
    seed: int,
    options: PointDataConfig | None = None,
) -> LabelledArrays:
    """One split, "train" or "test", of a data set of `DATASETS` or of a folder.

    Inputs are float32 `[N, num_points, C]` (None: as many points as there are), labels int64 `[N]`.
    `dataset` is taken for a folder
    where it is no name of the table and contains a path separator or exists (`folder.py` states
    its format), and `options` say what it is. `data_root` is where downloads lie. DataError where
    the name is unknown or the data cannot be used, ConfigError for options that it does not have.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, DataError)
    options = options or PointDataConfig()
    if dataset in DATASETS:
        refuse_options(dataset, options)
        entry = DATASETS[dataset]
        if num_points is not None and num_points > entry.most_points:
            raise DataError(
                f"num_points is {num_points}; a cloud of {dataset} has up to {entry.most_points} "
                f"points: give {option('num_points', entry.most_points)} or less"
            )
        return entry.load(split, Path(data_root), num_points or entry.most_points, seed)
    folder = Path(dataset).expanduser()
    if os.sep in dataset or folder.exists():
        from sgas.own.folders import drawn_split

        read, has_test = _reader(folder, num_points, seed, options)
        if not options.test_fraction:
            return read(split)
        if has_test:
            raise has_test_part(folder)
        drawn: LabelledArrays = drawn_split(read("train"), split, options.test_fraction)
        return drawn
    known = unknown_name("data set", dataset, DATASETS, DataError)
    raise DataError(f"{known}, or give the path of a folder with train*.npz and test*.npz")


def _reader(
    folder: Path, num_points: int | None, seed: int, options: PointDataConfig
) -> tuple[Callable[[str], LabelledArrays], bool]:
    """What reads a split of a folder of one's own, and whether it has a test part."""
    from sgas.own import class_folders, folders
    from sgas_gcn.datasets.cloud_files import load_clouds
    from sgas_gcn.datasets.folder import load_folder

    if not class_folders.holds_classes(folder):
        target = options.target
        has_test = folders.has_test(folder)
        return lambda split: load_folder(folder, split, num_points, seed, target), has_test
    refuse_target(folder, options.target)
    has_test = class_folders.places(folder).test is not None
    return lambda split: load_clouds(folder, split, num_points, seed), has_test
