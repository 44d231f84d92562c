"""Images that a program holds in memory, as a folder that every verb can open.

Dimensions: H rows, W columns, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sgas.errors import DataError
from sgas.own.keep import Arrays, as_array, keep, labelled, name_of, pairs, stacked


def keep_own(dataset: Any, test: Any | None, root: str) -> Path:
    """The folder of a data set held in memory, with or without a test part.

    A map-style `torch.utils.data.Dataset` of (image, label), or a pair of arrays. An image is uint8
    `[H, W, C]` or `[H, W]`, one of Pillow's, or a tensor `[C, H, W]`; floats run from 0 to 1.
    DataError where it is none of these.
    """
    files = {"train": _images(dataset)}
    if test is not None:
        files["test"] = _images(test)
    return keep(root, name_of(dataset), files)


def _images(dataset: Any) -> Arrays:
    images, labels = [], []
    for number, (sample, label) in enumerate(pairs(dataset, "image")):
        images.append(as_bytes(sample, number))
        labels.append(label)
    return labelled("image", stacked(images, "image"), labels, dataset)


def as_bytes(sample: Any, number: int) -> np.ndarray:
    """An image as uint8 `[H, W, C]` or `[H, W]`."""
    image = as_array(sample)
    first, last = (image.shape[0], image.shape[-1]) if image.ndim == 3 else (0, 0)
    if first in (1, 3) and (hasattr(sample, "detach") or last not in (1, 3)):
        image = image.transpose(1, 2, 0)
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if image.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise DataError(
            f"image {number} is {image.dtype} from {low:.4g} to {high:.4g}; give uint8, or floats "
            "from 0 to 1, before any normalisation"
        )
    return np.rint(255 * image).astype(np.uint8)
