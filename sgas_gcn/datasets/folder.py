"""Clouds of one's own: loads and describes a folder with `train*.npz` and `test*.npz`.

The format (the rest is in `sgas.own.folders`): `points` float `[N, P, C]`, coordinates in the first
three of C channels, and `label` integers `[N]`, or those of points `[N, P]`.

Dimensions: N clouds, P points of a cloud, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sgas.config import AUTO
from sgas.data import LabelledArrays
from sgas.errors import DataError, option
from sgas.own.folders import (
    SPLITS,
    Duplicates,
    SampleFile,
    SampleKind,
    class_warnings,
    describe_scan,
    duplicate_warnings,
    present_splits,
    refuse,
    scan_folder,
)
from sgas.own.npz import ArrayHeader, available_memory, in_words, read_array

BLOCK = 256  # clouds that are worked on at a time
FAR = 10  # radii of a cloud from the origin, from which on it is centred


def _header_problems(points: ArrayHeader) -> Iterator[str]:
    """What is wrong with the type and shape of `points`."""
    if points.dtype.kind not in "fiu" or points.dtype.itemsize > 8:
        yield f"points are {points.dtype}; write float16, float32 or float64, or integers"
    if len(points.shape) != 3 or points.shape[2] < 3 or points.shape[1] < 1:
        yield f"points have shape {list(points.shape)}; wanted is [clouds, points, 3 or more]"


CLOUDS = SampleKind(
    array="points",
    one="cloud",
    many="clouds",
    axes=("points", "channels"),
    shared_axes=("channels",),
    problems=_header_problems,
    part="point",
)


def load_folder(
    folder: Path, split: str, num_points: int | None, seed: int, target: str = AUTO
) -> LabelledArrays:
    """One split: inputs float32 `[N, num_points, C]` (None: all points), labels int64 `[N]`.

    Labels of points are `[N, num_points]`, those of the points that are taken. Where clouds have
    more than `num_points` points, each gives a random choice of its own that depends on `seed` and
    its points alone, because their order may mean anything. The test files are opened for split
    "test" alone; the training files always, since they say which classes there are. DataError with
    the first problem: of the folder, the files, the labels or the values of the points.
    """
    more = f"sgas-gcn check {folder}"
    scan = scan_folder(folder, ("train",) if split == "train" else SPLITS, CLOUDS, target)
    refuse(scan.problems, more)
    files = scan.files[split]
    stored, channels = files[0].sample_shape
    num_points = num_points or stored
    refuse(_size_problems(files, num_points), more)
    inputs = np.empty((sum(len(file) for file in files), num_points, channels), np.float32)
    rows = np.tile(np.arange(num_points), (len(inputs), 1))
    start = far = 0
    for file in files:
        stop = start + len(file)
        far += _fill(inputs[start:stop], rows[start:stop], file, seed)
        start = stop
    labels = np.concatenate([file.labels for file in files])
    told = (f"{far} clouds far from the origin are centred",) if far else ()
    remarks = (*scan.remarks, *told)
    if not files[0].of_parts:
        return LabelledArrays(inputs, labels, scan.classes, remarks)
    places = rows.reshape(*rows.shape, *[1] * (labels.ndim - 2))
    taken = np.take_along_axis(labels, places, axis=1)
    return LabelledArrays(inputs, taken, scan.classes, remarks, rows)


def _size_problems(files: list[SampleFile], num_points: int) -> Iterator[str]:
    """Why clouds of `num_points` cannot be taken of these files."""
    stored, channels = files[0].sample_shape
    if num_points > stored:
        yield (
            f"{files[0].path}: clouds of {stored} points, but num_points is {num_points}: "
            f"give {option('num_points', stored)} or less"
        )
    kept = sum(len(file) for file in files) * num_points * channels * 4
    wanted = kept + max(file.nbytes for file in files)
    free = available_memory()
    if wanted > free:
        yield (
            f"{files[0].path.parent}: loading takes {in_words(wanted)}, {in_words(free)} of "
            f"memory are free: lower {option('num_points')} or use fewer clouds"
        )


def blocks(points: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The clouds `[N, P, C]`, some at a time: number of the first, then as `near_origin` has it."""
    for start in range(0, len(points), BLOCK):
        yield start, *near_origin(points[start : start + BLOCK])


def near_origin(clouds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clouds as float32 `[n, P, C]`, and how far `[n]` those were from the origin that are centred.

    A cloud whose mean is more than FAR radii from the origin is centred on it, before float32
    rounds its coordinates; others are as they are, and have 0.
    """
    wide = clouds[..., :3].astype(np.float64)
    with np.errstate(all="ignore"):
        centre = wide.mean(axis=1)  # [n, 3]
        radius = np.linalg.norm(wide - centre[:, None], axis=-1).max(axis=1)
        distance = np.linalg.norm(centre, axis=1)
        distance = np.where((distance > FAR * radius) & (radius > 0), distance, 0.0)
        block = clouds.astype(np.float32)
        far = distance > 0
        block[far, :, :3] = wide[far] - centre[far, None]
    return block, distance


def not_finite_problem(path: Path, bad: np.ndarray) -> str:
    """The message for clouds, by number `[n]`, with values that are no finite float32."""
    count = "1 cloud has" if len(bad) == 1 else f"{len(bad)} clouds have"
    return f"{path}: {count} NaN or infinite points, first cloud {bad[0]}: correct or remove"


def _fill(inputs: np.ndarray, rows: np.ndarray, file: SampleFile, seed: int) -> int:
    """Writes a file's clouds into `inputs` `[N, num_points, C]`, and counts those that are centred.

    Where not all points are taken, `rows` `[N, num_points]` get the numbers of those that are.
    DataError for NaN or infinity.
    """
    import torch

    from sgas_gcn.drawing import drawn_order

    num_stored, num_points = file.sample_shape[0], inputs.shape[1]
    bad: list[int] = []
    num_far = 0
    for start, block, distance in blocks(read_array(file.path, "points")):
        finite = np.isfinite(block).all(axis=(1, 2))
        bad += (start + np.flatnonzero(~finite)).tolist()
        num_far += int(np.count_nonzero(distance))
        if num_points < num_stored:
            order = drawn_order(torch.from_numpy(block), seed).numpy()
            chosen = np.sort(order[:, :num_points], axis=1)
            rows[start : start + len(block)] = chosen
            block = np.take_along_axis(block, chosen[:, :, None], axis=1)
        inputs[start : start + len(block)] = block
    if bad:
        raise DataError(not_finite_problem(file.path, np.array(bad)))
    return num_far


@dataclass
class Values:
    """What the points of the files read so far tell."""

    lowest: float = float("inf")
    highest: float = float("-inf")
    largest_norm: float = 0.0
    single_points: int = 0
    far: int = 0
    farthest: float = 0.0
    duplicates: Duplicates = field(default_factory=Duplicates)

    def add(self, split: str, clouds: np.ndarray) -> None:
        """Takes note of finite clouds `[n, P, C]` of a split."""
        if not len(clouds):
            return
        self.lowest = min(self.lowest, float(clouds.min()))
        self.highest = max(self.highest, float(clouds.max()))
        norms = np.linalg.norm(clouds[..., :3].astype(np.float64), axis=-1)
        self.largest_norm = max(self.largest_norm, float(norms.max()))
        self.single_points += int((np.ptp(clouds[..., :3], axis=1) == 0).all(axis=1).sum())
        self.duplicates.add(split, clouds)


def describe_folder(path: str | Path, target: str = AUTO) -> dict[str, Any]:
    """A folder's contents as JSON values; raises for nothing that its files may hold.

    Keys: `path`; `files`, `clouds` and `classes` as `sgas.own.folders.describe_scan` has them;
    `labels_of`, `clouds` or `points`, which classes count then;
    `points_per_cloud` and `channels` of training; `value_range` and `largest_norm` (null where
    nothing could be read); `duplicates_between_splits` and `duplicates_in_train`, clouds with
    equal points in equal order; `remarks`, what is not used; `problems`, which keep the folder from
    being used; `warnings`, which do not.
    """
    folder = Path(path)
    scan = scan_folder(folder, present_splits(folder), CLOUDS, target)
    problems, values = list(scan.problems), Values()
    for split, files in scan.files.items():
        for file in files:
            problems += [] if file.problems else _read_values(split, file, values)
    train = next((file for file in scan.files.get("train", []) if not file.problems), None)
    seen = values.lowest <= values.highest
    return {
        "path": str(folder),
        **describe_scan(scan),
        "labels_of": "points" if train and train.of_parts else "clouds",
        "points_per_cloud": train.sample_shape[0] if train else None,
        "channels": train.sample_shape[1] if train else None,
        "value_range": [values.lowest, values.highest] if seen else None,
        "largest_norm": values.largest_norm if seen else None,
        "duplicates_between_splits": values.duplicates.between_splits,
        "duplicates_in_train": values.duplicates.in_train,
        "remarks": [*scan.remarks],
        "problems": problems,
        "warnings": [
            *duplicate_warnings(values.duplicates, CLOUDS),
            *_value_warnings(values),
            *class_warnings(scan),
        ],
    }


def _read_values(split: str, file: SampleFile, values: Values) -> list[str]:
    """Adds a file's clouds to `values`; the problems that reading them shows."""
    bad: list[int] = []
    try:
        for start, block, distance in blocks(read_array(file.path, "points")):
            finite = np.isfinite(block).all(axis=(1, 2))
            bad += (start + np.flatnonzero(~finite)).tolist()
            values.far += int(np.count_nonzero(distance))
            values.farthest = max(values.farthest, float(distance.max()))
            values.add(split, block[finite])
    except DataError as error:
        return [str(error)]
    return [not_finite_problem(file.path, np.array(bad))] if bad else []


def _value_warnings(values: Values) -> Iterator[str]:
    """What points may be and yet seldom are meant to be."""
    if values.far:
        yield (
            f"{values.far} clouds lie up to {values.farthest:.4g} from the origin and are centred, "
            "each on its mean"
        )
    if values.single_points:
        yield f"{values.single_points} clouds have all their points in one place"
    if values.largest_norm > 1.01:
        yield (
            f"the farthest point is {values.largest_norm:.4g} from the origin, and clouds are "
            "taken as large as they are; those of published settings lie in the unit sphere: "
            "divide by it where size says nothing of the class"
        )
