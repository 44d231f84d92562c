"""Pictures as they are: modes, depths and orientations, class folders, endings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgas.data import LabelledArrays
from sgas.errors import DataError
from sgas.own.class_folders import ClassFiles
from sgas.own.folders import NO_TEST
from sgas_cnn.datasets import load_images
from sgas_cnn.datasets.pictures import describe_pictures
from sgas_cnn.family import FAMILY
from sgas_cnn.pixels import as_bytes

Image = pytest.importorskip("PIL.Image", reason="reading pictures needs Pillow")
RED = (255, 0, 10)


def red(mode: str = "RGB") -> Any:
    return Image.new("RGB", (8, 6), RED).convert(mode)


def with_transparency(mode: str) -> Any:
    image = Image.new(mode, (8, 6), 0)
    image.putalpha(0)
    return image


def turned() -> Any:
    """Two columns of black and white that EXIF turns into rows."""
    image = Image.fromarray(np.repeat([[0, 255]], 4, 0).astype(np.uint8))
    image.getexif()[0x0112] = 6
    return image


# Pictures, and the value that each pixel has.
PICTURES: dict[str, tuple[Callable[[], Any], Any]] = {
    "palette": (lambda: red().convert("P", palette=Image.Palette.ADAPTIVE), RED),
    "CMYK": (lambda: red("CMYK"), RED),
    "YCbCr": (lambda: red("YCbCr"), RED),
    "alpha": (lambda: red("RGBA"), RED),
    "nothing in RGBA": (lambda: with_transparency("RGB"), (255, 255, 255)),
    "nothing in LA": (lambda: with_transparency("L"), 255),
    "16 bits": (lambda: Image.fromarray(np.full((6, 8), 100 * 257, np.uint16)), 100),
    "32 bits": (lambda: Image.fromarray(np.full((6, 8), 100, np.int32)), 100),
    "floats": (lambda: Image.fromarray(np.full((6, 8), 0.2, np.float32)), 51),
    "black and white": (lambda: Image.new("1", (8, 6), 1), 255),
    "truths": (lambda: np.ones((6, 8), bool), 255),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_colours_that_it_shows(name: str) -> None:
    make, wanted = PICTURES[name]
    pixels = as_bytes(make(), 0)
    assert pixels.dtype == np.uint8 and pixels.shape[:2] == (6, 8)
    assert (np.abs(pixels.astype(int) - np.array(wanted)) <= 3).all()


def test_a_picture_stands_as_its_exif_says() -> None:
    assert as_bytes(turned(), 0).tolist() == [[0] * 4, [255] * 4]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_that_are_no_pixels_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=f"picture of mode {mode} has values from -3 to -3"):
        as_bytes(Image.new(mode, (8, 6), -3), 0)


def test_grey_pictures_in_memory_become_rgb_where_others_are() -> None:
    folder = FAMILY.keep_own([(red(), 0), (red("L"), 1)], None, "data", "auto")
    images = load_images(str(folder), "train", "data", 0)
    assert isinstance(images, LabelledArrays) and images.inputs.shape == (2, 6, 8, 3)
    assert (images.inputs[1] == images.inputs[1, :1, :1, :1]).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes: in each of train three PNG and two TIFF, and a file of another kind."""
    draw = np.random.default_rng(0)
    for part, names in (("train", ("0.png", "1.png", "2.PNG", "3.tif", "4.tif")), ("val", "5")):
        for name in ("ant", "bee"):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            for file in names:
                pixels = draw.integers(0, 256, (16, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / (file if "." in file else f"{file}.png"))
            (place / "notes.csv").write_text("")
    return tmp_path


@pytest.mark.parametrize("whole", [True, False])
def test_class_folders_are_a_data_set(folder: Path, whole: bool) -> None:
    data_set = folder if whole else folder / "train"
    train = load_images(str(data_set), "train", "unused", 0)
    assert isinstance(train, LabelledArrays) and train.inputs.shape == (10, 16, 12, 3)
    assert train.classes == ("ant", "bee") and train.labels.tolist() == [0] * 5 + [1] * 5
    told = ["skipped: 2 files .csv"] if whole else [NO_TEST, "skipped: 2 files .csv"]
    assert [*train.remarks] == told
    described = FAMILY.check_folder(str(data_set), "auto")
    assert described["remarks"] == told and not described["problems"]
    if whole:
        assert len(load_images(str(data_set), "test", "unused", 0)) == 2
    else:
        with pytest.raises(DataError, match="has no test part: put its class folders into"):
            load_images(str(data_set), "test", "unused", 0)


def test_pictures_of_several_sizes_are_read_while_training(folder: Path) -> None:
    red().save(folder / "train" / "ant" / "small.png")
    assert isinstance(load_images(str(folder), "train", "unused", 0), ClassFiles)


def test_what_is_wrong_with_class_folders_is_told(folder: Path) -> None:
    (folder / "val" / "wasp").mkdir()
    with pytest.raises(DataError, match=r"val/wasp is no class of training \(2 folders"):
        load_images(str(folder), "test", "unused", 0)
    (folder / "train" / "ant" / "0.png").write_bytes(b"no picture")
    assert describe_pictures(folder)["problems"]
    (folder / "train" / "fly").mkdir()
    with pytest.raises(DataError, match="fly holds no pictures"):
        load_images(str(folder), "train", "unused", 0)


UNGUARDED = """
import multiprocessing
import sgas_cnn
multiprocessing.set_start_method("forkserver")
found = sgas_cnn.search("train", num_workers=1, image_size=16, preset="demo", channels=2,
    num_cells=3, batch_size=2, kernels="torch", warmup_epochs=0, decision_interval=1,
    final_epochs=0, strategy="random", validation_fraction=0.4)
"""


def test_a_program_without_a_main_guard_reads_pictures(folder: Path) -> None:
    red().save(folder / "train" / "ant" / "small.png")
    (folder / "program.py").write_text(UNGUARDED)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "skipped: 2 files .csv" in done.stderr and "Traceback" not in done.stderr
