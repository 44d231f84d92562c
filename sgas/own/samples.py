"""Samples that a program holds in memory, without labels: one, an array, a list or a data set.

Dimensions: N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgas.errors import DataError
from sgas.own.keep import as_array, refuse_kinds
from sgas.own.npz import read_array, read_lone_array

ARRAYS = (".npy", ".npz")  # files of arrays


def is_array_file(path: Path) -> bool:
    """Whether a path is a file of arrays, by its suffix; DataError for another kind of file."""
    if path.suffix.lower() not in ARRAYS and path.is_file():
        raise DataError(f"{path} is no {' or '.join(ARRAYS)} file: give one of these, or a folder")
    return path.suffix.lower() in ARRAYS


def numbers_of(value: Any, what: str, number: int) -> np.ndarray:
    """A tensor or an array as an array of real numbers; DataError for text, complex and objects."""
    array = as_array(value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} {number} is of {array.dtype}; give real numbers")
    return array


def samples_of(data: Any, what: str, is_one: Callable[[Any], bool]) -> tuple[list[Any], bool]:
    """The samples in what a user gives, and whether it is one alone, as `is_one` tells.

    Several are an array `[N, ...]`, a list, or a map-style `torch.utils.data.Dataset`, whose items
    may be (sample, label). DataError where it is none of these; `what` is what a sample is called.
    """
    refuse_kinds(data, what)
    if is_one(data):
        return [data], True
    try:
        count = len(data)
    except TypeError:
        raise DataError(
            f"the data are of type {type(data).__name__}; give one {what}, an array or a list of "
            "them, a torch.utils.data.Dataset, or a path"
        ) from None
    if count == 0:
        raise DataError(f"there is no {what} to predict: the data are empty")
    items = [data[number] for number in range(count)]  # some data sets never end an iteration
    labelled = [isinstance(item, tuple) and not is_one(item) for item in items]
    return [i[0] if pair else i for i, pair in zip(items, labelled, strict=True)], False


def array_of(path: Path, name: str) -> Any:
    """The array of a `.npy` file, or of this name in an `.npz` file; DataError if there is none."""
    if path.suffix.lower() == ".npz":
        return read_array(path, name)
    return read_lone_array(path)


def in_chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The numbers in rows of `size`, the last shorter."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
