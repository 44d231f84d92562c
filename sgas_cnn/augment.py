"""Augmentation of whole batches of images on the device, drawn from one generator.

Dimensions: B images, H rows, W columns, C channels.
Source: padded crops, flips and cutout (DeVries and Taylor, arXiv 1708.04552) as in the published
training of DARTS (Liu et al., ICLR 2019) and SGAS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sgas.errors import ConfigError, option
from sgas_cnn.config import ImageDataConfig

BLOCK = 4096  # images whose pixels are summed at a time


@dataclass(frozen=True)
class ImageAugmentation:
    """Takes uint8 `[B, H, W, C]` to float32 `[B, C, H, W]` in channels-last memory format.

    Each channel is normalised by the `mean` and `std` of the training set's pixels (0 to 255).
    """

    config: ImageDataConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: ImageDataConfig, images: np.ndarray) -> ImageAugmentation:
        """The augmentation for a training set `images` uint8 `[N, H, W, C]` in memory.

        ConfigError for options that only images from files have.
        """
        if config.jitter or config.image_size:
            name = "jitter" if config.jitter else "image_size"
            raise ConfigError(
                f"{name} is {getattr(config, name)}, but only images that are read from files "
                f"({option('dataset', 'imagenet')}) have it: leave {name} out"
            )
        return cls(config, *channel_statistics(images))

    def prepare(self, images: Tensor) -> Tensor:
        """The images as they are, normalised."""
        return normalized(images, self.mean, self.std)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A window of each padded image, half of them mirrored, normalised, a square blanked."""
        if self.config.crop_padding or self.config.flip:
            images = self._crop_and_flip(images, generator)
        prepared = self.prepare(images)
        return self._cut_out(prepared, generator) if self.config.cutout else prepared

    def _crop_and_flip(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One gather for both: a mirrored window is a window with its columns in reverse."""
        (batch, height, width), device = images.shape[:3], images.device
        padding = self.config.crop_padding
        # Black is 0 before normalisation, as published; afterwards it is not the mean colour.
        padded = F.pad(images, (0, 0, padding, padding, padding, padding))
        shape = (2, batch, 1)
        down, across = torch.randint(
            2 * padding + 1, shape, generator=generator, device=device
        ).unbind()
        rows = down + torch.arange(height, device=device)  # [B, H]
        columns = torch.arange(width, device=device).expand(batch, width)
        if self.config.flip:
            mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        sample = torch.arange(batch, device=device)[:, None, None]
        return padded[sample, rows[:, :, None], (across + columns)[:, None, :]]

    def _cut_out(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Blanks a square of `images` `[B, C, H, W]` in place; its centre is any pixel."""
        batch, _, height, width = images.shape
        side, device = self.config.cutout, images.device

        def band(size: int) -> Tensor:
            centre = torch.randint(size, (batch, 1), generator=generator, device=device)
            place = torch.arange(size, device=device) - (centre - side // 2)
            return (place >= 0) & (place < side)  # [B, size]

        return images.masked_fill_(band(height)[:, None, :, None] & band(width)[:, None, None], 0.0)


def normalized(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images uint8 `[B, H, W, C]` as float32 `[B, C, H, W]`, less `mean` and over `std`."""
    pixels = images.permute(0, 3, 1, 2).float()
    return (pixels - _constant(mean, pixels.device)) / _constant(std, pixels.device)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """`values` as `[1, C, 1, 1]`, kept: a copy at every step would wait for the device."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of uint8 `[N, H, W, C]`.

    A channel of one value alone has deviation 1, so that it can be divided by.
    """
    channels, count = images.shape[-1], images[..., 0].size
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].reshape(-1, images[0].size)
        # Over the images first: a sum whose rows are as short as C is several times slower.
        total += _by_channel(block, channels)
        squares += _by_channel(np.square(block, dtype=np.uint16), channels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())


def _by_channel(values: np.ndarray, channels: int) -> np.ndarray:
    """The sum of `values` `[n, H * W * C]` over all but the channels: int64 `[C]`."""
    by_pixel = values.sum(0, dtype=np.uint32)  # 4096 squares of 255 are below 2^32
    return by_pixel.reshape(-1, channels).sum(0, dtype=np.int64)
