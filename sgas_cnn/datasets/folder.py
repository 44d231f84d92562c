"""Images of one's own: loads and describes a folder with `train*.npz` and `test*.npz`.

The format (the rest is in `sgas.own.folders`): `image` uint8 `[N, H, W, 3]`, or `[N, H, W]` or
`[N, H, W, 1]` for grey ones, and `label` integers `[N]`.

Dimensions: N images, H rows, W columns, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sgas.config import AUTO
from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.folders import (
    SPLITS,
    Duplicates,
    SampleFile,
    SampleKind,
    class_warnings,
    describe_scan,
    duplicate_warnings,
    present_splits,
    refuse,
    scan_folder,
)
from sgas.own.npz import ArrayHeader, available_memory, in_words, read_array

SMALLEST = 4  # pixels of a side: two halvings leave one
CHANNELS = (1, 3)


def _header_problems(image: ArrayHeader) -> Iterator[str]:
    """What is wrong with the type and shape of `image`."""
    if image.dtype != np.uint8:
        advice = "write uint8 from 0 to 255"
        if image.dtype.kind == "f":
            advice += " (where values run from 0 to 1: np.rint(255 * image).astype(np.uint8))"
        yield f"image is {image.dtype}; {advice}"
    shape, wanted = image.shape, "wanted is [images, height, width, 3], or 1 for grey ones"
    if len(shape) not in (3, 4) or _sample_shape(shape)[2] not in CHANNELS:
        first = len(shape) == 4 and shape[1] in CHANNELS
        advice = ": put channels last with image.transpose(0, 2, 3, 1)" if first else ""
        yield f"image has shape {list(shape)}; {wanted}{advice}"
    elif min(shape[1:3]) < SMALLEST:
        yield f"image has shape {list(shape)}; height and width have to be {SMALLEST} at least"


def _sample_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`(H, W, C)` of an array of images; grey images may have no axis of channels."""
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def _missing_hint(headers: Mapping[str, ArrayHeader]) -> str:
    """What to do where a file holds JPEG streams."""
    if {"data", "offset"} <= set(headers):
        return (
            "it seems to hold compressed images: decode each with Pillow and write them with "
            "np.savez as image, uint8 [images, height, width, 3]"
        )
    return ""


IMAGES = SampleKind(
    array="image",
    one="image",
    many="images",
    axes=("height", "width", "channels"),
    shared_axes=("height", "width", "channels"),
    problems=_header_problems,
    shape=_sample_shape,
    missing_hint=_missing_hint,
)


def load_folder(folder: Path, split: str, target: str = AUTO) -> LabelledArrays:
    """One split: inputs uint8 `[N, H, W, C]` with C 1 or 3, labels int64 `[N]`.

    The test files are opened for split "test" alone; the training files always, since they say
    which classes there are. DataError with the first problem of the folder, the files or the
    labels.
    """
    more = f"sgas-cnn check {folder}"
    scan = scan_folder(folder, ("train",) if split == "train" else SPLITS, IMAGES, target)
    refuse(scan.problems, more)
    files = scan.files[split]
    refuse(_size_problems(folder, files), more)
    inputs = np.empty((sum(len(file) for file in files), *files[0].sample_shape), np.uint8)
    start = 0
    for file in files:
        inputs[start : start + len(file)] = read_images(file)
        start += len(file)
    labels = np.concatenate([file.labels for file in files])
    return LabelledArrays(inputs, labels, scan.classes, scan.remarks)


def read_images(file: SampleFile) -> np.ndarray:
    """The images uint8 `[N, H, W, C]` of a file without problems; DataError where it is damaged."""
    return read_array(file.path, "image").reshape(len(file), *file.sample_shape)


def _size_problems(folder: Path, files: list[SampleFile]) -> Iterator[str]:
    """Why the images of these files do not fit."""
    wanted = sum(file.nbytes for file in files) + max(file.nbytes for file in files)
    free = available_memory()
    if wanted > free:
        yield (
            f"{folder}: loading takes {in_words(wanted)}, {in_words(free)} of memory are free: "
            "use fewer or smaller images"
        )


@dataclass
class Values:
    """What the pixels of the files read so far tell."""

    lowest: int = 255
    highest: int = 0
    plain: int = 0
    duplicates: Duplicates = field(default_factory=Duplicates)

    def add(self, split: str, images: np.ndarray) -> None:
        """Takes note of images `[N, H, W, C]` of a split."""
        lowest, highest = images.min(axis=(1, 2)), images.max(axis=(1, 2))  # [N, C]
        self.lowest = min(self.lowest, int(lowest.min()))
        self.highest = max(self.highest, int(highest.max()))
        self.plain += int((lowest == highest).all(axis=1).sum())
        self.duplicates.add(split, images)


def describe_folder(path: str | Path, target: str = AUTO) -> dict[str, Any]:
    """A folder's contents as JSON values; raises for nothing that its files may hold.

    Keys: `path`; `files`, `images` and `classes` as `sgas.own.folders.describe_scan` has them;
    `height`, `width` and `channels` of training; `value_range` (null where nothing could be read);
    `duplicates_between_splits` and `duplicates_in_train`, images with equal pixels; `remarks`, what
    is not used; `problems`, which keep the folder from being used; `warnings`, which do not.
    """
    folder = Path(path)
    scan = scan_folder(folder, present_splits(folder), IMAGES, target)
    problems, values = list(scan.problems), Values()
    for split, files in scan.files.items():
        for file in files:
            problems += [] if file.problems else _read_values(split, file, values)
    train = next((file for file in scan.files.get("train", []) if not file.problems), None)
    shape = train.sample_shape if train else (None, None, None)
    return {
        "path": str(folder),
        **describe_scan(scan),
        **dict(zip(IMAGES.axes, shape, strict=True)),
        "value_range": [values.lowest, values.highest] if values.lowest <= values.highest else None,
        "duplicates_between_splits": values.duplicates.between_splits,
        "duplicates_in_train": values.duplicates.in_train,
        "remarks": [*scan.remarks],
        "problems": problems,
        "warnings": [
            *duplicate_warnings(values.duplicates, IMAGES),
            *_value_warnings(values),
            *class_warnings(scan),
        ],
    }


def _read_values(split: str, file: SampleFile, values: Values) -> list[str]:
    """Adds a file's images to `values`; the problems that reading them shows."""
    try:
        values.add(split, read_images(file))
    except DataError as error:
        return [str(error)]
    return []


def _value_warnings(values: Values) -> Iterator[str]:
    """What pixels may be and yet seldom are meant to be."""
    if values.plain:
        yield f"{values.plain} images have one colour alone"
    if values.lowest <= values.highest <= 1:
        yield "no pixel is above 1: values from 0 to 1 have to be multiplied by 255"
