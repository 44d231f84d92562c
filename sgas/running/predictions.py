"""What a trained network said of each sample of the parts that it was measured on: predictions.csv.

One row a sample, a node of a graph or a point of a cloud: the part, where it stands, what is true
and what was predicted (a class, or labels or numbers with | between), and how sure the network was.
Of one class that is the probability of the predicted one; of many labels that of the surest wrong
one, which `mistake` names (`+` where it was said to be on, `-` off), and both are empty where all
are right, and of numbers.

Dimensions: R rows, L labels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.config import UNKNOWN
from sgas.errors import RunError
from sgas.files import read_sealed

if TYPE_CHECKING:
    from torch import Tensor

    from sgas.data import Source
    from sgas.labels import Labels

PREDICTIONS = "predictions.csv"
COLUMNS = ("part", "sample", "node", "point", "true", "predicted", "mistake", "probability")


@dataclass
class Said:
    """What is kept of the batches of a part as they are measured, on the device until asked."""

    labels: Labels
    predictions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    surest: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Adds the logits of a batch `[R, L]`."""
        self.predictions.append(self.labels.predictions(logits))
        self.targets.append(targets)
        self.surest.append(self.labels.surest(logits, targets))

    def rows(self, part: str, source: Source, classes: Sequence[str]) -> list[dict[str, str]]:
        """The rows of a part, whose samples were added in order; keys are `COLUMNS`.

        What has no known class has no row.
        """
        import torch

        from sgas.data import row_names

        predictions, targets = torch.cat(self.predictions).cpu(), torch.cat(self.targets).cpu()
        labels, probs = (torch.cat([*each]).tolist() for each in zip(*self.surest, strict=True))
        names = row_names(source, range(len(source)))
        rows = []
        for number, name in enumerate(names):
            label, many = labels[number], targets.ndim > 1
            if not many and targets[number] == UNKNOWN:
                continue
            sign = "+" if many and predictions[number, label] else "-"
            sample, node, point = (*name, "", "")[:3]
            rows.append(
                {
                    "part": part,
                    "sample": sample,
                    "node": node,
                    "point": point,
                    "true": in_words(targets[number], classes),
                    "predicted": in_words(predictions[number], classes),
                    "mistake": f"{sign}{classes[label]}" if many and label >= 0 else "",
                    "probability": "" if label < 0 else f"{probs[number]:.6g}",
                }
            )
        return rows


def in_words(prediction: Any, classes: Sequence[str]) -> str:
    """The name of a class, or the names of the labels that are on with | between, or numbers so.

    Nothing of a class that is not known.
    """
    if prediction.is_floating_point():
        return _line([f"{value:.6g}" for value in prediction.tolist()], "|")
    if prediction.ndim == 0:
        return classes[int(prediction)] if prediction != UNKNOWN else ""
    names = [name for name, on in zip(classes, prediction.tolist(), strict=True) if on]
    return _line(names, "|") if names else ""


def labels_in(words: str) -> list[str]:
    """The names of labels in words that `in_words` made."""
    return next(csv.reader([words], delimiter="|"), []) if words else []


def as_csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    """A file of rows; columns that are empty throughout are left out."""
    columns = [name for name in COLUMNS if any(row[name] for row in rows)]
    lines = [columns, *([row[name] for name in columns] for row in rows)]
    return "".join(f"{_line(line)}\n" for line in lines).encode()


def read_predictions(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's predictions.csv; none where it has no such file, as runs of before."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return []
    try:
        table = csv.DictReader(io.StringIO(read_sealed(path).decode(), newline=""))
        return [dict.fromkeys(COLUMNS, "") | row for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} is damaged: {error}") from None


def _line(cells: Iterable[str], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(cells)
    return text.getvalue()
