"""Pictures of one's own: a folder with a folder of pictures for each class.

    DIR/train/CLASS/*.png and DIR/test/CLASS/*.png (or val, valid, validation), or DIR/CLASS/*.png

Pictures that are all of one size, MOST_PIXELS a side at most, are held in memory, grey where all of
training are; others are read while training (`sgas_cnn.file_source`), as ImageNet's.

Dimensions: N pictures.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.folders import NO_TEST
from sgas.own.npz import available_memory
from sgas_cnn.datasets.imagenet import ImageFiles, class_folders, files_of, require_pillow
from sgas_cnn.pixels import plain, unreadable

TEST_FOLDERS = ("test", "val", "valid", "validation")
MOST_PIXELS = 96  # of a side
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")


def holds_pictures(folder: Path) -> bool:
    """Whether a folder is to be read as class folders: it has folders in it, and no `.npz` file."""
    return folder.is_dir() and not any(folder.glob("*.npz")) and bool(class_folders(folder))


def _places(folder: Path) -> tuple[Path, Path | None, tuple[str, ...]]:
    """Where the class folders of training and of test are, and what is not used."""
    if not (folder / "train").is_dir():
        return folder, None, (NO_TEST,)
    others = [name for name in TEST_FOLDERS if (folder / name).is_dir()]
    rest = [f"{name}/" for name in class_folders(folder) if name not in ("train", *others[:1])]
    unused = (f"not used: {', '.join(rest)}",) if rest else ()
    unused = unused if others else (*unused, NO_TEST)
    return folder / "train", folder / others[0] if others else None, unused


def has_test(folder: Path) -> bool:
    """Whether a folder of pictures has a test part."""
    return _places(folder)[1] is not None


def load_pictures(folder: Path, split: str) -> LabelledArrays | ImageFiles:
    """One split, the classes of which are the folders of training, sorted by name.

    DataError where there is no such split, a folder of test is no class of training, a class has no
    picture, and, of pictures in memory, where one cannot be read.
    """
    require_pillow()
    train, test, unused = _places(folder)
    if split == "test" and test is None:
        raise DataError(
            f"{folder} has no test part: put its class folders into {folder / 'test'} and those of "
            f"training into {folder / 'train'}"
        )
    training = files_of(train, train, unused)
    size, grey = _common(training)
    files = training if split == "train" else files_of(train, test or train, ())
    return files if size is None else _in_memory(files, size, grey)


def _common(files: ImageFiles) -> tuple[tuple[int, int] | None, bool]:
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


def _in_memory(files: ImageFiles, size: tuple[int, int], grey: bool) -> LabelledArrays:
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


def describe_pictures(path: str | Path) -> dict[str, Any]:
    """A folder of class folders as JSON values; raises for nothing that it may hold.

    Keys: `path`; `images` by split; `classes`, each with `name` and its counts; `not_used`, what is
    skipped; `problems`, which keep the folder from being used; `warnings`, which do not.
    """
    folder = Path(path)
    described: dict[str, Any] = {"path": str(folder)}
    problems, remarks = [], []
    counts: dict[str, Counter[int]] = {}
    classes: tuple[str, ...] = ()
    for split in ("train", "test") if has_test(folder) else ("train",):
        try:
            part = load_pictures(folder, split)
        except DataError as error:
            problems.append(str(error))
            continue
        counts[split], classes = Counter(part.labels.tolist()), part.classes
        remarks += [remark for remark in part.remarks if remark not in remarks]
    return {
        **described,
        "images": {split: sum(of.values()) for split, of in counts.items()},
        "classes": [
            {"name": name, **{split: of[number] for split, of in counts.items()}}
            for number, name in enumerate(classes)
        ],
        "remarks": remarks,
        "problems": problems,
        "warnings": [],
    }
