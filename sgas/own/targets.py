"""What samples are to be predicted as: labels in any form, as classes, many labels or numbers.

One class: integers, truths, names as text, or one-hot rows. Integers from 0 on are numbers of
classes, any others the classes' names. Many labels: rows of 0 and 1. Numbers: as asked for.

Dimensions: N samples, L labels, T numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgas.config import CLASS, LABELS, NUMBERS, UNKNOWN
from sgas.errors import DataError, printable

KINDS = "iubfUS"  # of types that labels can have
NONE = -2  # a label that is no class


def header_problem(name: str, kind: str, dtype: object, ndim: int, wanted: str) -> str | None:
    """Why labels of a type and a number of axes cannot be used, or None."""
    if kind not in KINDS:
        return f"{name} is {dtype}; write integers from 0 on, or names as text"
    if wanted == NUMBERS and kind in "US":
        return f"{name} is {dtype}, and numbers are wanted: leave target out"
    if kind == "f" and ndim == 1 and wanted != NUMBERS:
        return f"{name} is {dtype}; write integers from 0 on, or ask for numbers (target numbers)"
    return None


def plain(raw: np.ndarray, wanted: str, one: str) -> np.ndarray:
    """Labels in one of three forms; DataError names the first that has none.

    Integers or text `[N]`, bool `[N, L]`, or where numbers are `wanted` float32 `[N, T]`. `one` is
    what a sample is called.
    """
    labels = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if problem := header_problem("label", raw.dtype.kind, raw.dtype, labels.ndim, wanted):
        raise DataError(problem)
    if wanted == NUMBERS:
        return _numbers(labels.reshape(len(labels), -1), one)
    if wanted == LABELS and labels.ndim == 1:
        raise DataError(f"label has shape {list(labels.shape)}; many labels are [samples, labels]")
    if labels.ndim == 1:
        text = np.char.decode(labels, "utf-8", "replace") if raw.dtype.kind == "S" else labels
        return text.astype(np.int64) if raw.dtype.kind == "b" else text
    wrong = (labels != 0) & (labels != 1)
    rows = np.flatnonzero(wrong.any(axis=1))
    if len(rows):
        value = labels[rows[0]][wrong[rows[0]]][0]
        told = "NaN (unknown)" if value != value else value
        raise DataError(
            f"the labels of {one} {rows[0]} are not all 0 or 1 ({len(rows)} such {one}s), the "
            f"first is {told}: many labels are on or off; target numbers predicts numbers"
        )
    return labels != 0


def _numbers(labels: np.ndarray, one: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        numbers = labels.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(wrong):
        raise DataError(
            f"the numbers of {one} {wrong[0]} are {labels[wrong[0]].tolist()} ({len(wrong)} such "
            f"{one}s): what is unknown or infinite cannot be learnt, leave these {one}s out"
        )
    return numbers


def of_parts(samples: tuple[int, ...], labels: tuple[int, ...], wanted: str) -> bool:
    """Whether labels are those of the P parts of samples, by the shapes of both.

    Samples are `[N, P, ...]` then, labels `[N, P]` or `[N, P, L]`; `[N, P]` are many labels of
    samples where these are `wanted`.
    """
    alike = len(samples) > 2 and labels[:2] == samples[:2]
    return alike and (len(labels) == 3 or (len(labels) == 2 and wanted != LABELS))


def rows_of(values: np.ndarray) -> np.ndarray:
    """Labels `[N, P]` or `[N, P, L]` of the P parts of samples as rows `[N·P]` or `[N·P, L]`."""
    return values.reshape(-1, *values.shape[2:])


def one_hot(labels: np.ndarray) -> bool:
    """Whether `plain` labels have one that is on in every row, of several."""
    several = labels.dtype == bool and labels.shape[1] > 1
    return bool(several and (labels.sum(axis=1) == 1).all())


@dataclass(frozen=True)
class Coding:
    """How `plain` labels become targets: the names of the classes, labels or numbers in order.

    `numbers_of` gives the number of a class by its label; None where labels are numbers already.
    """

    names: tuple[str, ...]
    numbers_of: dict[object, int] | None = None
    one_hot: bool = False

    @classmethod
    def of(
        cls,
        parts: Sequence[np.ndarray],
        names: tuple[str, ...] | None,
        wanted: str,
        unknown: bool = False,
    ) -> Coding:
        """The coding of `plain` labels of training, in parts; `unknown`: -1 is no class.

        DataError where they are none of what is wanted.
        """
        first = parts[0]
        if first.ndim == 2:
            if first.dtype == bool and wanted != LABELS and all(map(one_hot, parts)):
                return cls(names or _counted(first.shape[1]), one_hot=True)
            if wanted == CLASS:
                raise DataError(
                    f"label has shape {list(first.shape)} and rows without one label alone; a "
                    "class each is wanted: leave target out"
                )
            return cls(names or _counted(first.shape[1]))
        if first.dtype.kind == "U" and names is not None:
            return cls(names, {name: number for number, name in enumerate(names)})
        values = np.unique(np.concatenate([np.unique(part) for part in parts]))
        if first.dtype.kind != "U":
            known = values[values != UNKNOWN] if unknown else values
            if names is not None or not len(known) or known[0] == 0 or (unknown and known[0] < 0):
                # More classes than labels cannot all be there: a huge number makes no list.
                last = min(int(known[-1]), len(known)) if len(known) else -1
                return cls(names or _counted(last + 1))
            values = known
        if len(values) == 1:
            also = f", and {UNKNOWN} means unknown" if unknown else ""
            raise DataError(
                f"every known label is {values[0]}{also}: two classes are wanted at least, "
                "numbered from 0 or named"
            )
        return cls(
            tuple(printable(str(value)) for value in values.tolist()),
            {value: number for number, value in enumerate(values.tolist())},
        )

    def code(self, labels: np.ndarray) -> np.ndarray:
        """Targets: int64 `[N]` of classes (NONE for what is none), bool `[N, L]`, float32 `[N, T]`.

        Labels that are numbers already are not looked at.
        """
        if self.one_hot:
            alone = labels.sum(axis=1) == 1
            return np.where(alone, labels.argmax(axis=1), NONE)
        if labels.ndim == 2:
            return labels
        if self.numbers_of is None:
            return labels.astype(np.int64)
        values, places = np.unique(labels, return_inverse=True)
        unknown = {UNKNOWN: UNKNOWN} | self.numbers_of
        codes = [unknown.get(value, NONE) for value in values.tolist()]
        return np.array(codes, np.int64)[places.reshape(len(labels))]


def _counted(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))
