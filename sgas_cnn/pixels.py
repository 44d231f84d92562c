"""Pixels of pictures: grey or RGB, 8 bits, by what a picture is and not by how its file keeps it.

Dimensions: H rows, W columns, C channels.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sgas.errors import DataError
from sgas.own.keep import as_array

if TYPE_CHECKING:
    from PIL.Image import Image

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
DEEP = 257  # 16 bits in steps of 8


def plain(picture: Image) -> Image:
    """A picture in mode L (grey) or RGB, turned as its EXIF orientation says.

    Colours of a palette, CMYK, YCbCr and others become RGB, 16 bits the upper 8, black and white
    0 and 255. What is transparent lies on white. DataError for numbers that are no such pixels.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(picture)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if grey else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode[0] in "IF":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of more than 8 bits `[H, W]` as uint8."""
    low, high = float(values.min()), float(values.max())
    if mode == "F" and 0 <= low <= high <= 1:
        return np.rint(255 * values).astype(np.uint8)
    if mode == "F" or not 0 <= low <= high < 2**16:
        raise DataError(
            f"a picture of mode {mode} has values from {low:.4g} to {high:.4g}; write grey or RGB "
            "of 8 or 16 bits"
        )
    deep = mode != "I" or high > 255
    return np.rint(values / (DEEP if deep else 1)).astype(np.uint8)


def as_bytes(sample: Any, number: int) -> np.ndarray:
    """An image in memory as uint8 `[H, W, C]` or `[H, W]`.

    One of Pillow's, uint8, truths (255 where true), floats from 0 to 1, or a tensor `[C, H, W]` of
    these. DataError for other values.
    """
    image = as_array(plain(sample) if hasattr(sample, "getbands") else sample)
    first, last = (image.shape[0], image.shape[-1]) if image.ndim == 3 else (0, 0)
    if first in (1, 3) and (hasattr(sample, "detach") or last not in (1, 3)):
        image = image.transpose(1, 2, 0)
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "b":
        return np.where(image, 255, 0).astype(np.uint8)
    numbers = image.dtype.kind in "fiu" and image.size > 0
    low, high = (float(image.min()), float(image.max())) if numbers else (0.0, -1.0)
    if image.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise DataError(
            f"image {number} is {image.dtype} from {low:.4g} to {high:.4g}; give uint8, or floats "
            "from 0 to 1, before any normalisation"
        )
    return np.rint(255 * image).astype(np.uint8)


def unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises for damaged files."""
    from PIL import Image

    return (*DAMAGED, Image.DecompressionBombError)
