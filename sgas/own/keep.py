"""Keeps data that a program holds in memory as a folder of one's own, which every verb can open.

A run then knows its data by a path: it can be resumed, evaluated and reported from the command line
and on other machines. The folder's name has a hash of its contents: equal data is kept once.

Dimensions: N samples.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sgas.errors import DataError
from sgas.files import make_folder, sync_folder, write_atomically
from sgas.own import OWN
from sgas.own.npz import available_memory, in_words
from sgas.own.targets import of_parts, plain, rows_of

Arrays = Mapping[str, np.ndarray]


def keep(root: str | Path, name: str, files: Mapping[str, Arrays]) -> Path:
    """`root/own/NAME-HASH` with an `.npz` file of arrays for each key; made where it is missing."""
    digest = hashlib.sha256()
    for file, arrays in files.items():
        for key, array in arrays.items():
            digest.update(f"{file}/{key}/{array.dtype.str}/{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    parent = Path(root).expanduser().resolve() / OWN
    folder = parent / f"{name}-{digest.hexdigest()[:10]}"
    if folder.is_dir():
        return folder
    try:
        make_folder(parent)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
    except OSError as error:
        raise DataError(f"cannot write in {parent}: {error.strerror}") from None
    try:
        for file, arrays in files.items():
            write_atomically(fresh / f"{file}.npz", partial(_save, arrays))
        fresh.chmod(0o755)
        os.rename(fresh, folder)
        sync_folder(parent)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if not folder.is_dir():  # another process may have made it meanwhile
            raise DataError(f"cannot write {folder}: {error.strerror}") from None
    return folder


def _save(arrays: Arrays, file: BinaryIO) -> None:
    np.savez(file, **dict(arrays))  # type: ignore[arg-type]


def name_of(dataset: Any) -> str:
    """A short name for a data set of a class of one's own."""
    kind = type(dataset).__name__.lower()
    return kind if kind.isidentifier() and kind not in ("list", "tuple") else "data"


def pairs(dataset: Any, what: str) -> Iterator[tuple[Any, np.ndarray]]:
    """The samples and labels of a data set, one by one; a label is a number, a text or a vector.

    `dataset` is a map-style `torch.utils.data.Dataset` whose items begin with a sample and its
    label, or a pair of arrays or tensors, samples `[N, ...]` and labels `[N]`. DataError where it
    is neither; `what` is what a sample is called.
    """
    refuse_kinds(dataset, what)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        samples, labels = as_array(dataset[0]), as_array(dataset[1])
        if samples.shape[:1] != labels.shape[:1] or not len(labels):
            raise DataError(
                f"the {what}s have shape {list(samples.shape)}, the labels {list(labels.shape)}: "
                "give as many of one as of the other"
            )
        yield from zip(samples, labels, strict=True)
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

    library = type(dataset).__module__.partition(".")[0]
    if library == "pandas":
        raise DataError(
            f"the data set is a {type(dataset).__name__} of pandas: give a pair of arrays, "
            f"({what}s, labels), as its to_numpy() makes them"
        )
    if library in ("networkx", "dgl"):
        raise DataError(
            f"the data set is a {type(dataset).__name__} of {library}: give PyG's Data, which "
            f"torch_geometric.utils.from_{library} makes, with x and y"
        )
    if isinstance(dataset, DataLoader):
        raise DataError("the data set is a DataLoader, which gives batches: give its .dataset")
    if isinstance(dataset, Mapping):
        raise DataError(
            f"the data set is a dict of {', '.join(map(repr, dataset)) or 'nothing'}: give a pair "
            f"of arrays, ({what}s, labels), or a torch.utils.data.Dataset of ({what}, label)"
        )


def _label(label: Any, number: int) -> np.ndarray:
    """A label as an array `[]` or `[L]`."""
    if isinstance(label, Mapping):
        raise DataError(
            f"label {number} is a dict of {', '.join(map(str, label))}: boxes and masks "
            "(detection, segmentation of pictures) are not supported; give a class, labels or "
            "numbers"
        )
    value = as_array(label)
    return value.reshape(()) if value.size == 1 else value


def remarks_of(dataset: Any) -> list[str]:
    """What is to be said of the items of a data set: other parts, and such as differ when read."""
    if isinstance(dataset, tuple) or not hasattr(dataset, "__getitem__"):
        return []
    first, again = dataset[0], dataset[0]
    told = []
    if len(first) > 2:
        told.append(f"not used: parts 3 to {len(first)} of each item")
    if not np.array_equal(as_array(first[0]), as_array(again[0])):
        told.append("an item differs from one reading to the next: what was read first is kept")
    return told


def as_array(value: Any) -> np.ndarray:
    """A tensor, array, table or picture as an array of numbers or text, on the CPU.

    What is sparse becomes dense. DataError where it is too large for that, ragged, or of objects.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.layout) != "torch.strided":
            value = _dense(value, value.to_dense)
        array: np.ndarray = (
            value.float() if str(value.dtype) == "torch.bfloat16" else value
        ).numpy()
        return array
    if hasattr(value, "toarray") and hasattr(value, "nnz"):  # SciPy's
        return np.asarray(_dense(value, value.toarray))
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(
            f"a {type(value).__name__} of parts of different sizes is no array: give all the same "
            "size"
        ) from None
    if array.dtype == object:
        if not array.size or not all(isinstance(part, str) for part in array.ravel()):
            raise DataError(f"a {type(value).__name__} of objects is given: give numbers or text")
        return array.astype(str)
    return array


def _dense(value: Any, make: Callable[[], Any]) -> Any:
    """A sparse matrix made dense by `make`, where it fits."""
    wanted, free = 4 * math.prod(value.shape), available_memory()
    if wanted > free / 4:
        raise DataError(
            f"sparse {list(value.shape)} would take {in_words(wanted)} made dense, "
            f"{in_words(free)} of memory are free: give fewer features"
        )
    return make()


def label_array(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Labels `[N]` or `[N, L]`; DataError names the first that is of another form."""
    for number, label in enumerate(labels):
        text = label.dtype.kind in "US"
        if label.shape != labels[0].shape or text != (labels[0].dtype.kind in "US"):
            raise DataError(
                f"label {number} is {label.tolist()!r}, label 0 {labels[0].tolist()!r}: give all "
                "in one form"
            )
    return np.stack(labels)


def stacked(samples: Sequence[np.ndarray], what: str) -> np.ndarray:
    """Samples of one shape as `[N, ...]`; DataError names the first that is of another."""
    for number, sample in enumerate(samples):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"{what} {number} has shape {list(sample.shape)}, {what} 0 "
                f"{list(samples[0].shape)}: give all the same, or files in a folder for each "
                "class, where sizes may differ"
            )
    return np.stack(samples)


def labelled(
    array: str,
    samples: np.ndarray,
    labels: Sequence[np.ndarray],
    dataset: Any,
    target: str,
    part: str = "",
) -> Arrays:
    """The arrays of one file of samples; class names where the data set has `classes`.

    Labels may be those of the parts of samples, where a `part` is something.

    A `torch.utils.data.Subset` has those of the whole, unless it has no sample of some. DataError
    for labels that a `target` cannot have.
    """
    from torch.utils.data import Subset

    whole = dataset
    while isinstance(whole, Subset):
        whole = whole.dataset
    classes = getattr(whole, "classes", None)
    if classes and whole is not dataset and len(np.unique(labels)) < len(classes):
        classes = None
    named = {"classes": np.array([str(name) for name in classes])} if classes else {}
    if told := remarks_of(dataset):
        named["remarks"] = np.array(told)
    label = label_array(labels)
    is_part = bool(part) and of_parts(samples.shape, label.shape, target)
    plain(rows_of(label) if is_part else label, target, part if is_part else "sample")
    return {array: samples, "label": label, **named}
