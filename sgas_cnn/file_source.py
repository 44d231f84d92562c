"""FileSource: images read from files by other processes while the model works.

Training cuts a window of random size and place out of each picture, mirrors half of them and may
change their colours; evaluation takes the middle. What chance does to a picture follows from the
run's seed, the epoch and the file's name alone: neither the number of processes nor a resume
changes it.

Dimensions: B images, S pixels of a side.
Source: the published ImageNet training of DARTS (Liu et al., ICLR 2019); windows as in Szegedy et
al., CVPR 2015.
"""

from __future__ import annotations

import ctypes
import logging
import math
import multiprocessing
import os
import signal
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sgas.data import stream_seed
from sgas.errors import DataError
from sgas.own.class_folders import ClassFiles
from sgas_cnn.augment import ImageAugmentation
from sgas_cnn.config import ImageDataConfig
from sgas_cnn.pixels import plain, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SIZE = 224
EVALUATION_SCALE = 256 / 224  # the shorter side in evaluation, in sides of the square cut out
AREA = (0.08, 1.0)  # of a training window, in areas of the picture
ASPECT = (3 / 4, 4 / 3)  # width to height of a training window
ATTEMPTS = 10  # at a window that lies inside
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # of ImageNet's training pixels
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
MOST_WORKERS = 8
LONGEST_WAIT = 300.0  # seconds for a batch: a process that is silent so long will not answer
DEATH_OF_PARENT = 1  # Linux's PR_SET_PDEATHSIG
MOST_DAMAGED = 100  # in a row; more than that and something else is wrong

Box = tuple[int, int, int, int]

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """A batch to read: sample numbers, and the epoch whose chance applies (None: evaluation)."""

    numbers: list[int]
    epoch: int | None


class Pixels(NamedTuple):
    """A batch as read: uint8 `[B, S, S, 3]`, labels `[B]`, damaged files with what is wrong.

    `failure` says why there is none.
    """

    images: Tensor
    labels: Tensor
    damaged: list[tuple[str, str]]
    failure: str | None


@dataclass(frozen=True)
class BatchReader:
    """A map-style data set whose items are whole batches, read where a worker asks for them."""

    files: ClassFiles
    config: ImageDataConfig
    seed: int

    def __getitem__(self, request: Request) -> Pixels:
        damaged: list[tuple[str, str]] = []
        samples = [self._sample(number, request.epoch, damaged) for number in request.numbers]
        whole = [sample for sample in samples if sample is not None]
        if len(whole) < len(samples):
            failure = (
                f"{MOST_DAMAGED} files in a row cannot be read, the last {damaged[-1][0]} "
                f"({damaged[-1][1]}): is all of {self.files.folder} there?"
            )
            return Pixels(torch.empty(0), torch.empty(0), damaged, failure)
        images = torch.from_numpy(np.stack([image for image, _ in whole]))
        return Pixels(images, torch.tensor([label for _, label in whole]), damaged, None)

    def _sample(
        self, number: int, epoch: int | None, damaged: list[tuple[str, str]]
    ) -> tuple[np.ndarray, int] | None:
        """Image `[S, S, 3]` and label of a file, or of the next that is whole; None where none is.

        Files are sorted by class, so the next one is nearly always of the same class.
        """
        for place in range(number, number + MOST_DAMAGED):
            name = self.files.name(place % len(self.files))
            try:
                image = self._image(name, epoch)
                return image, int(self.files.labels[place % len(self.files)])
            except unreadable() as error:
                damaged.append((name, " ".join(str(error).split()) or type(error).__name__))
        return None

    def _image(self, name: str, epoch: int | None) -> np.ndarray:
        from PIL import Image

        size = self.config.image_size or IMAGE_SIZE
        with Image.open(self.files.folder / name) as file:
            image = plain(file).convert("RGB")
        if epoch is None:
            return np.asarray(middle(image, size))
        generator = np.random.default_rng(stream_seed(self.seed, "image", epoch, name))
        image = image.crop(random_box(*image.size, generator))
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        if self.config.flip and generator.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.config.jitter:
            image = change_colors(image, self.config.jitter, generator)
        return np.asarray(image)


class FileSource:
    """A `Source` of image files, with the next batches read ahead by processes of its own.

    Its processes start at the first `read_ahead` and stay. Files that cannot be read are named in
    the log once, counted in `damaged`, and replaced by the file after them.
    """

    def __init__(
        self, files: ClassFiles, config: ImageDataConfig, seed: int, device: torch.device
    ) -> None:
        self.device, self.damaged = device, dict[str, str]()
        self._reader = BatchReader(files, config, seed)
        self._augmentation = ImageAugmentation(config, MEAN, STD)
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._reader.files)

    def row_names(self, number: int) -> list[tuple[str]]:
        """The file of an image, below the folder of its split."""
        return [(self._reader.files.name(number),)]

    @property
    def index_device(self) -> torch.device:
        """The CPU, where files are read."""
        return torch.device("cpu")

    def batch(self, index: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Images float32 `[B, 3, S, S]` and labels of the samples `index` `[B]`, read here and now.

        Augmented where a generator is given, from which one number is drawn. `read_ahead` is the
        fast way.
        """
        epoch = None
        if generator is not None:
            draw = torch.randint(2**62, (), generator=generator, device=generator.device)
            epoch = int(draw)
        return self._deliver(self._reader[Request(index.tolist(), epoch)])

    def read_ahead(
        self, order: Iterable[Tensor], epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `order`, each `[B]` sample numbers, as `batch` gives them.

        Augmented by the chance of `epoch`; None: evaluation. One such iteration at a time: a new
        one ends the one before. DataError where hardly any file can be read, or a process that
        reads ended or did not answer.
        """
        self._requests[:] = [Request(index.tolist(), epoch) for index in order]
        pixels = iter(self._loader)
        while (batch := self._next(pixels)) is not None:
            yield self._deliver(batch)

    def _next(self, pixels: Iterator[Pixels]) -> Pixels | None:
        """The next batch, None after the last; DataError where its process has none."""
        try:
            return next(pixels, None)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"a process that reads {self._reader.files.folder} ended or did not answer within "
                f"{LONGEST_WAIT:g} s ({reason}): see to that folder, or give --num_workers 0, and "
                "run the same command again"
            ) from None

    @cached_property
    def _loader(self) -> Any:
        """The loader, whose processes live as long as this source."""
        wanted = self._reader.config.num_workers
        workers = min(_num_cores(), MOST_WORKERS) if wanted is None else wanted
        reader: Any = self._reader
        fork = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        loader: Any = DataLoader(
            reader,
            # The list is read anew at each iteration, which is how the processes hear of an epoch.
            sampler=self._requests,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=workers,
            timeout=LONGEST_WAIT if workers else 0,
            persistent_workers=workers > 0,
            # Other ways would run the caller's program again in every process.
            multiprocessing_context=fork if workers else None,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_stops_to_the_loop,
            # Without its own generator, each iteration would draw from the one of dropout.
            generator=torch.Generator().manual_seed(0),
        )
        # At exit, Python asks processes to end by SIGTERM and waits for them without a limit.
        Finalize(None, _end_readers, (weakref.ref(loader),), exitpriority=0)
        return loader

    def _deliver(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Normalised images and labels on the device."""
        for name, reason in pixels.damaged:
            if name not in self.damaged:
                self.damaged[name] = reason
                log.warning(
                    "%s cannot be read (%s) and is left out; %d of %d files so far",
                    self._reader.files.folder / name,
                    reason,
                    len(self.damaged),
                    len(self),
                )
        if pixels.failure:
            raise DataError(pixels.failure)
        images = pixels.images.to(self.device, non_blocking=True)
        labels = pixels.labels.to(self.device, non_blocking=True)
        return self._augmentation.prepare(images), labels


def _num_cores() -> int:
    """Cores that this process may use, where the system tells; else all that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unchanged(pixels: Any) -> Any:
    return pixels


def _leave_stops_to_the_loop(worker: int) -> None:
    """Lets the loop alone decide what a stop signal means, and ends with it.

    A terminal sends Ctrl-C to all processes of a command, and so do `timeout` and Slurm SIGTERM.
    """
    if sys.platform == "linux":  # else torch looks every few seconds, between two batches
        ctypes.CDLL(None).prctl(DEATH_OF_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_readers(loader: weakref.ref[Any]) -> None:
    """Ends the processes of a loader that is still there."""
    iterator = getattr(loader(), "_iterator", None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error for each
    for process in getattr(iterator, "_workers", ()):
        process.kill()


def random_box(width: int, height: int, generator: np.random.Generator) -> Box:
    """Left, top, right and bottom of a random window: 8 to 100 % of the area, 3:4 to 4:3.

    Where a narrow picture leaves no room for any, the largest window in its middle.
    """
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*AREA)
        aspect = math.exp(generator.uniform(*np.log(ASPECT)))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int(generator.integers(width - across + 1))
            top = int(generator.integers(height - down + 1))
            return left, top, left + across, top + down
    across = min(width, max(1, round(height * ASPECT[1])))
    down = min(height, max(1, round(width / ASPECT[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def middle(image: Image, size: int) -> Image:
    """The middle square of `size` pixels, of the picture scaled so that 12.5 % are left over."""
    from PIL import Image as Pillow

    shorter = round(size * EVALUATION_SCALE)
    width, height = image.size
    scale = shorter / min(width, height)
    scaled = (max(shorter, int(width * scale)), max(shorter, int(height * scale)))
    image = image.resize(scaled, Pillow.Resampling.BILINEAR)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def change_colors(image: Image, strength: float, generator: np.random.Generator) -> Image:
    """Brightness, contrast and saturation times 1 ± `strength`, hue turned, in random order.

    The hue turns by up to `strength` / 2 of the circle: 0.4, 0.4, 0.4 and 0.2 as published.
    """
    from PIL import ImageEnhance

    enhancers: tuple[Any, ...] = (
        ImageEnhance.Brightness,
        ImageEnhance.Contrast,
        ImageEnhance.Color,
        None,
    )
    for number in generator.permutation(len(enhancers)):
        change, enhancer = generator.uniform(-strength, strength), enhancers[number]
        if enhancer is None:
            image = _turn_hue(image, change / 2)
        else:
            image = enhancer(image).enhance(1 + change)
    return image


def _turn_hue(image: Image, turn: float) -> Image:
    """The image with its hue turned by a part of the circle."""
    from PIL import Image as Pillow

    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(turn * 256)) % 256
    channels = (Pillow.fromarray(turned.astype(np.uint8)), saturation, value)
    return Pillow.merge("HSV", channels).convert("RGB")
