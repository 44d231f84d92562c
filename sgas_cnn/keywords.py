"""The options of `search` and `train` for images, as typed keywords."""

from __future__ import annotations

from typing import Literal, TypedDict

from sgas.keywords import RunOptions, SearchLoopOptions, TrainLoopOptions


class NetworkOptions(TypedDict, total=False):
    """Fields of the model and data configs of both spaces."""

    channels: int
    num_cells: int
    stem: Literal["cifar", "imagenet"]
    crop_padding: int
    flip: bool
    cutout: int
    jitter: float
    image_size: int | None
    num_workers: int | None
    target: Literal["auto", "class", "labels", "numbers"]
    number_loss: Literal["mse", "mae"]
    test_fraction: float


class SearchOptions(RunOptions, SearchLoopOptions, NetworkOptions, total=False):
    """Options of `sgas_cnn.search`."""

    num_steps: int


class TrainOptions(RunOptions, TrainLoopOptions, NetworkOptions, total=False):
    """Options of `sgas_cnn.train`."""
