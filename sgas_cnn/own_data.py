"""Images that a program holds in memory, as a folder that every verb can open.

Dimensions: H rows, W columns, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgas.config import AUTO
from sgas.own.keep import Arrays, keep, labelled, name_of, pairs, stacked
from sgas_cnn.pixels import as_bytes


def keep_own(dataset: Any, test: Any | None, root: str, target: str = AUTO) -> Path:
    """The folder of a data set held in memory, with or without a test part.

    A map-style `torch.utils.data.Dataset` of (image, label), or a pair of arrays. An image is uint8
    `[H, W, C]` or `[H, W]`, one of Pillow's, or a tensor `[C, H, W]`; floats run from 0 to 1. Grey
    ones become RGB where others are.
    DataError where it is none of these.
    """
    files = {"train": _images(dataset, target)}
    if test is not None:
        files["test"] = _images(test, target)
    return keep(root, name_of(dataset), files)


def _images(dataset: Any, target: str) -> Arrays:
    images, labels = [], []
    for number, (sample, label) in enumerate(pairs(dataset, "image")):
        images.append(as_bytes(sample, number))
        labels.append(label)
    return labelled("image", stacked(_all_rgb(images), "image"), labels, dataset, target)


def _all_rgb(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images `[H, W, C]`, grey ones with three equal channels where any has three."""
    deep = [image if image.ndim == 3 else image[..., None] for image in images]
    most = max(image.shape[2] for image in deep)
    if most != 3:
        return deep
    return [np.repeat(i, 3, axis=2) if i.shape[2] == 1 else i for i in deep]
