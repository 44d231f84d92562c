"""Which files a folder of clouds has and whether headers and labels can be used.

The format: `train*.npz` and `test*.npz`, each with `points` float `[N, P, C]`, coordinates in the
first three of C channels, and `label` integers `[N]`. `classes`, a text array of names in the order
of the labels, is optional ("0", "1", … without it). Other arrays are left alone. Several files of
a split follow one another in the order of their names.

Dimensions: N clouds of a file, P points of a cloud, C channels, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sgas.errors import DataError
from sgas_gcn.datasets.npz import ArrayHeader, read_array, read_headers

SPLITS = ("train", "test")


@dataclass(frozen=True)
class PointFile:
    """One file by its headers and labels; both are empty where `problems` say why."""

    path: Path
    headers: dict[str, ArrayHeader]
    problems: tuple[str, ...] = ()
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    classes: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, P, C)` of a file without problems."""
        return self.headers["points"].shape


@dataclass(frozen=True)
class FolderScan:
    """The files of the splits that were asked for, the class names, and what is wrong."""

    files: dict[str, list[PointFile]]
    classes: tuple[str, ...]
    problems: tuple[str, ...]


def scan_folder(folder: Path, splits: tuple[str, ...]) -> FolderScan:
    """What headers and labels tell; `problems` names all that is wrong with them."""
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        return FolderScan({}, (), (f"{folder} {kind}: give a folder that holds train*.npz",))
    files = {
        split: [open_file(path) for path in sorted(folder.glob(f"{split}*.npz"))]
        for split in splits
    }
    found = ", ".join(sorted(path.name for path in folder.glob("*"))[:6]) or "nothing"
    problems = [
        f"{folder} has no {split}*.npz (it has: {found}): write points and label with np.savez"
        for split in splits
        if not files[split]
    ]
    every = [file for split in splits for file in files[split]]
    problems += [problem for file in every for problem in file.problems]
    sound = {split: [file for file in files[split] if not file.problems] for split in splits}
    for split in splits:
        problems += _disagreements(sound[split])
    if not sound.get("train"):
        return FolderScan(files, (), tuple(problems))
    classes, class_problems = _classes(sound["train"])
    problems += class_problems
    if sound.get("test"):
        problems += _test_problems(sound["train"][0], sound["test"], classes)
    return FolderScan(files, classes, tuple(problems))


def open_file(path: Path) -> PointFile:
    """A file's headers, labels and class names; `problems` tells what cannot be used."""
    try:
        headers = read_headers(path)
        problems = tuple(f"{path}: {problem}" for problem in _header_problems(headers))
        if problems:
            return PointFile(path, headers, problems)
        labels = read_array(path, "label")
        names = read_array(path, "classes").tolist() if "classes" in headers else None
    except DataError as error:
        return PointFile(path, {}, (str(error),))
    if int(labels.min()) < 0 or int(labels.max()) >= 2**31:
        wrong = int(np.flatnonzero((labels < 0) | (labels >= 2**31))[0])
        problem = f"{path}: cloud {wrong} has label {labels[wrong]}; labels count from 0"
        return PointFile(path, headers, (problem,))
    classes = None if names is None else tuple(_as_text(name) for name in names)
    return PointFile(path, headers, (), labels.astype(np.int64), classes)


def _as_text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _header_problems(headers: dict[str, ArrayHeader]) -> Iterator[str]:
    """What is wrong with the shapes and types of the arrays that are read."""
    there = ", ".join(headers) or "none"
    for name in ("points", "label"):
        if name not in headers:
            yield f"no array {name!r} (it has: {there}); points and label are needed"
    for name in ("points", "label", "classes"):
        problem = headers[name].problem() if name in headers else None
        if problem:
            yield f"{name} {problem}"
    points, label, classes = (headers.get(name) for name in ("points", "label", "classes"))
    if points and (points.dtype.kind != "f" or points.dtype.itemsize > 8):
        yield f"points are {points.dtype}; write float16, float32 or float64"
    if points and (len(points.shape) != 3 or points.shape[2] < 3 or points.shape[1] < 1):
        yield f"points have shape {list(points.shape)}; wanted is [clouds, points, 3 or more]"
    if points and points.shape[:1] == (0,):
        yield "there are no clouds in it; leave the file out or fill it"
    if label and label.dtype.kind not in "iu":
        yield f"label is {label.dtype}; write integers from 0 on"
    if points and label and label.shape != points.shape[:1]:
        yield f"label has shape {list(label.shape)} for {points.shape[0]} clouds: one each"
    if classes and (classes.dtype.kind not in "US" or len(classes.shape) != 1):
        yield f"classes are {classes.dtype} {list(classes.shape)}; write a list of names as text"


def _disagreements(files: list[PointFile]) -> Iterator[str]:
    """How files of one split differ from the first in what they have to share."""
    for file in files[1:]:
        first = files[0]
        if file.shape[1:] != first.shape[1:]:
            yield (
                f"{file.path} has clouds of {list(file.shape[1:])}, {first.path.name} of "
                f"{list(first.shape[1:])}: write the same points and channels"
            )
        if file.classes != first.classes:
            yield f"{file.path} and {first.path.name} differ in classes: write the same names"


def _classes(files: list[PointFile]) -> tuple[tuple[str, ...], list[str]]:
    """The names of the classes of the training files, and what is wrong with the labels."""
    labels = np.concatenate([file.labels for file in files])
    named = files[0].classes
    if named is not None:
        problems = _range_problems(files, len(named))
        if len(set(named)) < len(named):
            twice = next(name for name, count in Counter(named).items() if count > 1)
            problems.append(f"{files[0].path}: classes name {twice!r} twice: give each one name")
    else:
        problems = []
    wanted = int(labels.max()) + 1 if named is None else len(named)
    present = np.unique(labels[labels < wanted])
    if len(present) < wanted:
        gaps = np.flatnonzero(present != np.arange(len(present)))
        missing = int(gaps[0]) if len(gaps) else len(present)
        name = f" ({named[missing]})" if named else ""
        rest = wanted - len(present) - 1
        more = f", and {rest} more classes have none" if rest else ""
        problems.append(
            f"{files[0].path.parent}: no training cloud has label {missing}{name} of 0 to "
            f"{wanted - 1}{more}: add clouds or number the labels without gaps"
        )
        return named or (), problems
    return named or tuple(str(number) for number in range(wanted)), problems


def _range_problems(files: list[PointFile], num_classes: int) -> list[str]:
    return [
        f"{file.path}: label {file.labels.max()} where classes has {num_classes} names "
        f"(labels 0 to {num_classes - 1}): correct the labels or add the names"
        for file in files
        if file.labels.max() >= num_classes
    ]


def _test_problems(
    train: PointFile, tests: list[PointFile], classes: tuple[str, ...]
) -> Iterator[str]:
    """How test files differ from training in what they have to share."""
    for file in tests:
        if file.shape[2] != train.shape[2]:
            yield (
                f"{file.path} has {file.shape[2]} channels, {train.path.name} "
                f"{train.shape[2]}: write the same"
            )
        if file.classes is not None and classes and file.classes != classes:
            yield f"{file.path} and {train.path.name} differ in classes: write the same names"
        elif classes and file.labels.max() >= len(classes):
            yield (
                f"{file.path}: label {file.labels.max()}, but training has the labels 0 to "
                f"{len(classes) - 1}: leave these clouds out or add some to training"
            )
