"""Augmentation of images against the plain, image by image form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from sgas.errors import ConfigError
from sgas_cnn.augment import ImageAugmentation, channel_statistics
from sgas_cnn.config import ImageDataConfig

B, H, W = 64, 7, 6  # images, rows, columns
PLAIN = ImageDataConfig(crop_padding=0, flip=False)


def images(channels: int = 3) -> Tensor:
    """uint8 `[B, H, W, C]`, no pixel black."""
    draw = torch.Generator().manual_seed(5)
    return torch.randint(1, 256, (B, H, W, channels), dtype=torch.uint8, generator=draw)


def augmentation(config: ImageDataConfig, channels: int = 3) -> ImageAugmentation:
    return ImageAugmentation.of(config, images(channels).numpy())


def augmented(config: ImageDataConfig, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augmentation(config, channels).augment(images(channels), generator)


def pixels(result: Tensor, channels: int = 3) -> np.ndarray:
    """The pixels `[B, H, W, C]` of normalised images."""
    mean, std = (np.array(part) for part in channel_statistics(images(channels).numpy()))
    return result.permute(0, 2, 3, 1).double().numpy() * std + mean


@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_images_have_mean_0_and_deviation_1(channels: int) -> None:
    stored = images(channels)
    before = stored.clone()
    result = augmentation(PLAIN, channels).prepare(stored)
    assert result.shape == (B, channels, H, W)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5, rtol=0)
    deviation = result.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(channels), atol=1e-5, rtol=0)
    assert torch.equal(stored, before)


def test_statistics_are_those_of_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgas_cnn.augment.BLOCK", 7)
    mean, std = channel_statistics(images().numpy())
    values = images().numpy().astype(np.float64)
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std((0, 1, 2)), rtol=1e-10)
    assert channel_statistics(np.full((3, 4, 4, 1), 9, np.uint8)) == ((9.0,), (1.0,))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 3, 9])
def test_each_image_is_a_window_of_the_padded_one_mirrored_or_not(padding: int, flip: bool) -> None:
    config = ImageDataConfig(crop_padding=padding, flip=flip)
    result = augmented(config)
    assert result.is_contiguous(memory_format=torch.channels_last)
    seen = set()
    for image, window in zip(images().numpy(), pixels(result), strict=True):
        framed = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(framed, (H, W), (0, 1))
        windows = np.stack([windows, windows[..., ::-1]])  # [mirrored, top, left, C, H, W]
        equal = np.abs(windows - window.transpose(2, 0, 1)).max((3, 4, 5)) < 1e-3
        assert equal.any()
        seen.add(tuple(np.argwhere(equal)[0].tolist()))
    assert {mirrored for mirrored, _, _ in seen} == ({0, 1} if flip else {0})
    if padding == 3:
        assert {top for _, top, _ in seen} == {left for _, _, left in seen} == set(range(7))


def test_half_of_the_images_are_mirrored() -> None:
    config = dataclasses.replace(PLAIN, flip=True)
    plain = augmentation(PLAIN).prepare(images())
    same = [
        (augmented(config, seed=seed) == plain).flatten(1).all(1).float().mean()
        for seed in range(20)
    ]
    assert float(torch.stack(same).mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("side", [1, 3, 4, 16])
def test_cutout_blanks_a_square_around_any_pixel(side: int) -> None:
    config = dataclasses.replace(PLAIN, cutout=side)
    plain, result = augmentation(PLAIN).prepare(images()), augmented(config)
    allowed = set()
    for row in range(H):
        for column in range(W):
            top, left = row - side // 2, column - side // 2
            rows = range(max(0, top), min(H, top + side))
            columns = range(max(0, left), min(W, left + side))
            allowed.add((rows, columns))
    holes = (result == 0).all(1)  # [B, H, W]
    seen = set()
    for hole in holes:
        rows, columns = (torch.nonzero(hole.any(axis)).flatten() for axis in (1, 0))
        spans = tuple(range(int(span[0]), int(span[-1]) + 1) for span in (rows, columns))
        assert int(hole.sum()) == len(spans[0]) * len(spans[1])
        assert spans in allowed
        seen.add(spans)
    assert len(seen) > min(B, len(allowed)) // 4
    assert torch.equal(result, plain.masked_fill(holes[:, None], 0))


def test_the_same_generator_state_gives_the_same_images() -> None:
    config = ImageDataConfig(cutout=4)
    assert torch.equal(augmented(config), augmented(config))
    assert not torch.equal(augmented(config), augmented(config, seed=1))
    generator = torch.Generator().manual_seed(0)
    subject = augmentation(config)
    first = subject.augment(images(), generator)
    assert not torch.equal(first, subject.augment(images(), generator))
    assert torch.equal(first, augmented(config))


def test_torch_s_own_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    augmented(ImageDataConfig(cutout=4))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("config", [ImageDataConfig(jitter=0.4), ImageDataConfig(image_size=64)])
def test_options_of_files_are_refused_for_images_in_memory(config: ImageDataConfig) -> None:
    with pytest.raises(ConfigError, match="only images that are read from files"):
        augmentation(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_padding": -1}, "crop_padding is -1"),
        ({"cutout": -1}, "cutout is -1"),
        ({"jitter": 1.5}, "jitter is 1.5"),
        ({"image_size": 0}, "image_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageDataConfig(**options)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_waits_for_the_device() -> None:
    config = ImageDataConfig(cutout=4)
    subject, stored = augmentation(config), images().cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    first = subject.augment(stored, generator)
    generator.manual_seed(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = subject.augment(stored, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
    prepared = subject.prepare(stored).cpu()
    torch.testing.assert_close(prepared, augmentation(config).prepare(images()))
