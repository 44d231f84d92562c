"""Pictures of one's own: a folder with a folder of pictures for each class.

Pictures that are all of one size, MOST_PIXELS a side at most, are held in memory, grey where all of
training are; others are read while training (`sgas_cnn.file_source`), as ImageNet's.

Dimensions: N pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.class_folders import ClassFiles, describe_files, load_files
from sgas.own.npz import available_memory
from sgas_cnn.datasets.imagenet import PICTURES, require_pillow
from sgas_cnn.pixels import plain, unreadable

MOST_PIXELS = 96  # of a side
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")


def load_pictures(folder: Path, split: str) -> LabelledArrays | ClassFiles:
    """One split; the classes are the folders of training, sorted by name.

    DataError as for `sgas.own.class_folders.load_files`, and for pictures in memory of which one
    cannot be read.
    """
    require_pillow()
    size, grey = _common(load_files(folder, "train", PICTURES))
    files = load_files(folder, split, PICTURES)
    return files if size is None else _in_memory(files, size, grey)


def _common(files: ClassFiles) -> tuple[tuple[int, int] | None, bool]:
    """Columns and rows of all pictures where these are few and the same, and whether all are grey.

    None for what is to be read while training.
    """
    from PIL import Image

    common, grey = None, True
    for number in range(len(files)):
        try:
            with Image.open(files.folder / files.name(number)) as image:
                size, mode = image.size, image.mode
        except unreadable():
            return None, False  # told when it is read
        common, grey = common or size, grey and mode in GREY_MODES
        if size != common or max(size) > MOST_PIXELS:
            return None, False
    fits = common is not None and len(files) * common[0] * common[1] * 3 < available_memory() / 4
    return (common if fits else None), grey


def _in_memory(files: ClassFiles, size: tuple[int, int], grey: bool) -> LabelledArrays:
    from PIL import Image

    images = np.empty((len(files), size[1], size[0], 1 if grey else 3), np.uint8)
    for number in range(len(files)):
        path = files.folder / files.name(number)
        try:
            with Image.open(path) as file:
                image = plain(file).convert("L" if grey else "RGB")
        except unreadable() as error:
            raise DataError(f"{path} cannot be read as a picture ({error})") from None
        if image.size != size:
            raise DataError(
                f"{path} is of {image.size[0]}x{image.size[1]} pixels, those of training of "
                f"{size[0]}x{size[1]}: bring all to one size"
            )
        images[number] = np.asarray(image).reshape(images.shape[1:])
    return LabelledArrays(images, files.labels, files.classes, files.remarks)


def describe_pictures(folder: str | Path) -> dict[str, Any]:
    """A folder of class folders as JSON values (`sgas.own.class_folders.describe_files`)."""
    path = Path(folder)
    return describe_files(path, PICTURES, lambda split: load_pictures(path, split), {})
