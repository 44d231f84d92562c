"""ImageNet, or any folder of pictures laid out like it: which files belong to which class.

    DATA_ROOT/imagenet/train/CLASS/*.JPEG    or DATA_ROOT/train/…, where there is no imagenet
    DATA_ROOT/imagenet/val/CLASS/*.JPEG      the test split; the published test labels are secret

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015. Pictures
are read while training (`sgas_cnn.file_source`): the whole does not fit into memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sgas.errors import DataError, option

FOLDERS = {"train": "train", "test": "val"}
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class ImageFiles:
    """One split as files: `names` below `folder` as bytes `[N]`, labels int64 `[N]`, class names.

    Names are one array: a list of a million strings would be copied into every reading process.
    """

    folder: Path
    names: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, number: int) -> str:
        """The name of a file below the folder."""
        return os.fsdecode(self.names[number])

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
    classes = _subfolders(root / FOLDERS["train"], data_root)
    folder = root / FOLDERS[split]
    names: list[bytes] = []
    counts = np.zeros(len(classes), np.int64)
    for name in _subfolders(folder, data_root):
        if name not in classes:
            raise DataError(
                f"{folder / name} is no class of training ({len(classes)} folders in "
                f"{root / FOLDERS['train']}): take it away or add it there"
            )
        pictures = _pictures(folder / name)
        counts[classes.index(name)] = len(pictures)
        names += [os.fsencode(os.path.join(name, file)) for file in pictures]
    if split == "train" and not counts.all():
        empty = classes[int(np.flatnonzero(counts == 0)[0])]
        raise DataError(f"{folder / empty} holds no pictures: add some or take the folder away")
    if not names:
        raise DataError(f"the folders in {folder} hold no pictures ({', '.join(SUFFIXES)})")
    labels = np.repeat(np.arange(len(classes)), counts)
    return ImageFiles(folder, np.array(names), labels, tuple(classes))


def require_pillow() -> None:
    """DataError where Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"reading pictures from files needs Pillow ({error}): pip install 'sgas[imagenet]'"
        ) from error


def _subfolders(folder: Path, data_root: Path) -> list[str]:
    """The names of the class folders in `folder`, sorted; DataError where it has none."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist: put ImageNet into {data_root.resolve() / 'imagenet'} as "
            f"train/CLASS/*.JPEG and val/CLASS/*.JPEG, or give its place by {option('data_root')}"
        )
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        loose = len(_pictures(folder))
        raise DataError(
            f"{folder} has no folders of classes ({loose} pictures lie there themselves): sort "
            "the pictures into one folder for each class"
        )
    return names


def _pictures(folder: Path) -> list[str]:
    """The names of the pictures in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        )
