"""ImageNet's layout from a few generated pictures: listing, reading by processes, damage."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sgas.data import BatchOrder, in_order, stratified_parts
from sgas.errors import DataError
from sgas.own.class_folders import ClassFiles
from sgas_cnn import file_source
from sgas_cnn.config import ImageDataConfig
from sgas_cnn.datasets import load_images
from sgas_cnn.file_source import (
    MEAN,
    STD,
    BatchReader,
    FileSource,
    change_colors,
    middle,
    random_box,
)

Image = pytest.importorskip("PIL.Image", reason="reading pictures needs Pillow")

CPU = torch.device("cpu")
WNIDS = ("n01440764", "n01443537", "n02102040")
PER_CLASS = {"train": 9, "val": 4}
S = 32  # side that pictures are brought to
CONFIG = ImageDataConfig(image_size=S, num_workers=2)


def picture(label: int, number: int) -> Image.Image:
    """A smooth picture of its own size, with the label in its red channel's mean."""
    width, height = 40 + 7 * number, 60 - 3 * number
    across, down = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 60, height))
    channels = (80 * label + 0.2 * across, 90 + across, 90 + down)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imagenet/{train,val}/CLASS/*.JPEG; one picture is grey, one is a PNG."""
    root = tmp_path_factory.mktemp("data")
    for part, count in PER_CLASS.items():
        for label, wnid in enumerate(WNIDS):
            folder = root / "imagenet" / part / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                image = picture(label, number)
                if (label, number) == (1, 0):
                    image = image.convert("L")
                name = f"{wnid}_{number}.png" if (label, number) == (0, 0) else f"{number}.JPEG"
                image.save(folder / name)
    (root / "imagenet" / "train" / WNIDS[0] / "read me.txt").write_text("not a picture")
    return root


@pytest.fixture(scope="module")
def files(data_root: Path) -> ClassFiles:
    return listed(data_root)


def listed(data_root: Path, split: str = "train") -> ClassFiles:
    found = load_images("imagenet", split, data_root, 0)
    assert isinstance(found, ClassFiles)
    return found


def source(files: ClassFiles, config: ImageDataConfig = CONFIG, seed: int = 0) -> FileSource:
    return FileSource(files, config, seed, CPU)


def epoch_of(reader: FileSource, epoch: int | None, order: list[Tensor] | Tensor) -> list[Tensor]:
    """The images of all batches of an epoch."""
    return [images for images, _ in reader.read_ahead(order, epoch)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_files_are_listed_by_class_and_name(files: ClassFiles, data_root: Path) -> None:
    assert len(files) == 27
    assert files.classes == WNIDS
    assert files.labels.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    assert [files.name(number) for number in (0, 8, 9)] == [
        f"{WNIDS[0]}/1.JPEG",
        f"{WNIDS[0]}/{WNIDS[0]}_0.png",
        f"{WNIDS[1]}/0.JPEG",
    ]
    test = listed(data_root, "test")
    assert (len(test), test.classes, test.folder.name) == (12, WNIDS, "val")
    direct = listed(data_root / "imagenet")
    assert direct.names.tolist() == files.names.tolist()


def test_parts_are_disjoint_subsets(files: ClassFiles) -> None:
    parts = [files.subset(part) for part in stratified_parts(files.labels, (0.5, 0.5), 0)]
    names = [part.names.tolist() for part in parts]
    assert sorted(names[0] + names[1]) == sorted(files.names.tolist())
    assert all(set(part.labels.tolist()) == {0, 1, 2} for part in parts)


def test_two_processes_read_what_this_one_reads(files: ClassFiles) -> None:
    order = BatchOrder(len(files), 0, "training", CPU).epoch(0, 4, 6)
    two, none = source(files), source(files, ImageDataConfig(image_size=S, num_workers=0))
    batches = list(two.read_ahead(order, 3))
    assert same([images for images, _ in batches], epoch_of(none, 3, order))
    for (images, labels), index in zip(batches, order, strict=True):
        assert images.shape == (4, 3, S, S) and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == files.labels[index.numpy()].tolist()
        # Pictures carry their label in the red channel (the first of class 1 is grey).
        red = images[:, 0].mean((1, 2)) * STD[0] + MEAN[0]
        grey = torch.tensor([files.name(int(n)) == f"{WNIDS[1]}/0.JPEG" for n in index])
        assert bool(((red / 80).floor() == labels)[~grey].all())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_readers_leave_stop_signals_to_the_loop(files: ClassFiles, number: signal.Signals) -> None:
    order = torch.arange(24).view(12, 2)
    reader = source(files, ImageDataConfig(image_size=S, num_workers=1))
    batches = reader.read_ahead(order, 0)
    first = next(batches)[0]
    (process,) = reader._loader._iterator._workers
    os.kill(process.pid, number)
    assert same([first, *(images for images, _ in batches)], epoch_of(reader, 0, order))
    assert process.is_alive()


HELD = """
import sys
import time
from pathlib import Path
import torch
from sgas_cnn.config import ImageDataConfig
from sgas_cnn.datasets import load_images
from sgas_cnn.file_source import FileSource
files = load_images("imagenet", "train", Path(sys.argv[1]), 0)
reader = FileSource(files, ImageDataConfig(image_size=32, num_workers=1), 0, torch.device("cpu"))
batches = reader.read_ahead(torch.arange(24).view(12, 2), 0)
next(batches)
raise ValueError("the end")
"""


def test_readers_that_are_still_held_do_not_keep_python_from_ending(data_root: Path) -> None:
    argv = [sys.executable, "-c", HELD, str(data_root)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "ValueError: the end" in ended.stderr


def test_readers_end_with_a_process_that_is_killed(data_root: Path) -> None:
    last = "print(reader._loader._iterator._workers[0].pid, flush=True)\nos.kill(os.getpid(), 9)"
    script = "import os" + HELD.replace('raise ValueError("the end")', last)
    argv = [sys.executable, "-c", script, str(data_root)]
    ended = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == -9
    time.sleep(1)  # torch's own watchdog takes five
    status = Path(f"/proc/{int(ended.stdout)}/status")
    assert not status.exists() or "(zombie)" in status.read_text()


def test_a_reader_that_hangs_is_told_within_its_time(
    files: ClassFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_source, "LONGEST_WAIT", 1.0)
    monkeypatch.setattr(BatchReader, "__getitem__", lambda self, request: time.sleep(4))
    with pytest.raises(DataError, match=r"did not answer within 1 s .*: see to that folder"):
        epoch_of(source(files), 0, torch.arange(8).view(4, 2))


def test_chance_follows_from_seed_epoch_and_file_alone(files: ClassFiles) -> None:
    order = torch.arange(24).view(6, 4)
    reader = source(files)
    first = epoch_of(reader, 0, order)
    assert same(first, epoch_of(reader, 0, order))
    assert not same(first, epoch_of(reader, 1, order))
    assert not same(first, epoch_of(source(files, seed=1), 0, order))
    assert same(first[4:], epoch_of(reader, 0, order[4:]))
    shuffled = torch.cat(epoch_of(reader, 0, order.flip(0)))
    assert torch.equal(torch.cat(first), shuffled.view(6, 4, 3, S, S).flip(0).flatten(0, 1))


def test_the_processes_stay_from_epoch_to_epoch(files: ClassFiles) -> None:
    reader = source(files)
    order = list(in_order(len(files), 8, CPU))
    epoch_of(reader, 0, order)
    alive = [worker.pid for worker in reader._loader._iterator._workers]
    epoch_of(reader, 1, order)
    assert [worker.pid for worker in reader._loader._iterator._workers] == alive
    assert len(alive) == 2


def test_an_iteration_may_be_left_early(files: ClassFiles) -> None:
    reader = source(files)
    order = torch.arange(24).view(6, 4)
    left = reader.read_ahead(order, 0)
    next(left)
    assert same(epoch_of(reader, 0, order[2:]), epoch_of(source(files), 0, order)[2:])


def test_torch_s_own_generator_is_left_alone(files: ClassFiles) -> None:
    before = torch.get_rng_state()
    epoch_of(source(files), 0, torch.arange(4).view(1, 4))
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_takes_the_middle_whatever_the_seed(files: ClassFiles) -> None:
    order = list(in_order(len(files), 10, CPU))
    result = torch.cat(epoch_of(source(files, seed=4), None, order))
    assert len(result) == 27
    assert torch.equal(result, torch.cat(epoch_of(source(files), None, order)))
    wide = Image.open(files.folder / files.name(3)).convert("RGB")  # 68 x 48
    scaled = wide.resize((int(68 * 37 / 48), 37), Image.Resampling.BILINEAR)
    left, top = round((scaled.width - S) / 2), round((37 - S) / 2)
    pixels = np.asarray(scaled)[top : top + S, left : left + S]
    wanted = (pixels - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(result[3].permute(1, 2, 0), wanted, atol=1e-5)


def test_single_batches_are_read_in_this_process(files: ClassFiles) -> None:
    reader, index = source(files), torch.tensor([1, 12, 20])
    images, labels = reader.batch(index, None)
    assert labels.tolist() == [0, 1, 2]
    assert torch.equal(images, epoch_of(reader, None, [index])[0])
    drawn = [reader.batch(index, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.fixture
def damaged(tmp_path: Path) -> ClassFiles:
    """Two classes of four pictures, of which the third is cut off and the last is none."""
    for label, wnid in enumerate(WNIDS[:2]):
        folder = tmp_path / "train" / wnid
        folder.mkdir(parents=True)
        for number in range(4):
            picture(label, number).save(folder / f"{number}.JPEG")
    cut = tmp_path / "train" / WNIDS[0] / "2.JPEG"
    cut.write_bytes(cut.read_bytes()[:-200])
    (tmp_path / "train" / WNIDS[1] / "3.JPEG").write_bytes(b"")
    return listed(tmp_path)


def test_damaged_files_are_named_counted_and_replaced(
    damaged: ClassFiles, caplog: pytest.LogCaptureFixture
) -> None:
    reader = source(damaged)
    order = torch.arange(8).view(2, 4)
    with caplog.at_level(logging.WARNING):
        batches = list(reader.read_ahead(order, 0))
        again = epoch_of(reader, 0, order)
    assert same([images for images, _ in batches], again)
    (first, first_labels), (second, second_labels) = batches
    # The next file, after the last the first, takes the place; its label comes along.
    assert torch.equal(first[2], first[3])
    assert torch.equal(second[3], first[0])
    assert (first_labels.tolist(), second_labels.tolist()) == ([0] * 4, [1, 1, 1, 0])
    assert list(reader.damaged) == [f"{WNIDS[0]}/2.JPEG", f"{WNIDS[1]}/3.JPEG"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert f"{WNIDS[0]}/2.JPEG cannot be read (" in lines[0] and "1 of 8" in lines[0]
    assert "is left out; 2 of 8 files so far" in lines[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_files_that_are_all_gone_are_an_error(damaged: ClassFiles, num_workers: int) -> None:
    for name in damaged.names:
        (damaged.folder / name.decode()).unlink()
    reader = source(damaged, ImageDataConfig(image_size=S, num_workers=num_workers))
    message = ""
    try:
        epoch_of(reader, 0, torch.arange(2).view(1, 2))
    except (
        DataError
    ) as error:  # pytest.raises would keep the reader in a cycle, its process with it
        message = str(error)
    assert message.startswith("100 files in a row cannot be read, the last")
    assert message.endswith(f"is all of {damaged.folder} there?")
    assert "\n" not in message


def test_random_windows_have_the_published_sizes_and_aspects() -> None:
    generator = np.random.default_rng(0)
    boxes = np.array([random_box(500, 375, generator) for _ in range(1000)])
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 500 and boxes[:, 3].max() <= 375
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    area, aspect = width * height / (500 * 375), width / height
    assert 0.078 < area.min() < 0.1 and area.max() > 0.85
    assert 0.74 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.35
    assert np.median(boxes[:, 0] / np.maximum(1, 500 - width)) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1), (3, 4)])
def test_narrow_pictures_have_windows_too(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        left, top, right, bottom = random_box(*size, generator)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
    image = middle(Image.new("RGB", size), S)
    assert image.size == (S, S)


def test_colours_change_by_no_more_than_asked_and_shapes_stay() -> None:
    image, generator = picture(1, 0), np.random.default_rng(0)
    before = np.asarray(image).astype(float)
    changes = [
        np.asarray(change_colors(image, strength, generator)).astype(float) - before
        for strength in (0.02, 0.4)
        for _ in range(10)
    ]
    slight, strong = (
        max(np.abs(change).mean() for change in part) for part in (changes[:10], changes[10:])
    )
    assert 0 < slight < 8 < strong


def test_jitter_and_flip_reach_the_pictures(files: ClassFiles) -> None:
    order = torch.arange(8).view(1, 8)
    options = {"image_size": S, "num_workers": 0}
    plain, jittered, unflipped = (
        epoch_of(source(files, ImageDataConfig(**options, **more)), 0, order)[0]  # type: ignore[arg-type]
        for more in ({}, {"jitter": 0.4}, {"flip": False})
    )
    assert not (plain == jittered).flatten(1).all(1).any()
    kept = (plain == unflipped).flatten(1).all(1)
    assert 0 < int(kept.sum()) < 8
    assert torch.equal(plain[~kept], unflipped[~kept].flip(-1))


def test_a_missing_pillow_is_an_error_that_helps(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(DataError, match=r"needs Pillow .* pip install 'sgas\[imagenet\]'"):
        load_images("imagenet", "train", data_root, 0)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    def failure(split: str = "train") -> str:
        with pytest.raises(DataError) as caught:
            load_images("imagenet", split, tmp_path, 0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "train does not exist: put ImageNet into" in failure()
    train, val = tmp_path / "train", tmp_path / "val"
    (train / "cat").mkdir(parents=True)
    assert "cat holds no pictures" in failure()
    picture(0, 0).save(train / "cat" / "0.JPEG")
    (train / "dog").mkdir()
    assert "dog holds no pictures" in failure()
    assert "val does not exist" in failure("test")
    val.mkdir()
    picture(0, 0).save(val / "ILSVRC2012_val_00000001.JPEG")
    assert "no folders of classes (1 pictures lie there themselves)" in failure("test")
    (val / "cat").mkdir()
    assert "val hold no pictures" in failure("test")
    (val / "cow").mkdir()
    assert "cow is no class of training (2 folders" in failure("test")
