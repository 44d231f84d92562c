"""ImageNet, or any folder of pictures laid out like it: which files belong to which class.

    DATA_ROOT/imagenet/train/CLASS/*.JPEG    or DATA_ROOT/train/…, where there is no imagenet
    DATA_ROOT/imagenet/val/CLASS/*.JPEG      the test split; the published test labels are secret

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015. Pictures
are read while training (`sgas_cnn.file_source`): the whole does not fit into memory.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sgas.data import hash_of
from sgas.errors import DataError, option

FOLDERS = {"train": "train", "test": "val"}
SUFFIXES = (
    *(".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)


@dataclass(frozen=True)
class ImageFiles:
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

    def subset(self, index: np.ndarray) -> ImageFiles:
        """The files `index` `[n]` of these."""
        return replace(self, names=self.names[index], labels=self.labels[index])


def load_imagenet(split: str, data_root: Path) -> ImageFiles:
    """The files of one split, sorted by class and name; classes are those of the training folder.

    No file is opened. DataError where folders are missing or hold no pictures, where a folder of
    the test split is no class of training, and where Pillow is not installed.
    """
    require_pillow()
    root = data_root / "imagenet" if (data_root / "imagenet").is_dir() else data_root
    for name in ("train", split):
        if not (root / FOLDERS[name]).is_dir():
            raise DataError(
                f"{root / FOLDERS[name]} does not exist: put ImageNet into "
                f"{data_root.resolve() / 'imagenet'} as train/CLASS/*.JPEG and val/CLASS/*.JPEG, "
                f"or give its place by {option('data_root')}"
            )
    return files_of(root / FOLDERS["train"], root / FOLDERS[split], ())


def files_of(training: Path, folder: Path, remarks: tuple[str, ...]) -> ImageFiles:
    """The pictures in the class folders of `folder`; classes are the folders in `training`.

    Files of other endings are counted in its `remarks`. DataError as for `load_imagenet`.
    """
    classes, names, others = _classes(training), list[bytes](), Counter[str]()
    counts = np.zeros(len(classes), np.int64)
    for name in _classes(folder):
        if name not in classes:
            raise DataError(
                f"{folder / name} is no class of training ({len(classes)} folders in "
                f"{training}): take it away or add it there"
            )
        pictures = _pictures(folder / name, others)
        counts[classes.index(name)] = len(pictures)
        names += [os.fsencode(os.path.join(name, file)) for file in pictures]
    if others:
        listed = ", ".join(f"{count} files {ending}" for ending, count in others.most_common(4))
        remarks = (*remarks, f"skipped: {listed}")
    if folder == training and not counts.all():
        empty = classes[int(np.flatnonzero(counts == 0)[0])]
        raise DataError(f"{folder / empty} holds no pictures: add some or take the folder away")
    if not names:
        raise DataError(f"the folders in {folder} hold no pictures ({', '.join(SUFFIXES)})")
    labels = np.repeat(np.arange(len(classes)), counts)
    return ImageFiles(folder, np.array(names), labels, tuple(classes), remarks)


def require_pillow() -> None:
    """DataError where Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"reading pictures from files needs Pillow ({error}): pip install 'sgas[imagenet]'"
        ) from error


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _classes(folder: Path) -> list[str]:
    """The names of the class folders in `folder`, sorted; DataError where it has none."""
    names = class_folders(folder)
    if not names:
        loose = len(_pictures(folder, Counter()))
        raise DataError(
            f"{folder} has no folders of classes ({loose} pictures lie there themselves): sort "
            "the pictures into one folder for each class"
        )
    return names


def _pictures(folder: Path, others: Counter[str]) -> list[str]:
    """The names of the pictures in `folder`, sorted; `others` counts what else there is."""
    pictures = []
    for name in sorted(os.listdir(folder)):
        if name.lower().endswith(SUFFIXES) and not name.startswith("."):
            pictures.append(name)
        elif not name.startswith("."):
            others[Path(name).suffix or "without an ending"] += 1
    return pictures
