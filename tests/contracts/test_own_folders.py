"""Tables of data sets, and folders of .npz files of one's own: clouds and images alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgas.errors import DataError
from sgas.family import Family
from sgas_cnn.datasets import folder as image_folder
from sgas_cnn.datasets import load_images
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
    read: Callable[[str, str], Any]
    module: Any
    unknown: tuple[str, str]

    def samples(self, seed: int) -> np.ndarray:
        return self.draw(np.random.default_rng(seed))

    def write(self, folder: Path, name: str, **arrays: Any) -> None:
        """Six samples of three classes; keywords replace arrays, None leaves one out."""
        content = {self.key: self.samples(sum(name.encode())), "label": np.arange(6) % 3, **arrays}
        kept = {key: value for key, value in content.items() if value is not None}
        np.savez(folder / name, **kept)

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
        lambda folder, split: load_points(folder, split, "unused", 20, 0),
        cloud_folder,
        ("modelnet4", r"did you mean modelnet40\?.*shapes.*path of a folder"),
    ),
    "image": Kind(
        "sgas_cnn",
        "image",
        "image",
        lambda generator: generator.integers(0, 256, (6, 6, 8, 3), dtype=np.uint8),
        lambda folder, split: load_images(folder, split, "unused", 0),
        image_folder,
        ("cifar", r"did you mean cifar10\?.*digits.*path of a folder"),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of sample in turn."""
    return KINDS[request.param]


@pytest.fixture
def folder(kind: Kind, tmp_path: Path) -> Path:
    """A sound folder, whose files tests replace."""
    kind.write(tmp_path, "train.npz", classes=CLASSES)
    kind.write(tmp_path, "test.npz", classes=CLASSES)
    return tmp_path


def test_the_table_names_each_entry_once(family: Family) -> None:
    for name, info in family.datasets.items():
        assert info.name == name
        assert info.help and "\n" not in info.help


def test_the_names_need_no_heavy_import(kind: Kind) -> None:
    heavy = "('numpy', 'torch', 'PIL', 'sklearn')"
    probe = f"import sys, {kind.package}.datasets; print([n for n in {heavy} if n in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_lists_the_names_and_the_way_to_a_folder(kind: Kind) -> None:
    name, message = kind.unknown
    with pytest.raises(DataError, match=message):
        kind.read(name, "train")


def test_a_folder_loads_both_splits(kind: Kind, folder: Path) -> None:
    for split in ("train", "test"):
        arrays = kind.read(str(folder), split)
        with np.load(folder / f"{split}.npz") as stored:
            np.testing.assert_array_equal(arrays.inputs, stored[kind.key])
            assert arrays.labels.tolist() == stored["label"].tolist()
            assert arrays.inputs.dtype == stored[kind.key].dtype
        assert arrays.labels.dtype == np.int64
        assert arrays.classes == ("a", "b", "c")
    with pytest.raises(DataError, match=r"unknown split 'val'.*test, train"):
        kind.read(str(folder), "val")


def test_files_of_a_split_follow_by_name(kind: Kind, tmp_path: Path) -> None:
    first, second = kind.samples(2), kind.samples(1)
    kind.write(tmp_path, "train_1.npz", **{kind.key: second})
    kind.write(
        tmp_path, "train_0.npz", **{kind.key: np.asfortranarray(first)}, extra=np.array([None])
    )
    arrays = kind.read(str(tmp_path), "train")
    np.testing.assert_array_equal(arrays.inputs, np.concatenate([first, second]))
    assert arrays.classes == ("0", "1", "2")


def test_training_never_opens_the_test_files(kind: Kind, folder: Path) -> None:
    (folder / "test.npz").write_bytes(b"junk")
    assert len(kind.read(str(folder), "train")) == 6
    assert "damaged" in kind.failure(folder, "test")


def test_a_missing_folder_and_missing_files_are_named(kind: Kind, tmp_path: Path) -> None:
    assert "does not exist" in kind.failure(tmp_path / "none")
    nothing = f"has no train*.npz (it has: nothing): write {kind.key} and label"
    assert nothing in kind.failure(tmp_path)
    kind.write(tmp_path, "train.npz")
    assert "has no test*.npz (it has: train.npz)" in kind.failure(tmp_path, "test")
    with pytest.raises(DataError, match="is a file, not a folder"):
        kind.read(str(tmp_path / "train.npz"), "train")


# Arrays of a training file, and the words of their refusal; KEY and NOUN are those of the kind.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"KEY": np.array(["a"] * 6, object)}, "KEY holds pickled Python objects"),
    ({"label": np.arange(5)}, "label has shape [5] for 6 NOUNs"),
    ({"label": np.zeros((6, 1), int)}, "label has shape [6, 1] for 6 NOUNs"),
    ({"label": np.arange(6) % 3 + 0.0}, "label is float64; write integers"),
    ({"label": np.array([0, 1, 2, -1, 1, 2])}, "NOUN 3 has label -1"),
    ({"label": np.full(6, 2**63, np.uint64)}, "NOUN 0 has label 9223372036854775808"),
    ({"label": np.array([0, 1, 2, 3, 1, 2])}, "label 3 where classes has 3 names"),
    ({"label": np.array([0, 1, 0, 1, 0, 1])}, "no training NOUN has label 2 (c) of 0 to 2"),
    ({"label": np.array([0, 2, 0, 2, 0, 2]), "classes": None}, "label 1 of 0 to 2"),
    ({"label": np.array([0] * 5 + [2_000_000_000]), "classes": None}, "1999999998 more"),
    ({"classes": np.array(["a", "b"])}, "label 2 where classes has 2 names"),
    ({"classes": np.array(["a", "b", "c", "d"])}, "no training NOUN has label 3 (d)"),
    ({"classes": np.array(["a", "b", "a"])}, "classes name 'a' twice"),
    ({"classes": np.array([["a", "b", "c"]])}, "classes are <U1 [1, 3]"),
    ({"classes": np.arange(3)}, "classes are int64"),
    ({"classes": np.array(["a", "b", "c"], object)}, "classes holds pickled Python objects"),
    ({"KEY": None}, "no array 'KEY' (it has: label, classes)"),
    ({"label": None}, "no array 'label' (it has: KEY, classes)"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD)
def test_bad_training_files(kind: Kind, folder: Path, arrays: dict[str, Any], message: str) -> None:
    changed = {key.replace("KEY", kind.key): value for key, value in arrays.items()}
    kind.write(folder, "train.npz", **{"classes": CLASSES, **changed})
    assert message.replace("KEY", kind.key).replace("NOUN", kind.noun) in kind.failure(folder)


def test_bad_test_files(kind: Kind, folder: Path) -> None:
    kind.write(folder, "test.npz", label=np.array([0, 1, 2, 3, 1, 2]))
    wanted = "label 3, but training has the labels 0 to 2"
    assert wanted in kind.failure(folder, "test")
    kind.write(folder, "test.npz", classes=CLASSES[[0, 2, 1]])
    assert "differ in classes" in kind.failure(folder, "test")


@pytest.mark.parametrize("cut", [0, 10, 0.3, 0.9])
def test_damaged_files(kind: Kind, folder: Path, cut: float) -> None:
    path = folder / "train.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut if cut >= 1 else cut * len(whole))])
    assert "train.npz is damaged or not an .npz file" in kind.failure(folder)


def test_damage_inside_an_array(kind: Kind, folder: Path) -> None:
    path = folder / "train.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:400] + bytes(byte ^ 255 for byte in whole[400:408]) + whole[408:])
    assert "train.npz is damaged" in kind.failure(folder)


def test_memory_is_checked_before_loading(
    kind: Kind, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind.module, "available_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"loading takes .* KiB, 1000 bytes of memory are free"):
        kind.read(str(folder), "train")
