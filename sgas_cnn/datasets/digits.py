"""Handwritten digits that scikit-learn brings along: real images that need no download.

Source: the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak, 1998), 8x8 pixels. Each pixel becomes a square of four: after the two halvings of a network,
16x16 leave 4x4, where 8x8 would leave 2x2, smaller than any window of the candidate operations.
"""

from __future__ import annotations

import numpy as np

from sgas.data import LabelledArrays, stratified_parts

TEST_FRACTION = 0.2
# The split is the same for every seed, as if it had been published.
SPLIT_SEED = 0
BRIGHTEST = 16  # of the pixels as stored
ENLARGED = 2


def load_digits(split: str) -> LabelledArrays:
    """One split: inputs uint8 `[N, 16, 16, 1]`, labels int64 `[N]`; 1,438 train and 359 test."""
    from sklearn import datasets

    digits = datasets.load_digits()
    labels = digits.target.astype(np.int64)
    parts = stratified_parts(labels, (1 - TEST_FRACTION, TEST_FRACTION), SPLIT_SEED)
    chosen = parts[0] if split == "train" else parts[1]
    pixels = np.rint(digits.images[chosen] * (255 / BRIGHTEST)).astype(np.uint8)
    enlarged = pixels.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)[..., None]
    return LabelledArrays(enlarged, labels[chosen], tuple(str(name) for name in range(10)))
