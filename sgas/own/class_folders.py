"""Folders with a folder of files for each class: which files belong to which class, none opened.

    DIR/train/CLASS/* and DIR/test/CLASS/* (or val, valid, validation), DIR/CLASS/train/* and
    DIR/CLASS/test/*, or DIR/CLASS/*

Dimensions: N files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sgas.data import hash_of
from sgas.errors import DataError
from sgas.own.folders import NO_TEST

TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class FileKind:
    """What files hold a sample: their endings, and what one and many of them are called."""

    suffixes: tuple[str, ...]
    one: str
    many: str


@dataclass(frozen=True)
class ClassFiles:
    """One split as files: `names` below `folder` as bytes `[N]`, labels int64 `[N]`, class names.

    Names are one array: a list of a million strings would be copied into every reading process.
    `remarks` say what is not used.
    """

    folder: Path
    names: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, number: int) -> str:
        """The name of a file below the folder."""
        return os.fsdecode(self.names[number])

    def fingerprint(self) -> str:
        """A hash of names, sizes and classes of the files: those of equal data are the same."""
        sizes = [(self.folder / self.name(number)).stat().st_size for number in range(len(self))]
        return hash_of(self.names, np.array(sizes), self.labels, self.classes)

    def subset(self, index: np.ndarray) -> ClassFiles:
        """The files `index` `[n]` of these."""
        return replace(self, names=self.names[index], labels=self.labels[index])


@dataclass(frozen=True)
class Places:
    """Where the class folders of training and of test are; `inner` folders in each hold the files.

    `test` is None where there is no test part. `remarks` say what is not used.
    """

    train: Path
    test: Path | None
    inner: tuple[str, str] = ("", "")
    remarks: tuple[str, ...] = ()


def places(folder: Path) -> Places:
    """Where the parts of a folder of class folders are."""
    if (folder / "train").is_dir():
        others = [name for name in TEST_FOLDERS if (folder / name).is_dir()]
        rest = [f"{name}/" for name in class_folders(folder) if name not in ("train", *others[:1])]
        unused = [f"not used: {', '.join(rest)}"] if rest else []
        told = (*unused, *([] if others else [NO_TEST]))
        return Places(folder / "train", folder / others[0] if others else None, remarks=told)
    classes = class_folders(folder)
    if classes and all((folder / name / "train").is_dir() for name in classes):
        test = any((folder / name / "test").is_dir() for name in classes)
        told = () if test else (NO_TEST,)
        return Places(folder, folder if test else None, ("train", "test"), told)
    return Places(folder, None, remarks=(NO_TEST,))


def load_files(folder: Path, split: str, kind: FileKind) -> ClassFiles:
    """The files of a split; the classes are the folders of training, sorted by name.

    DataError where there is no such split, a folder of test is no class of training, or a class has
    no file.
    """
    where = places(folder)
    if split == "test" and where.test is None:
        raise DataError(
            f"{folder} has no test part: put its class folders into {folder / 'test'} and those of "
            f"training into {folder / 'train'}"
        )
    if split == "train" or where.test is None:
        return files_of(where.train, where.train, kind, where.remarks, where.inner[0])
    return files_of(where.train, where.test, kind, (), where.inner[1])


def files_of(
    training: Path, folder: Path, kind: FileKind, remarks: Sequence[str] = (), inner: str = ""
) -> ClassFiles:
    """The files in the class folders of `folder`; classes are the folders in `training`.

    Files of other endings are counted in its `remarks`. `inner` is the folder in that of each class
    that holds the files. DataError as for `load_files`.
    """
    classes, names, others = _classes(training, kind), list[bytes](), Counter[str]()
    counts = np.zeros(len(classes), np.int64)
    for name in _classes(folder, kind):
        if name not in classes:
            raise DataError(
                f"{folder / name} is no class of training ({len(classes)} folders in "
                f"{training}): take it away or add it there"
            )
        place = folder / name / inner
        found = _files(place, kind, others) if place.is_dir() else []
        counts[classes.index(name)] = len(found)
        names += [os.fsencode(os.path.join(name, inner, file)) for file in found]
    if others:
        listed = ", ".join(f"{count} files {ending}" for ending, count in others.most_common(4))
        remarks = (*remarks, f"skipped: {listed}")
    if folder == training and inner != "test" and not counts.all():
        empty = classes[int(np.flatnonzero(counts == 0)[0])]
        raise DataError(f"{folder / empty} holds no {kind.many}: add some or take the folder away")
    if not names:
        raise DataError(f"the folders in {folder} hold no {kind.many} ({', '.join(kind.suffixes)})")
    labels = np.repeat(np.arange(len(classes)), counts)
    return ClassFiles(folder, np.array(names), labels, tuple(classes), tuple(remarks))


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def holds_classes(folder: Path) -> bool:
    """Whether a folder is to be read as class folders: it has folders in it, and no `.npz` file."""
    return folder.is_dir() and not any(folder.glob("*.npz")) and bool(class_folders(folder))


def is_data_set(folder: Path, test_fraction: float) -> bool:
    """Whether a folder has a test part, or one is drawn; samples in any other are just samples."""
    if test_fraction:
        return True
    has_test = holds_classes(folder) and places(folder).test is not None
    return any(folder.glob("*.npz")) or has_test


def _classes(folder: Path, kind: FileKind) -> list[str]:
    """The names of the class folders in `folder`, sorted; DataError where it has none."""
    names = class_folders(folder)
    if not names:
        loose = len(_files(folder, kind, Counter()))
        raise DataError(
            f"{folder} has no folders of classes ({loose} {kind.many} lie there themselves): sort "
            f"the {kind.many} into one folder for each class"
        )
    return names


def _files(folder: Path, kind: FileKind, others: Counter[str]) -> list[str]:
    """The names of the files in `folder`, sorted; `others` counts what else there is."""
    found = []
    for name in sorted(os.listdir(folder)):
        if name.lower().endswith(kind.suffixes) and not name.startswith("."):
            found.append(name)
        elif not name.startswith("."):
            others[Path(name).suffix or "without an ending"] += 1
    return found


def describe_files(
    folder: Path, kind: FileKind, load: Callable[[str], Any], more: dict[str, Any]
) -> dict[str, Any]:
    """A folder of class folders as JSON values; raises for nothing that it may hold.

    `load` reads a split and raises DataError for what cannot be used. Keys: `path`; the number of
    samples by split; `classes`, each with `name` and its counts; what `more` has; `remarks`, what
    is not used; `problems`, which keep the folder from being used; `warnings`, which do not.
    """
    problems: list[str] = []
    parts: dict[str, Any] = {}
    for split in ("train", "test") if places(folder).test else ("train",):
        try:
            parts[split] = load(split)
        except DataError as error:
            problems.append(str(error))
    counts = {split: Counter(part.labels.tolist()) for split, part in parts.items()}
    classes = next(iter(parts.values())).classes if parts else ()
    return {
        "path": str(folder),
        kind.many: {split: len(part) for split, part in parts.items()},
        "classes": [
            {"name": name, **{split: of[number] for split, of in counts.items()}}
            for number, name in enumerate(classes)
        ],
        **more,
        "remarks": [*dict.fromkeys(text for part in parts.values() for text in part.remarks)],
        "problems": problems,
        "warnings": [],
    }
