"""Folders of one's own data: `train*.npz` and `test*.npz`, known by their headers and labels.

Each file holds an array of samples, `label` `[N]` or `[N, L]` as `sgas.own.targets` has it and, if
wanted, `classes`, a text array of names in the order of the labels ("0", "1", … without it). Labels
of the P parts of samples are `[N, P]` or `[N, P, L]`, and a class -1 is unknown there. Other arrays
are named. Several files of a split follow one another in the order of their names. What a
sample is, a family says by a `SampleKind`.

Dimensions: N samples of a file, P parts of a sample, K classes, L labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sgas.config import AUTO, UNKNOWN
from sgas.data import strata_of, stratified_parts
from sgas.errors import DataError
from sgas.own.npz import ArrayHeader, as_names, read_array, read_headers
from sgas.own.targets import NONE, Coding, header_problem, of_parts, plain, rows_of

SPLITS = ("train", "test")
PARTS_OF_A_SEARCH = 3  # weights, alphas, validation
NO_TEST = "no test part (test_fraction draws one)"


@dataclass(frozen=True)
class SampleKind:
    """What the samples of a family's folders are.

    `array` is the name of the array that holds them, `one` and `many` what they are called. `shape`
    turns the array's shape into that of a sample, whose axes are `axes`; training and test have to
    agree in `shared_axes`. `part` is what the first of the axes counts, where each of these can
    have a label. `problems` tells what is wrong with the array's header, `missing_hint` what to do
    where a file has these arrays instead (empty where nothing special).
    """

    array: str
    one: str
    many: str
    axes: tuple[str, ...]
    shared_axes: tuple[str, ...]
    problems: Callable[[ArrayHeader], Iterator[str]]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] = lambda shape: shape[1:]
    missing_hint: Callable[[Mapping[str, ArrayHeader]], str] = lambda headers: ""
    part: str = ""


@dataclass(frozen=True)
class SampleFile:
    """One file by its headers and labels; both are empty where `problems` say why."""

    path: Path
    kind: SampleKind
    headers: dict[str, ArrayHeader]
    problems: tuple[str, ...] = ()
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    classes: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()
    of_parts: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def rows(self) -> np.ndarray:
        """The labels as rows, `[R]` or `[R, L]`, also where they are of parts."""
        return rows_of(self.labels) if self.of_parts else self.labels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample of a file without problems."""
        return self.kind.shape(self.headers[self.kind.array].shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the array of samples takes in memory."""
        return self.headers[self.kind.array].nbytes


@dataclass(frozen=True)
class FolderScan:
    """The files of the splits that were asked for, the class names, and what is wrong.

    The labels of the files are targets. `remarks` say what is not used.
    """

    kind: SampleKind
    files: dict[str, list[SampleFile]]
    classes: tuple[str, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def scan_folder(
    folder: Path, splits: tuple[str, ...], kind: SampleKind, target: str = AUTO
) -> FolderScan:
    """What headers and labels tell; `problems` names all that is wrong with them."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        wanted = "give a folder that holds train*.npz, or a folder of files for each class"
        return FolderScan(kind, {}, (), (f"{folder} {what}: {wanted}",))
    files = {
        split: [open_file(path, kind, target) for path in sorted(folder.glob(f"{split}*.npz"))]
        for split in splits
    }
    names = ", ".join(sorted(path.name for path in folder.glob("*"))[:6]) or "nothing"
    problems = [
        f"{folder} has no {split}*.npz (it has: {names}): write {kind.array} and label with "
        "np.savez"
        for split in splits
        if not files[split]
    ]
    every = [file for split in splits for file in files[split]]
    problems += [problem for file in every for problem in file.problems]
    sound = {split: [file for file in files[split] if not file.problems] for split in splits}
    for split in splits:
        problems += _disagreements(sound[split])
    if not sound.get("train"):
        return FolderScan(kind, files, (), tuple(problems))
    try:
        forms = {(f.labels.dtype.kind in "U", f.of_parts, f.rows.shape[1:]) for f in sound["train"]}
        if len(forms) > 1:
            raise DataError("its files differ in the form of their labels: write the same")
        labels, first = [file.rows for file in sound["train"]], sound["train"][0]
        coding = Coding.of(labels, first.classes, target, unknown=first.of_parts)
    except DataError as error:
        return FolderScan(kind, files, (), (*problems, f"{folder}: {error}"))
    classes = coding.names
    if labels[0].ndim == 1 and coding.numbers_of is None:
        classes, class_problems = _classes(sound["train"])
        problems += class_problems
        if sound.get("test"):
            problems += _test_problems(sound["train"][0], sound["test"], classes)
    else:
        problems += _coding_problems(sound, coding)
    if not problems:
        files = {
            split: [replace(file, labels=_coded(file, coding)) for file in of]
            for split, of in files.items()
        }
    return FolderScan(kind, files, classes, tuple(problems), _remarks(folder, every))


def _coded(file: SampleFile, coding: Coding) -> np.ndarray:
    """The targets of a file, in the form of its labels."""
    rows = coding.code(file.rows)
    return rows.reshape(*file.labels.shape[:2], *rows.shape[1:]) if file.of_parts else rows


def _remarks(folder: Path, files: Sequence[SampleFile]) -> tuple[str, ...]:
    """What of the files is not used, and what they say themselves."""
    used = (files[0].kind.array, "label", "classes", "remarks")
    unused = dict.fromkeys(name for file in files for name in file.headers if name not in used)
    told = [f"not used: {', '.join(unused)}"] if unused else []
    told += dict.fromkeys(remark for file in files for remark in file.remarks)
    return (*told, *([] if has_test(folder) else [NO_TEST]))


def has_test(folder: Path) -> bool:
    """Whether a folder has a test part."""
    return any(folder.glob("test*.npz"))


def _coding_problems(sound: Mapping[str, list[SampleFile]], coding: Coding) -> Iterator[str]:
    """Labels that are no classes of training, and such as have no sample there."""
    first, one = sound["train"][0], sound["train"][0].kind.one
    seen: set[int] = set()
    for split, files in sound.items():
        for file in files:
            if (file.of_parts, file.rows.shape[1:]) != (first.of_parts, first.rows.shape[1:]) or (
                (file.labels.dtype.kind == "U") != (first.labels.dtype.kind == "U")
            ):
                yield (
                    f"{file.path} has labels {list(file.labels.shape)}, {first.path.name} "
                    f"{list(first.labels.shape)}: write the same"
                )
                continue
            codes = coding.code(file.rows)
            wrong = np.flatnonzero(codes.reshape(len(codes), -1)[:, 0] == NONE)
            if len(wrong):
                number = wrong[0] * len(file) // len(codes)
                yield (
                    f"{file.path}: {one} {number} has label {file.rows[wrong[0]]}, which is no "
                    f"class of training ({', '.join(coding.names[:9])}): leave it out or add some"
                )
            if split == "train" and codes.ndim == 1:
                seen |= set(np.unique(codes).tolist())
    missing = [name for number, name in enumerate(coding.names) if number not in seen]
    if seen - {UNKNOWN} and missing:
        yield f"{first.path.parent}: no training {one} is of class {missing[0]}: add some"


def open_file(path: Path, kind: SampleKind, target: str = AUTO) -> SampleFile:
    """A file's headers, labels and class names; `problems` tells what cannot be used."""
    try:
        headers = read_headers(path)
        problems = tuple(
            f"{path}: {problem}" for problem in _header_problems(headers, kind, target)
        )
        if problems:
            return SampleFile(path, kind, headers, problems)
        raw = read_array(path, "label")
        classes = tuple(as_names(read_array(path, "classes"))) if "classes" in headers else None
        told = tuple(as_names(read_array(path, "remarks"))) if "remarks" in headers else ()
    except DataError as error:
        return SampleFile(path, kind, {}, (str(error),))
    of_part = _of_parts(headers, kind, target)
    try:
        labels = plain(rows_of(raw) if of_part else raw, target, kind.part if of_part else kind.one)
    except DataError as error:
        return SampleFile(path, kind, headers, (f"{path}: {error}",))
    if classes is not None and labels.dtype.kind in "iu":
        lowest = UNKNOWN if of_part else 0
        wrong = np.flatnonzero((labels < lowest) | (labels >= 2**31))
        if len(wrong):
            number = wrong[0] * len(raw) // len(labels)
            problem = f"{kind.one} {number} has label {labels[wrong[0]]}; labels count from 0"
            return SampleFile(path, kind, headers, (f"{path}: {problem}",))
    if of_part:
        labels = labels.reshape(*raw.shape[:2], *labels.shape[1:])
    return SampleFile(path, kind, headers, (), labels, classes, told, of_part)


def _of_parts(headers: Mapping[str, ArrayHeader], kind: SampleKind, target: str) -> bool:
    """Whether the labels of a file are of parts of its samples."""
    return bool(kind.part) and of_parts(headers[kind.array].shape, headers["label"].shape, target)


def refuse(problems: Iterable[str], more: str) -> None:
    """DataError with the first of the problems, where there are any; `more` tells of the rest."""
    listed = list(problems)
    if listed:
        rest = f" (and {len(listed) - 1} more: {more})" if len(listed) > 1 else ""
        raise DataError(listed[0] + rest)


def _header_problems(
    headers: dict[str, ArrayHeader], kind: SampleKind, target: str
) -> Iterator[str]:
    """What is wrong with the shapes and types of the arrays that are read."""
    there = ", ".join(headers) or "none"
    for name in (kind.array, "label"):
        if name not in headers:
            hint = kind.missing_hint(headers) if name == kind.array else ""
            wanted = hint or f"{kind.array} and label are needed"
            yield f"no array {name!r} (it has: {there}); {wanted}"
    for name in (kind.array, "label", "classes"):
        problem = headers[name].problem() if name in headers else None
        if problem:
            yield f"{name} {problem}"
    samples, label, classes = (headers.get(name) for name in (kind.array, "label", "classes"))
    if samples:
        yield from kind.problems(samples)
    if samples and samples.shape[:1] == (0,):
        yield f"there are no {kind.many} in it; leave the file out or fill it"
    if label:
        rank = 1 if label.shape[1:] == (1,) else len(label.shape)
        if samples and _of_parts(headers, kind, target):
            rank = 1 if label.shape[2:] in ((), (1,)) else 2
        if problem := header_problem("label", label.dtype.kind, label.dtype, rank, target):
            yield problem
        if samples and samples.shape and (label.shape[:1] != samples.shape[:1] or rank > 2):
            shape = f"label has shape {list(label.shape)} for {samples.shape[0]} {kind.many}"
            yield f"{shape}: one each" + (f", or one each {kind.part}" if kind.part else "")
    if classes and (classes.dtype.kind not in "US" or len(classes.shape) != 1):
        yield f"classes are {classes.dtype} {list(classes.shape)}; write a list of names as text"


def _shape_problem(file: SampleFile, first: SampleFile, axes: tuple[str, ...]) -> str | None:
    """How a file's samples differ from another's along `axes`, or None."""
    kind, mine, others = file.kind, file.sample_shape, first.sample_shape
    differ = [
        axis
        for axis, size, other in zip(kind.axes, mine, others, strict=True)
        if size != other and axis in axes
    ]
    if not differ:
        return None
    return (
        f"{file.path} has {kind.many} of {list(mine)}, {first.path.name} of {list(others)}: "
        f"write the same {' and '.join(differ)}"
    )


def _disagreements(files: list[SampleFile]) -> Iterator[str]:
    """How files of one split differ from the first in what they have to share."""
    for file in files[1:]:
        first = files[0]
        problem = _shape_problem(file, first, file.kind.axes)
        if problem:
            yield problem
        if file.classes != first.classes:
            yield f"{file.path} and {first.path.name} differ in classes: write the same names"


def _classes(files: list[SampleFile]) -> tuple[tuple[str, ...], list[str]]:
    """The names of the classes of the training files, and what is wrong with the labels."""
    labels = np.concatenate([file.labels for file in files])
    named, kind = files[0].classes, files[0].kind
    if named is not None:
        problems = _range_problems(files, len(named))
        if len(set(named)) < len(named):
            twice = next(name for name, count in Counter(named).items() if count > 1)
            problems.append(f"{files[0].path}: classes name {twice!r} twice: give each one name")
    else:
        problems = []
    wanted = int(labels.max()) + 1 if named is None else len(named)
    present = np.unique(labels[(labels >= 0) & (labels < wanted)])
    if not len(present):
        problems.append(f"{files[0].path.parent}: no {kind.part} of training has a known class")
        return named or (), problems
    if len(present) < wanted:
        gaps = np.flatnonzero(present != np.arange(len(present)))
        missing = int(gaps[0]) if len(gaps) else len(present)
        name = f" ({named[missing]})" if named else ""
        rest = wanted - len(present) - 1
        more = f", and {rest} more classes have none" if rest else ""
        problems.append(
            f"{files[0].path.parent}: no training {kind.one} has label {missing}{name} of 0 to "
            f"{wanted - 1}{more}: add {kind.many} or number the labels without gaps"
        )
        return named or (), problems
    return named or tuple(str(number) for number in range(wanted)), problems


def _range_problems(files: list[SampleFile], num_classes: int) -> list[str]:
    return [
        f"{file.path}: label {file.labels.max()} where classes has {num_classes} names "
        f"(labels 0 to {num_classes - 1}): correct the labels or add the names"
        for file in files
        if file.labels.max() >= num_classes
    ]


def _test_problems(
    train: SampleFile, tests: list[SampleFile], classes: tuple[str, ...]
) -> Iterator[str]:
    """How test files differ from training in what they have to share."""
    for file in tests:
        problem = _shape_problem(file, train, file.kind.shared_axes)
        if problem:
            yield problem
        if file.classes is not None and classes and file.classes != classes:
            yield f"{file.path} and {train.path.name} differ in classes: write the same names"
        elif classes and file.labels.max() >= len(classes):
            yield (
                f"{file.path}: label {file.labels.max()}, but training has the labels 0 to "
                f"{len(classes) - 1}: leave these {file.kind.many} out or add some to training"
            )


class Duplicates:
    """Counts samples that are equal in every byte, by a short hash of each."""

    def __init__(self) -> None:
        self.prints: dict[str, Counter[bytes]] = {split: Counter() for split in SPLITS}

    def add(self, split: str, samples: np.ndarray) -> None:
        """Takes note of samples `[n, ...]` of a split."""
        self.prints[split].update(
            hashlib.blake2b(sample.tobytes(), digest_size=16).digest() for sample in samples
        )

    @property
    def between_splits(self) -> int:
        """Test samples that are in training too."""
        train = self.prints["train"]
        return sum(count for key, count in self.prints["test"].items() if key in train)

    @property
    def in_train(self) -> int:
        """Training samples that repeat another."""
        train = self.prints["train"]
        return sum(train.values()) - len(train)


def describe_scan(scan: FolderScan) -> dict[str, Any]:
    """What headers and labels tell, as JSON values.

    Keys: `files`, each with `file`, `split`, the number of samples by their name (`clouds`) and
    `arrays` (shape and type by name); the number of samples by split; `classes`, each with `name`,
    `train` and `test` counts.
    """
    counts = label_counts(scan)
    sizes = {split: sum(map(len, scan.files.get(split, ()))) for split in SPLITS}
    return {
        "files": [
            {
                "file": file.path.name,
                "split": split,
                scan.kind.many: len(file),
                "arrays": {
                    name: {"shape": list(header.shape), "dtype": str(header.dtype)}
                    for name, header in file.headers.items()
                },
            }
            for split, files in scan.files.items()
            for file in files
        ],
        scan.kind.many: sizes,
        "classes": [
            {"name": name, **{split: counts[split][number] for split in SPLITS}}
            for number, name in enumerate(scan.classes)
        ],
    }


def label_counts(scan: FolderScan) -> dict[str, Counter[int]]:
    """How many samples of each split, or parts, have each label; none of numbers, or problems."""
    counts: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    for split, files in scan.files.items():
        for file in files:
            rows = file.rows
            if rows.dtype == np.int64 and rows.ndim == 1:
                counts[split].update(rows.tolist())
            elif rows.dtype == bool:
                counts[split].update(dict(enumerate(rows.sum(axis=0).tolist())))
    return counts


def duplicate_warnings(duplicates: Duplicates, kind: SampleKind) -> Iterator[str]:
    """Warnings of samples that occur more than once."""
    if leaked := duplicates.between_splits:
        yield f"{leaked} test {kind.many} are in training too: test figures will flatter"
    if repeated := duplicates.in_train:
        yield f"{repeated} training {kind.many} repeat another training {kind.one}"


def class_warnings(scan: FolderScan) -> Iterator[str]:
    """Warnings of classes with few training samples or no test samples."""
    counts, many = label_counts(scan), scan.kind.many
    if any(file.labels.ndim != 1 for files in scan.files.values() for file in files):
        return
    for number, name in enumerate(scan.classes):
        if 0 < counts["train"][number] < PARTS_OF_A_SEARCH:
            yield (
                f"class {name} has {counts['train'][number]} training {many}; a search with a "
                f"validation part needs {PARTS_OF_A_SEARCH}"
            )
        if counts["test"] and not counts["test"][number]:
            yield f"class {name} has no test {many}"


def present_splits(folder: Path) -> tuple[str, ...]:
    """The splits that a folder has files of; training in any case."""
    return SPLITS if has_test(folder) else ("train",)


def drawn_split(whole: Any, split: str, fraction: float) -> Any:
    """Split "train" or "test" of data without a test part, `fraction` of it, by classes.

    `whole` is LabelledArrays or ClassFiles. The draw follows no run's seed: the search of one would
    see the test part of another.
    """
    fractions = (1 - fraction, fraction)
    train, test = stratified_parts(strata_of(whole.labels), fractions, seed=0)
    part = whole.subset(train if split == "train" else test)
    told = [drawn_in_words(fraction) if text == NO_TEST else text for text in part.remarks]
    return replace(part, remarks=tuple(told))


def drawn_in_words(fraction: float) -> str:
    """What is said of a test part that was drawn."""
    return f"test part drawn, {fraction:.0%}"
