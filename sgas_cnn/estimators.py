"""Image networks with scikit-learn's manners.

Dimensions: N images, H rows, W columns, C channels.
"""

from __future__ import annotations

from typing import Any

from sgas.estimators import SampleClassifier
from sgas_cnn.family import FAMILY


class ImageClassifier(SampleClassifier):
    """A network for images, uint8 or floats from 0 to 1, `[N, H, W]`, `[N, H, W, C]` or lists.

    Tensors are `[N, C, H, W]`. Parameters and fitted attributes are those of
    `sgas.estimators.NetworkClassifier`.
    """

    family = FAMILY

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
