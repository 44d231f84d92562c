"""`predict RUN DATA`: what a trained network says of new data, as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sgas.commands.common import DEVICE, THREADS, use_threads
from sgas.family import Family
from sgas.files import csv_text, write_text
from sgas.labels import Numbers
from sgas.options import PLUGIN, Flag, Positional, parse, parser_for
from sgas.running.machine import resolve_device
from sgas.running.predict import Answers
from sgas.running.predictions import in_words
from sgas.running.run_results import TrainResult

RUN = Positional("run", "run folder of a training that has ended")
DATA = Positional(
    "data", "file of samples, folder of your own, or name of a data set (its test part)"
)
FLAGS = [
    PLUGIN,
    Flag("out", "CSV file to write (default: standard output)", is_switch=False),
    DEVICE,
    THREADS,
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `predict` and returns 0; errors are raised."""
    about = (
        "Predict classes by a trained network, which needs nothing of its data. One row of CSV a "
        "sample, a node of a graph, or a point of a cloud where these have classes: the predicted "
        "class, the true one where it is known, and the probability of each. Figures are told "
        "where the truth is known."
    )
    parser = parser_for(family.command, "predict", about, {}, [RUN, DATA], FLAGS)
    values = parse(parser, argv)
    use_threads(values)
    trained = TrainResult.from_run(family, values["run"])
    trained.network.to(resolve_device(values["device"] or "auto"))
    answers = trained.answers(values["data"])
    text = csv_text(_rows(answers, trained.classes))
    if values["out"]:
        write_text(Path(values["out"]), text)
        print(f"wrote    {values['out']}")
    else:
        print(text, end="")
    told: dict[str, float] = {"samples": len(answers.logits)}
    if answers.row_name:
        told[f"{answers.row_name}s"] = sum(map(len, answers.logits))
    told |= answers.figures()
    for name, value in told.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        print(f"{name:<18} {shown}", file=sys.stdout if values["out"] else sys.stderr)
    return 0


def _rows(answers: Answers, classes: Sequence[str]) -> Iterator[list[Any]]:
    """The header, and a row for each row of logits."""
    samples, labels = answers.samples, answers.labels
    known = samples.targets is not None
    if isinstance(labels, Numbers):
        yield from _number_rows(answers, classes)
        return
    yield ["sample", *([answers.row_name] if answers.row_name else []), "predicted",
           *(["true"] if known else []), *classes]  # fmt: skip
    row = 0
    for number, logits in enumerate(answers.logits):
        name = samples.names[number]
        predictions, shares = labels.predictions(logits), labels.probabilities(logits).tolist()
        nodes = samples.rows[number] if samples.rows else range(len(logits))
        for node, predicted, probs in zip(nodes, predictions, shares, strict=True):
            cells = [name, *([node] if answers.row_name else []), in_words(predicted, classes)]
            if samples.targets is not None:
                cells.append(in_words(samples.targets[row], classes))
            yield [*cells, *(f"{share:.6g}" for share in probs)]
            row += 1


def _number_rows(answers: Answers, names: Sequence[str]) -> Iterator[list[Any]]:
    """The header, and the numbers of each row of answers with the true ones after them."""
    samples, row = answers.samples, 0
    truth = [] if samples.targets is None else samples.targets.tolist()
    yield ["sample", *([answers.row_name] if answers.row_name else []),
           *names, *(f"true {name}" for name in names if truth)]  # fmt: skip
    for number, logits in enumerate(answers.logits):
        nodes = samples.rows[number] if samples.rows else range(len(logits))
        predicted = answers.labels.predictions(logits).tolist()
        for node, numbers in zip(nodes, predicted, strict=True):
            name = [samples.names[number], *([node] if answers.row_name else [])]
            known = truth[row] if truth else ()
            yield [*name, *(f"{value:.6g}" for value in (*numbers, *known))]
            row += 1
