"""Options of the image supernets and networks, and the names of their search spaces."""

from __future__ import annotations

from dataclasses import dataclass

from sgas.cells.space import SearchSpace
from sgas.config import (
    AUTO,
    MSE,
    NUMBER_LOSS,
    NUMBER_LOSSES,
    TARGET,
    TARGETS,
    TEST_FRACTION,
    option,
    validate,
)
from sgas.errors import ConfigError

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NASBENCH201_OPERATIONS = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)

IMAGE_SPACE = SearchSpace(
    "image",
    dict.fromkeys(OPERATIONS),
    ("normal", "reduce"),
    published_only=("sep_conv_7x7", "conv_7x1_1x7"),
)
NASBENCH201_SPACE = SearchSpace(
    "nasbench201",
    dict.fromkeys(NASBENCH201_OPERATIONS),
    num_inputs=1,
    in_degree=None,
    num_outputs=1,
)

STEMS = ("cifar", "imagenet")


@dataclass(frozen=True)
class ImageModelConfig:
    """Size of an image supernet or network."""

    channels: int = option(16, "channels of a state before any reduction (C)", low=1)
    num_cells: int = option(8, "cells; those at 1/3 and 2/3 of the depth reduce", low=1)
    num_steps: int = option(
        4, "steps of a cell; the last four are its output", low=4, high=16, verbs=("search",)
    )
    stem: str = option(
        "cifar", "cifar: images as they are; imagenet: an eighth of their size", choices=STEMS
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.stem == "imagenet" and self.channels % 2:
            raise ConfigError(
                f"channels is {self.channels}; stem imagenet halves them: give an even number"
            )


@dataclass(frozen=True)
class NasBench201Config:
    """Size of a supernet or network of the NAS-Bench-201 space."""

    channels: int = option(
        16, "channels of the first stage (C); later stages have 2C and 4C", low=1
    )
    num_cells: int = option(5, "cells in each of the three stages", low=1)
    num_steps: int = option(3, "steps of a cell", low=1, high=16, verbs=("search",))

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ImageDataConfig:
    """How images are changed while training, and what own data is; evaluation changes nothing.

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
    target: str = option(AUTO, TARGET, choices=TARGETS)
    number_loss: str = option(MSE, NUMBER_LOSS, choices=NUMBER_LOSSES)
    test_fraction: float = option(0.0, TEST_FRACTION, low=0, high=0.5)

    def __post_init__(self) -> None:
        validate(self)
