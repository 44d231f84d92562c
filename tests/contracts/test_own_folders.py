"""Tables of data sets, and folders of .npz files of one's own: clouds and images alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_folders import CLASSES, KINDS, Kind

from sgas.errors import ConfigError, DataError, InputError
from sgas.family import Family
from sgas.interface import search
from sgas.native.library import Library


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of sample in turn."""
    return KINDS[request.param]


@pytest.fixture
def folder(kind: Kind, tmp_path: Path) -> Path:
    """A sound folder, whose files tests replace."""
    return kind.sound(tmp_path)


def test_the_table_names_each_entry_once(family: Family) -> None:
    for name, info in family.datasets.items():
        assert info.name == name
        assert info.help and "\n" not in info.help


def test_an_unknown_name_lists_the_names_and_the_way_to_a_folder(kind: Kind) -> None:
    name, message = kind.unknown
    with pytest.raises(DataError, match=message):
        kind.read(name, "train")


def test_data_is_looked_at_before_kernels_are_compiled(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "load", None)
    with pytest.raises(InputError, match="nothing"):
        search(family, tmp_path / "nothing")


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
    with pytest.raises(DataError, match=r"has no test\*.npz \(it has: train.npz\)"):
        kind.read(str(tmp_path), "test")
    with pytest.raises(DataError, match="is a file, not a folder"):
        kind.read(str(tmp_path / "train.npz"), "train")


# Arrays of a training file, and the words of their refusal; KEY and NOUN are those of the kind.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"KEY": np.array(["a"] * 6, object)}, "KEY holds pickled Python objects"),
    ({"label": np.arange(5)}, "label has shape [5] for 6 NOUNs"),
    ({"label": np.zeros((6, 1, 1), int)}, "label has shape [6, 1, 1] for 6 NOUNs"),
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
    ({"label": np.full((6, 2), 0.5)}, "the labels of NOUN 0 are not all 0 or 1 (6 such NOUNs)"),
    ({"label": np.full((6, 2), np.nan)}, "the first is NaN (unknown)"),
    (
        {"label": np.array([*"abcabd"])},
        "NOUN 5 has label d, which is no class of training (a, b, c)",
    ),
    ({"label": np.array([*"ababab"])}, "no training NOUN is of class c"),
]

# Labels of six samples without `classes`, what they are asked to be, targets and names.
ONE_HOT = np.eye(3, dtype=int)[np.arange(6) % 3]
MANY = np.array([[1, 0], [0, 0], [1, 1]] * 2)
LABELS: list[tuple[np.ndarray, str, Any, tuple[str, ...]]] = [
    (np.arange(6) % 3 + 1, "auto", [0, 1, 2] * 2, ("1", "2", "3")),
    (np.array([-1, 1] * 3), "auto", [0, 1] * 3, ("-1", "1")),
    (np.array(["dog", "ant"] * 3), "auto", [1, 0] * 3, ("ant", "dog")),
    (np.array([b"dog", b"ant"] * 3), "auto", [1, 0] * 3, ("ant", "dog")),
    (np.array([True, False] * 3), "auto", [1, 0] * 3, ("0", "1")),
    (np.arange(6).reshape(6, 1) % 3, "auto", [0, 1, 2] * 2, ("0", "1", "2")),
    (ONE_HOT, "auto", [0, 1, 2] * 2, ("0", "1", "2")),
    (ONE_HOT.astype(float), "class", [0, 1, 2] * 2, ("0", "1", "2")),
    (ONE_HOT, "labels", (ONE_HOT > 0).tolist(), ("0", "1", "2")),
    (MANY, "auto", (MANY > 0).tolist(), ("0", "1")),
    (np.arange(6) / 2, "numbers", (np.arange(6) / 2)[:, None].tolist(), ("0",)),
]


@pytest.mark.parametrize(("labels", "target", "wanted", "names"), LABELS)
def test_labels_of_any_form_become_targets(
    kind: Kind, tmp_path: Path, labels: np.ndarray, target: str, wanted: Any, names: Any
) -> None:
    for split in ("train", "test"):
        kind.write(tmp_path, f"{split}.npz", label=labels)
    for split in ("train", "test"):
        arrays = kind.read(str(tmp_path), split, target)
        assert arrays.labels.tolist() == wanted and arrays.classes == names
    assert not kind.module.describe_folder(tmp_path, target)["problems"]


def test_a_test_part_is_drawn_where_there_is_none(kind: Kind, tmp_path: Path) -> None:
    kind.write(tmp_path, "train.npz", extra=np.zeros(1))
    wanted = ("not used: extra", "no test part (test_fraction draws one)")
    assert kind.read(str(tmp_path), "train").remarks == wanted
    described = kind.module.describe_folder(tmp_path)
    assert described["remarks"] == [*wanted] and not described["problems"]
    parts = [kind.read(str(tmp_path), split, "auto", 0.5) for split in ("train", "test")]
    assert [sorted(part.labels.tolist()) for part in parts] == [[0, 1, 2]] * 2
    assert parts[0].remarks == ("not used: extra", "test part drawn, 50%")
    both = np.concatenate([part.inputs for part in parts])
    assert len(np.unique(both, axis=0)) == 6
    kind.write(tmp_path, "test.npz")
    with pytest.raises(ConfigError, match="has a test part: leave test_fraction= out"):
        kind.read(str(tmp_path), "train", "auto", 0.5)


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


CLOUDS, IMAGES = (kind.samples() for kind in KINDS.values())
FOUR_CHANNELS = [np.concatenate([x, x[..., :1]], -1) for x in (CLOUDS, IMAGES)]
JPEG = {
    "image": None,
    "header": np.zeros(609, np.uint8),
    "data": np.zeros(100, np.uint8),
    "offset": np.arange(7),
}
NO_LABELS = np.arange(0)
# Samples that are none: by kind the file that has them, and the words of its refusal.
BAD_SAMPLES: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "cloud": [
        ("train", {"points": CLOUDS[0]}, "points have shape [20, 3]"),
        ("train", {"points": CLOUDS[..., :2]}, "points have shape [6, 20, 2]"),
        ("train", {"points": CLOUDS.astype(bool)}, "points are bool; write float16"),
        ("train", {"points": CLOUDS.astype(complex)}, "points are complex128"),
        ("train", {"points": CLOUDS[:0], "label": NO_LABELS}, "there are no clouds"),
        (
            "test",
            {"points": FOUR_CHANNELS[0]},
            "of [20, 4], train.npz of [20, 3]: write the same ch",
        ),
        ("train_2", {"points": CLOUDS[:, :9]}, "has clouds of [9, 3], train.npz of [20, 3]"),
        ("train_2", {"classes": np.array(["x", "y", "z"])}, "differ in classes"),
        ("train_2", {}, "differ in classes"),
    ],
    "image": [
        ("train", {"image": IMAGES / np.float32(255)}, "float32; write uint8 from 0 to 255 (where"),
        ("train", {"image": IMAGES.astype(int)}, "image is int64; write uint8 from 0 to 255"),
        ("train", {"image": IMAGES[0, 0]}, "has shape [8, 3]; wanted is [images, height, width"),
        ("train", {"image": FOUR_CHANNELS[1]}, "image has shape [6, 6, 8, 4]"),
        (
            "train",
            {"image": IMAGES.transpose(0, 3, 1, 2)},
            "put channels last with image.transpose",
        ),
        ("train", {"image": IMAGES[:, :3]}, "height and width have to be 4 at least"),
        ("train", {"image": IMAGES[:0], "label": NO_LABELS}, "there are no images"),
        ("train", {"image": np.array(5, np.uint8)}, "image has shape []"),
        ("train", JPEG, "it seems to hold compressed images: decode each with Pillow"),
        ("test", {"image": IMAGES[..., :1]}, "of [6, 8, 1], train.npz of [6, 8, 3]: write the"),
        (
            "test",
            {"image": IMAGES[:, :5]},
            "of [5, 8, 3], train.npz of [6, 8, 3]: write the same he",
        ),
        (
            "train_2",
            {"image": IMAGES[:, :5, :7], "classes": CLASSES},
            "of [6, 8, 3]: write the same height and width",
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "file", "arrays", "message"),
    [(name, *bad) for name, table in BAD_SAMPLES.items() for bad in table],
)
def test_bad_samples(
    tmp_path: Path, name: str, file: str, arrays: dict[str, Any], message: str
) -> None:
    kind = KINDS[name]
    classes = {"classes": CLASSES} if file == "train" else {}
    kind.write(kind.sound(tmp_path), f"{file}.npz", **(classes | arrays))
    assert message in kind.failure(tmp_path, file.partition("_")[0])


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


def test_the_description_of_a_sound_folder(kind: Kind, folder: Path) -> None:
    report, key, all_of_them = kind.module.describe_folder(folder), kind.key, f"{kind.noun}s"
    assert report["problems"] == []
    assert report[all_of_them] == {"train": 6, "test": 6}
    assert kind.sizes.items() <= report.items()
    assert report["classes"][1] == {"name": "b", "train": 2, "test": 2}
    first, samples = report["files"][0], kind.samples()
    assert (first["file"], first["split"], first[all_of_them]) == ("train.npz", "train", 6)
    assert first["arrays"][key] == {"shape": [*samples.shape], "dtype": str(samples.dtype)}
    both = np.concatenate([kind.read(str(folder), split).inputs for split in ("train", "test")])
    assert (*report["value_range"],) == (both.min(), both.max())
    if kind.noun == "cloud":
        assert report["largest_norm"] == pytest.approx(np.linalg.norm(both, axis=-1).max())


def test_the_description_warns(kind: Kind, folder: Path) -> None:
    samples = kind.samples() % 2 if kind.noun == "image" else kind.samples()
    samples[1] = samples[0]
    samples[2] = 1
    kind.write(folder, "train.npz", **{kind.key: samples})
    kind.write(folder, "test.npz", **{kind.key: samples[[0, 3, 4]]}, label=np.array([0, 1, 0]))
    report = kind.module.describe_folder(folder)
    assert report["problems"] == []
    assert report["duplicates_between_splits"] == 3
    assert report["duplicates_in_train"] == 1
    text = " | ".join(report["warnings"])
    for warning in (
        f"3 test {kind.noun}s are in training too",
        f"class 2 has no test {kind.noun}s",
        f"class 0 has 2 training {kind.noun}s",
        *kind.warnings,
    ):
        assert warning in text
