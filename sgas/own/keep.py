"""Keeps data that a program holds in memory as a folder of one's own, which every verb can open.

A run then knows its data by a path: it can be resumed, evaluated and reported from the command line
and on other machines. The folder's name has a hash of its contents: equal data is kept once.

Dimensions: N samples.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgas.errors import DataError

Arrays = Mapping[str, np.ndarray]


def keep(root: str | Path, name: str, files: Mapping[str, Arrays]) -> Path:
    """`root/own/NAME-HASH` with an `.npz` file of arrays for each key; made where it is missing."""
    digest = hashlib.sha256()
    for file, arrays in files.items():
        for key, array in arrays.items():
            digest.update(f"{file}/{key}/{array.dtype.str}/{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    parent = Path(root).expanduser().resolve() / "own"
    folder = parent / f"{name}-{digest.hexdigest()[:10]}"
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
    except OSError as error:
        raise DataError(f"cannot write in {parent}: {error.strerror}") from None
    try:
        for file, arrays in files.items():
            np.savez(fresh / f"{file}.npz", **dict(arrays))  # type: ignore[arg-type]
        fresh.chmod(0o755)
        os.rename(fresh, folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if not folder.is_dir():  # another process may have made it meanwhile
            raise DataError(f"cannot write {folder}: {error.strerror}") from None
    return folder


def name_of(dataset: Any) -> str:
    """A short name for a data set of a class of one's own."""
    kind = type(dataset).__name__.lower()
    return kind if kind.isidentifier() and kind not in ("list", "tuple") else "data"


def pairs(dataset: Any, what: str) -> Iterator[tuple[Any, int]]:
    """The samples and labels of a data set, one by one.

    `dataset` is a map-style `torch.utils.data.Dataset` whose items begin with a sample and its
    label, or a pair of arrays or tensors, samples `[N, ...]` and labels `[N]`. DataError where it
    is neither; `what` is what a sample is called.
    """
    refuse_kinds(dataset, what)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        samples, labels = as_array(dataset[0]), as_array(dataset[1])
        if samples.shape[:1] != labels.shape or not len(labels):
            raise DataError(
                f"the {what}s have shape {list(samples.shape)}, the labels {list(labels.shape)}: "
                "give as many of one as of the other"
            )
        yield from ((sample, _label(label, n)) for n, (sample, label) in _zipped(samples, labels))
        return
    try:
        count = len(dataset)
    except TypeError:
        raise DataError(
            f"the data set is {type(dataset).__name__}, which has no length; give a map-style "
            f"torch.utils.data.Dataset of ({what}, label), a pair of arrays, a name or a folder"
        ) from None
    if count == 0:
        raise DataError("the data set is empty")
    for number in range(count):
        item = dataset[number]
        if not isinstance(item, Sequence) or len(item) < 2:
            raise DataError(
                f"item {number} of the data set is {type(item).__name__}; it has to be "
                f"({what}, label)"
            )
        yield item[0], _label(item[1], number)


def refuse_kinds(dataset: Any, what: str) -> None:
    """DataError for what is often at hand, but is no data set of samples."""
    from torch.utils.data import DataLoader

    if isinstance(dataset, DataLoader):
        raise DataError("the data set is a DataLoader, which gives batches: give its .dataset")
    if isinstance(dataset, Mapping):
        raise DataError(
            f"the data set is a dict of {', '.join(map(repr, dataset)) or 'nothing'}: give a pair "
            f"of arrays, ({what}s, labels), or a torch.utils.data.Dataset of ({what}, label)"
        )


def _zipped(samples: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, tuple[Any, Any]]]:
    return enumerate(zip(samples, labels, strict=True))


def _label(label: Any, number: int) -> int:
    value = as_array(label)
    if value.size != 1 or value.dtype.kind not in "iu":
        raise DataError(f"label {number} is {label!r}; give one whole number a sample, from 0")
    return int(value.item())


def as_array(value: Any) -> np.ndarray:
    """A tensor, array or picture as an array, on the CPU."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def stacked(samples: Sequence[np.ndarray], what: str) -> np.ndarray:
    """Samples of one shape as `[N, ...]`; DataError names the first that is of another."""
    for number, sample in enumerate(samples):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"{what} {number} has shape {list(sample.shape)}, {what} 0 "
                f"{list(samples[0].shape)}: give all the same"
            )
    return np.stack(samples)


def labelled(array: str, samples: np.ndarray, labels: Sequence[int], dataset: Any) -> Arrays:
    """The arrays of one file of samples; class names where the data set has `classes`.

    A `torch.utils.data.Subset` has those of the whole, unless it has no sample of some.
    """
    from torch.utils.data import Subset

    whole = dataset
    while isinstance(whole, Subset):
        whole = whole.dataset
    classes = getattr(whole, "classes", None)
    if classes and whole is not dataset and len(np.unique(labels)) < len(classes):
        classes = None
    named = {"classes": np.array([str(name) for name in classes])} if classes else {}
    return {array: samples, "label": np.array(labels, np.int64), **named}
