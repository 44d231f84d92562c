"""Folders of .npz files of one's own, of clouds and of images, sound ones and others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgas.errors import DataError
from sgas_cnn.config import ImageDataConfig
from sgas_cnn.datasets import folder as image_folder
from sgas_cnn.datasets import load_images
from sgas_gcn.config import PointDataConfig
from sgas_gcn.datasets import folder as cloud_folder
from sgas_gcn.datasets import load_points

CLASSES = np.array(["a", "b", "c"])


@dataclass(frozen=True)
class Kind:
    """A kind of sample: the array that holds six of them, and how a folder of it is read."""

    package: str
    key: str
    noun: str
    draw: Callable[[np.random.Generator], np.ndarray]
    read: Callable[..., Any]
    module: Any
    unknown: tuple[str, str]
    sizes: dict[str, int]
    warnings: tuple[str, ...]

    def samples(self, seed: int = 0) -> np.ndarray:
        """Six of them."""
        return self.draw(np.random.default_rng(seed))

    def write(self, folder: Path, name: str, **arrays: Any) -> None:
        """Six samples of three classes; keywords replace arrays, None leaves one out."""
        content = {self.key: self.samples(sum(name.encode())), "label": np.arange(6) % 3, **arrays}
        kept = {key: value for key, value in content.items() if value is not None}
        np.savez(folder / name, **kept)

    def sound(self, folder: Path) -> Path:
        """A folder with nothing wrong, whose files tests replace."""
        for split in ("train", "test"):
            self.write(folder, f"{split}.npz", classes=CLASSES)
        return folder

    def failure(self, folder: Path, split: str = "train") -> str:
        """The error of loading; `check` lists it too, and raises none."""
        report = self.module.describe_folder(folder)
        json.dumps(report, allow_nan=False)
        with pytest.raises(DataError) as caught:
            self.read(str(folder), split)
        message = str(caught.value)
        assert "\n" not in message
        assert any(message.startswith(problem) for problem in report["problems"])
        return message


KINDS = {
    "cloud": Kind(
        "sgas_gcn",
        "points",
        "cloud",
        lambda generator: generator.normal(size=(6, 20, 3)).astype(np.float32),
        lambda folder, split, target="auto", part=0.0: load_points(
            folder, split, "unused", 20, 0, PointDataConfig(target=target, test_fraction=part)
        ),
        cloud_folder,
        ("modelnet4", r"did you mean modelnet40\?.*shapes.*path of a folder"),
        {"points_per_cloud": 20, "channels": 3},
        ("1 clouds have all their points in one place", "unit sphere"),
    ),
    "image": Kind(
        "sgas_cnn",
        "image",
        "image",
        lambda generator: generator.integers(0, 256, (6, 6, 8, 3), dtype=np.uint8),
        lambda folder, split, target="auto", part=0.0: load_images(
            folder, split, "unused", 0, ImageDataConfig(target=target, test_fraction=part)
        ),
        image_folder,
        ("cifar", r"did you mean cifar10\?.*digits.*path of a folder"),
        {"height": 6, "width": 8, "channels": 3},
        (
            "1 training images repeat another training image",
            "1 images have one colour alone",
            "have to be multiplied by 255",
        ),
    ),
}
