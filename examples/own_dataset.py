"""Searches a cell on a data set of one's own that has a name: images of upright and lying bars.

A folder of arrays or data in memory need no plug-in (`own_images.py`); a name is for data that is
made or downloaded by a function.
"""

from pathlib import Path

import numpy as np

import sgas_cnn
from sgas.data import LabelledArrays
from sgas.registry import dataset


@dataset("bars", space="image", help="generated bars, upright or lying; no download")
def load_bars(split: str, data_root: Path, seed: int) -> LabelledArrays:
    """One split, "train" or "test": 400 or 100 images uint8 `[N, 16, 16, 1]` of 2 classes."""
    draw = np.random.default_rng([seed, split == "test"])
    labels = np.arange(400 if split == "train" else 100) % 2
    images = draw.integers(0, 160, (len(labels), 16, 16, 1))
    for image, label, place in zip(images, labels, draw.integers(0, 13, len(labels)), strict=True):
        image[:, place : place + 3] += 95 * label
        image[place : place + 3] += 95 * (1 - label)
    return LabelledArrays(images.astype(np.uint8), labels, ("lying", "upright"))


if __name__ == "__main__":
    short = {"warmup_epochs": 0, "decision_interval": 1, "final_epochs": 0}
    small = {"preset": "demo", "channels": 4, "num_cells": 3, "batch_size": 90}
    print(sgas_cnn.search("bars", plugins=[__file__], **short, **small))
