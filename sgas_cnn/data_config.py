"""Options of the image data sets: how images are read and changed while training."""

from __future__ import annotations

from dataclasses import dataclass

from sgas.config import option, validate


@dataclass(frozen=True)
class ImageDataConfig:
    """How images are changed while training; evaluation takes them as they are.

    `crop_padding` and `cutout` are for images in memory; `jitter`, `image_size` and `num_workers`
    for those that are read from files, which training cuts out at random size and place.
    """

    crop_padding: int = option(
        4, "pixels of black around an image, of which a window is cut at random", low=0, high=64
    )
    flip: bool = option(True, "mirror every other image, left to right")
    cutout: int = option(
        0, "side in pixels of a square that is blanked in each image (0: none)", low=0, high=256
    )
    jitter: float = option(
        0.0,
        "largest change of brightness, contrast and saturation; that of the hue is half of it",
        low=0,
        high=1,
    )
    image_size: int | None = option(
        None, "side in pixels that images from files are brought to; default 224", low=16
    )
    num_workers: int | None = option(
        None, "processes that read image files; default one for each core, 8 at most", low=0
    )

    def __post_init__(self) -> None:
        validate(self)
