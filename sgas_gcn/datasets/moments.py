"""Mean and deviation of each feature, and which features lie too far from 0 for float32.

Dimensions: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FAR = 1e3  # deviations from 0, where three of float32's seven digits are gone
SHOWN = 4  # features that a warning names
ADVICE = "give --standardize true"
BLOCK = 4096  # rows that are taken to float64 at once


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation `[D]` of features, float64; a constant's deviation is 0."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[np.ndarray]) -> Moments:
        """Those of all rows of `parts`, each `[N, D]`, of which one has a row."""
        parts = [part for part in parts if len(part)]
        count = sum(map(len, parts))
        mean = np.sum([part.sum(0, dtype=np.float64) for part in parts], axis=0) / count
        blocks = (part[at : at + BLOCK] for part in parts for at in range(0, len(part), BLOCK))
        variance = sum(np.square(block - mean).sum(0) for block in blocks) / count
        lowest, highest = (
            np.stack([bound(part, axis=0) for part in parts]) for bound in (np.min, np.max)
        )
        constant = lowest.min(0) == highest.max(0)
        return cls(mean, np.where(constant, 0.0, np.sqrt(variance)))

    @property
    def scale(self) -> np.ndarray:
        """What brings each deviation to 1, `[D]`; 1 for constants."""
        return 1 / np.where(self.std > 0, self.std, 1.0)

    def warnings(self, advice: str = ADVICE, what: str = "features") -> list[str]:
        """One that names the features that lie far from 0, with `advice`; none where none does.

        `what` is what they are called. Constants are compared with the largest deviation of all.
        """
        largest = self.std.max() or 1.0
        ratio = np.abs(self.mean) / np.where(self.std > 0, self.std, largest)
        far = np.flatnonzero(ratio >= FAR)
        if not len(far):
            return []
        shown = ", ".join(f"{number} ({ratio[number]:.3g})" for number in far[:SHOWN])
        more = f" and {len(far) - SHOWN} more" if len(far) > SHOWN else ""
        return [
            f"{what} whose mean is {FAR:.0f} or more times their deviation, of which float32 "
            f"keeps few digits: {shown}{more}; {advice}"
        ]


def edge_warnings(attributes: Sequence[np.ndarray]) -> list[str]:
    """Which attributes of edges, `[E, A]` in parts, are far from 0 or large: no norm mends them."""
    if not any(map(len, attributes)):
        return []
    moments, what = Moments.of(attributes), "attributes of edges"
    large = np.flatnonzero(np.hypot(moments.mean, moments.std) >= FAR)
    told = moments.warnings("standardise them in the data", what)
    if len(large) and not told:
        shown = ", ".join(map(str, large[:SHOWN]))
        told = [f"{what} as large as {FAR:.0f} and more: {shown}; standardise them in the data"]
    return told
