"""Clouds of one's own: loads and describes a folder with `train*.npz` and `test*.npz`.

`scan.py` states the format.

Dimensions: N clouds, P points of a cloud, C channels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sgas.data import LabelledArrays, stream_seed
from sgas.errors import DataError
from sgas_gcn.datasets.npz import available_memory, in_words, read_array
from sgas_gcn.datasets.scan import SPLITS, FolderScan, PointFile, scan_folder

BLOCK = 256  # clouds that are worked on at a time
PARTS_OF_A_SEARCH = 3  # weights, alphas, validation


def load_folder(folder: Path, split: str, num_points: int | None, seed: int) -> LabelledArrays:
    """One split: inputs float32 `[N, num_points, C]` (None: all points), labels int64 `[N]`.

    Where clouds have more than `num_points` points, each gives a random choice of its own that
    depends on `seed` and the file's name, because the order of points may mean anything. The test
    files are opened for split "test" alone; the training files always, since they say which
    classes there are. DataError with the first problem: of the folder, the files, the labels or
    the values of the points.
    """
    scan = scan_folder(folder, ("train",) if split == "train" else ("train", "test"))
    _refuse(folder, scan.problems)
    files = scan.files[split]
    num_points = num_points or files[0].shape[1]
    _refuse(folder, _size_problems(files, num_points))
    inputs = np.empty((sum(file.shape[0] for file in files), num_points, files[0].shape[2]), "f4")
    start = 0
    for file in files:
        stop = start + file.shape[0]
        generator = np.random.default_rng(stream_seed(seed, "points", split, file.path.name))
        _fill(inputs[start:stop], file, generator)
        start = stop
    return LabelledArrays(inputs, np.concatenate([file.labels for file in files]), scan.classes)


def _size_problems(files: list[PointFile], num_points: int) -> Iterator[str]:
    """Why clouds of `num_points` cannot be taken of these files."""
    stored = files[0].shape[1]
    if num_points > stored:
        yield (
            f"{files[0].path}: clouds of {stored} points, but num_points is {num_points}: "
            f"give --num_points {stored} or less"
        )
    kept = sum(file.shape[0] for file in files) * num_points * files[0].shape[2] * 4
    wanted = kept + max(file.headers["points"].nbytes for file in files)
    free = available_memory()
    if wanted > free:
        yield (
            f"{files[0].path.parent}: loading takes {in_words(wanted)}, {in_words(free)} of "
            f"memory are free: lower --num_points or use fewer clouds"
        )


def _refuse(folder: Path, problems: Iterable[str]) -> None:
    """DataError with the first of the problems, where there are any."""
    found = list(problems)
    if found:
        rest = f" (and {len(found) - 1} more: sgas-gcn check {folder})" if len(found) > 1 else ""
        raise DataError(found[0] + rest)


def blocks(points: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The clouds `[N, P, C]`, some at a time, as (number of the first, float32 `[n, P, C]`)."""
    for start in range(0, len(points), BLOCK):
        with np.errstate(over="ignore"):
            yield start, points[start : start + BLOCK].astype(np.float32)


def not_finite_problem(path: Path, bad: np.ndarray) -> str:
    """The message for clouds, by number `[n]`, with values that are no finite float32."""
    count = "1 cloud has" if len(bad) == 1 else f"{len(bad)} clouds have"
    return f"{path}: {count} NaN or infinite points, first cloud {bad[0]}: correct or remove"


def _fill(inputs: np.ndarray, file: PointFile, generator: np.random.Generator) -> None:
    """Writes a file's clouds into `inputs` `[N, num_points, C]`; DataError for NaN or infinity."""
    num_stored, num_points = file.shape[1], inputs.shape[1]
    bad: list[int] = []
    for start, block in blocks(read_array(file.path, "points")):
        finite = np.isfinite(block).all(axis=(1, 2))
        bad += (start + np.flatnonzero(~finite)).tolist()
        if num_points < num_stored:
            draw = generator.random((len(block), num_stored), np.float32)
            chosen = np.argpartition(draw, num_points - 1, axis=1)[:, :num_points]
            block = np.take_along_axis(block, chosen[..., None], axis=1)
        inputs[start : start + len(block)] = block
    if bad:
        raise DataError(not_finite_problem(file.path, np.array(bad)))


@dataclass
class Values:
    """What the points of the files read so far tell."""

    lowest: float = float("inf")
    highest: float = float("-inf")
    largest_norm: float = 0.0
    single_points: int = 0
    prints: dict[str, Counter[bytes]] = field(
        default_factory=lambda: {split: Counter() for split in SPLITS}
    )

    def add(self, split: str, clouds: np.ndarray) -> None:
        """Takes note of finite clouds `[n, P, C]` of a split."""
        if not len(clouds):
            return
        self.lowest = min(self.lowest, float(clouds.min()))
        self.highest = max(self.highest, float(clouds.max()))
        norms = np.linalg.norm(clouds[..., :3].astype(np.float64), axis=-1)
        self.largest_norm = max(self.largest_norm, float(norms.max()))
        self.single_points += int((np.ptp(clouds[..., :3], axis=1) == 0).all(axis=1).sum())
        self.prints[split].update(
            hashlib.blake2b(cloud.tobytes(), digest_size=16).digest() for cloud in clouds
        )

    def duplicates(self) -> tuple[int, int]:
        """Test clouds that are in training too, and training clouds that repeat another."""
        train, test = self.prints["train"], self.prints["test"]
        leaked = sum(count for key, count in test.items() if key in train)
        return leaked, sum(train.values()) - len(train)


def describe_folder(path: str | Path) -> dict[str, Any]:
    """A folder's contents as JSON values; raises for nothing that its files may hold.

    Keys: `path`; `files`, each with `file`, `split`, `clouds` and `arrays` (shape and type by
    name); `clouds` by split; `points_per_cloud` and `channels` of training; `classes`, each with
    `name`, `train` and `test` counts; `value_range` and `largest_norm` (null where nothing could
    be read); `duplicates_between_splits` and `duplicates_in_train`, clouds with equal points in
    equal order; `problems`, which keep the folder from being used; `warnings`, which do not.
    """
    folder = Path(path)
    scan = scan_folder(folder, SPLITS)
    problems, values = list(scan.problems), Values()
    for split, files in scan.files.items():
        for file in files:
            problems += [] if file.problems else _read_values(split, file, values)
    counts = {split: _label_counts(scan, split) for split in SPLITS}
    train = next((file for file in scan.files.get("train", []) if not file.problems), None)
    leaked, repeated = values.duplicates()
    seen = bool(values.prints["train"] or values.prints["test"])
    return {
        "path": str(folder),
        "files": [
            _describe_file(split, file) for split in scan.files for file in scan.files[split]
        ],
        "clouds": {split: sum(counts[split].values()) for split in SPLITS},
        "points_per_cloud": train.shape[1] if train else None,
        "channels": train.shape[2] if train else None,
        "classes": [
            {"name": name, **{split: counts[split][number] for split in SPLITS}}
            for number, name in enumerate(scan.classes)
        ],
        "value_range": [values.lowest, values.highest] if seen else None,
        "largest_norm": values.largest_norm if seen else None,
        "duplicates_between_splits": leaked,
        "duplicates_in_train": repeated,
        "problems": problems,
        "warnings": _warnings(scan, counts, values),
    }


def _read_values(split: str, file: PointFile, values: Values) -> list[str]:
    """Adds a file's clouds to `values`; the problems that reading them shows."""
    bad: list[int] = []
    try:
        for start, block in blocks(read_array(file.path, "points")):
            finite = np.isfinite(block).all(axis=(1, 2))
            bad += (start + np.flatnonzero(~finite)).tolist()
            values.add(split, block[finite])
    except DataError as error:
        return [str(error)]
    return [not_finite_problem(file.path, np.array(bad))] if bad else []


def _label_counts(scan: FolderScan, split: str) -> Counter[int]:
    counts: Counter[int] = Counter()
    for file in scan.files.get(split, []):
        counts.update(file.labels.tolist())
    return counts


def _describe_file(split: str, file: PointFile) -> dict[str, Any]:
    arrays = {
        name: {"shape": list(header.shape), "dtype": str(header.dtype)}
        for name, header in file.headers.items()
    }
    return {"file": file.path.name, "split": split, "clouds": len(file.labels), "arrays": arrays}


def _warnings(scan: FolderScan, counts: dict[str, Counter[int]], values: Values) -> list[str]:
    """What is allowed and yet seldom meant."""
    warnings = []
    leaked, repeated = values.duplicates()
    if leaked:
        warnings.append(f"{leaked} test clouds are in training too: test figures will flatter")
    if repeated:
        warnings.append(f"{repeated} training clouds repeat another training cloud")
    if values.single_points:
        warnings.append(f"{values.single_points} clouds have all their points in one place")
    if values.largest_norm > 1.01:
        warnings.append(
            f"the farthest point is {values.largest_norm:.4g} from the origin; published settings "
            f"have clouds centred and scaled to the unit sphere"
        )
    for number, name in enumerate(scan.classes):
        if 0 < counts["train"][number] < PARTS_OF_A_SEARCH:
            warnings.append(
                f"class {name} has {counts['train'][number]} training clouds; a search with a "
                f"validation part needs {PARTS_OF_A_SEARCH}"
            )
        if counts["test"] and not counts["test"][number]:
            warnings.append(f"class {name} has no test clouds")
    return warnings
