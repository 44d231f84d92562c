"""How the inputs of a trained network of images are made of what a user has.

Dimensions: B images, H rows, W columns, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.family import Samples
from sgas.labels import Labels, restored
from sgas.own.class_folders import is_data_set
from sgas.own.samples import ARRAYS, array_of, in_chunks, samples_of
from sgas_cnn.augment import normalized
from sgas_cnn.datasets import DATASETS
from sgas_cnn.datasets.imagenet import SUFFIXES, require_pillow
from sgas_cnn.pixels import as_bytes, plain, unreadable

if TYPE_CHECKING:
    from sgas.config import RunConfig


@dataclass(frozen=True)
class ImagePreparation:
    """Images uint8 `[height, width, in_channels]`, normalised by `mean` and `std` of each channel.

    Pictures in files of another size are cut and scaled: with `margin` as the evaluation of a
    network that was trained on files does (`sgas_cnn.file_source.middle`), else to the whole of
    their middle. `target` is how answers were compared with targets (`sgas.labels.kept`).
    """

    in_channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    margin: bool
    target: Mapping[str, Any] = field(default_factory=dict)

    row_name: ClassVar[str] = ""

    @property
    def labels(self) -> Labels:
        """One class an image, many labels or numbers, as in training."""
        return restored(self.target)

    def read(self, data: Any, run: RunConfig, options: Any) -> Samples:
        """Images from arrays, lists, data sets, Pillow's images, and files: pictures, `.npz`."""
        if isinstance(data, str | Path):
            return self._of_path(Path(data), run, options)
        images, alone = samples_of(data, "image", self._is_one)
        if all(isinstance(image, str | Path) for image in images):
            return self._of_files([Path(image) for image in images], alone)
        items = [self._checked(n, as_bytes(self._colours(i), n)) for n, i in enumerate(images)]
        return Samples(items, [str(number) for number in range(len(items))], alone)

    def _colours(self, image: Any) -> Any:
        """One of Pillow's in the network's colours; everything else as it is."""
        if not hasattr(image, "getbands"):
            return image
        return plain(image).convert("L" if self.in_channels == 1 else "RGB")

    def _is_one(self, data: Any) -> bool:
        """Whether an array is one image: `[H, W]`, or three axes of which one is of channels.

        Of grey images an array `[1, H, W]` is a row of one, as its neighbours are; a tensor is one.
        """
        if hasattr(data, "getbands"):  # Pillow's
            return True
        shape = tuple(getattr(data, "shape", ()))
        rows_first = self.in_channels == 1 and not hasattr(data, "detach")
        places = shape[-1:] if rows_first else (*shape[:1], *shape[-1:])
        return len(shape) == 2 or (len(shape) == 3 and self.in_channels in places)

    def _of_path(self, path: Path, run: RunConfig, options: Any) -> Samples:
        if path.suffix.lower() in SUFFIXES:
            return self._of_files([path], True)
        if path.suffix.lower() in ARRAYS:
            return self.read(array_of(path, "image"), run, options)
        own = str(path) not in DATASETS and path.is_dir()
        if own and not is_data_set(path, options.test_fraction):
            pictures = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES)
            return self._of_files(pictures, False)
        from sgas_cnn.datasets import load_images

        split = load_images(str(path), "test", run.data_root, run.seed, options)
        targets = torch.from_numpy(split.labels)
        if not isinstance(split, LabelledArrays):
            files = [split.folder / split.name(number) for number in range(len(split))]
            return self._of_files(files, False, targets, split.classes)
        items = [self._checked(number, image) for number, image in enumerate(split.inputs)]
        names = [str(number) for number in range(len(items))]
        return Samples(items, names, False, targets, split.classes)

    def _of_files(
        self,
        paths: Sequence[Path],
        alone: bool,
        targets: Tensor | None = None,
        classes: tuple[str, ...] = (),
    ) -> Samples:
        require_pillow()
        if not paths:
            raise DataError(f"there are no pictures to predict ({', '.join(SUFFIXES)})")
        return Samples(
            Pictures(self, paths), [str(path) for path in paths], alone, targets, classes
        )

    def _checked(self, number: int, image: np.ndarray) -> np.ndarray:
        image = image[..., None] if image.ndim == 2 else image
        wanted = (self.height, self.width, self.in_channels)
        if image.shape != wanted:
            raise DataError(
                f"image {number} is {image.shape} (rows, columns, channels), the network was "
                f"trained on {wanted}: scale it, or give it as a file, which is scaled"
            )
        return image

    def picture(self, path: Path) -> np.ndarray:
        """The picture in a file, cut and scaled; DataError where it cannot be read."""
        from PIL import Image, ImageOps

        from sgas_cnn.file_source import middle

        try:
            with Image.open(path) as file:
                image: Any = self._colours(file)
        except unreadable() as error:
            raise DataError(f"{path} cannot be read as a picture ({error})") from None
        size = (self.width, self.height)
        if self.margin:
            image = middle(image, self.height)
        elif image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(self.height, self.width, self.in_channels)

    def batches(
        self, items: Sequence[np.ndarray], batch_size: int, device: torch.device
    ) -> Iterator[tuple[Sequence[int], Tensor, Sequence[int]]]:
        """Normalised images `[B, C, H, W]`."""
        for numbers in in_chunks(range(len(items)), batch_size):
            images = torch.from_numpy(np.stack([items[number] for number in numbers])).to(device)
            yield numbers, normalized(images, self.mean, self.std), [1] * len(numbers)


class Pictures(Sequence[np.ndarray]):
    """Pictures in files, each read when it is asked for."""

    def __init__(self, preparation: ImagePreparation, paths: Sequence[Path]) -> None:
        self.preparation, self.paths = preparation, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> Any:
        return self.preparation.picture(self.paths[number])
