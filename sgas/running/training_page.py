"""The page of a training that has ended, and its pictures: a function of the run folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgas.config import BEST
from sgas.family import Family
from sgas.labels import Numbers
from sgas.protocols import TEST, VALIDATION
from sgas.reports import (
    CellReport,
    Fact,
    ReportData,
    Section,
    Snippet,
    Table,
    draw_confusion,
    draw_curves,
    draw_genotype,
    draw_network,
    render_report,
)
from sgas.reports.confusion import MOST_CLASSES
from sgas.running.card import CARD, can_write_card, card_text
from sgas.running.complexity import Latency, latency, layers_of
from sgas.running.pictures import CITATION, panels_of, time_taken, write_pictures
from sgas.running.predict import kept_inputs
from sgas.running.predictions import labels_in, read_predictions
from sgas.running.runs import read_metrics
from sgas.running.settings import Settings
from sgas.running.trained import open_trained, read_evaluation, read_result, trained_network

MOST_ROWS, MOST_MISTAKES = 40, 15
SECONDS_OF_LATENCY = 0.2


def draw_trained(family: Family, folder: Path, out: Path) -> list[Path]:
    """Writes the page of a training and its pictures into `out` and returns their paths.

    RunError where the run was not trained to its end or a file of it is damaged.
    """
    settings, config = open_trained(family, folder)
    result, evaluation = read_result(folder), read_evaluation(folder)
    metrics, genotype = read_metrics(folder), settings.genotype
    assert genotype is not None, "a training has a genotype"
    space, groups = family.search_space(genotype.space), family.operation_groups
    models = family.spaces[genotype.space].models(settings.model, config["dimensions"])
    network, example = trained_network(family, folder), models.example_input()
    kept = int(result["epoch"].split()[0]) - 1 if settings.loop.kept_epoch == BEST else None
    name = f"{Path(str(settings.run.dataset)).name} · training · seed {settings.run.seed}"
    texts = {
        f"cell-{kind}.svg": draw_genotype(genotype, space, kind, groups) for kind in genotype.cells
    }
    cells = [CellReport(kind, texts[f"cell-{kind}.svg"]) for kind in genotype.cells]
    texts["network.svg"] = draw_network(layers_of(network, example), f"network · {name}")
    texts["curves.svg"] = draw_curves(metrics, panels_of(metrics), [] if kept is None else [kept])
    rows = read_predictions(folder)
    numbers, sections, confusion = False, list[Section](), ""
    if rows or "inputs" in config:  # of runs of before, which kept neither, the data may be gone
        names, inputs = kept_inputs(family, folder)
        numbers = isinstance(inputs.labels, Numbers)
        sections, confusion = _judged(rows, names, numbers)
    if confusion:
        texts["confusion.svg"] = confusion
    measured = latency(network, example, SECONDS_OF_LATENCY)
    verdict = _verdict(settings, result, evaluation, metrics, measured)
    if out == folder and can_write_card():
        task, pictures = family.spaces[genotype.space].task, [*texts][: len(cells)]
        about = (config, result, evaluation, verdict, pictures, _loading(family, folder, numbers))
        texts[CARD] = card_text(folder.resolve().name, task, *about)
    texts["report.html"] = render_report(
        ReportData(
            title=name,
            verdict=verdict,
            warning=_warning(result, evaluation),
            network=texts["network.svg"],
            cells=cells,
            curves=texts["curves.svg"],
            sections=sections,
            usage=_usage(family, folder, evaluation is not None, numbers),
            stamp=[Fact(name, str(value)) for name, value in config["environment"].items()],
            command=config["command"],
            citation=CITATION,
        )
    )
    return write_pictures(out, texts)


def _verdict(
    settings: Settings,
    result: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    metrics: Sequence[Mapping[str, Any]],
    measured: Latency,
) -> list[Fact]:
    facts = []
    if evaluation is not None:
        count = f"{evaluation['samples']:,} samples, opened {evaluation['opened'][:10]}"
        not_figures = ("loss", "samples", "seed")
        facts += [
            Fact(f"test {name}".replace("_", " "), f"{value:.4f}", count)
            for name, value in evaluation.items()
            if isinstance(value, float) and name not in not_figures
        ]
    epoch = result.get("epoch", f"{len(metrics)} of {settings.loop.epochs}, the last")
    parts = (VALIDATION,) if evaluation is not None else (VALIDATION, TEST)
    facts += [
        Fact(name.replace("_", " "), f"{value:.4f}", f"of epoch {epoch}")
        for name, value in result.items()
        if name.startswith(parts) and isinstance(value, float)
    ]
    return [
        *facts,
        Fact("protocol", result["protocol"], result["provenance"]),
        Fact("seeds", "1", f"seed {settings.run.seed}"),
        Fact("parameters", f"{result['parameters']:,}"),
        Fact("FLOPs", f"{result['flops']:,}", "a sample, 2 a multiply-add"),
        Fact("latency", measured.shown, f"a sample, {measured.note}"),
        time_taken(metrics[-1]["seconds"], "of training, with measuring"),
    ]


def _warning(result: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """What a reader has to know before believing the page."""
    parts = ["One training with one seed: how far others would be from it is not known."]
    if evaluation is None:
        parts.append("The test part has not been opened.")
    if "note" in result:
        parts.append(f"{result['note'].capitalize()}.")
    return " ".join(parts)


def _usage(family: Family, folder: Path, evaluated: bool, numbers: bool) -> list[Snippet]:
    command, load = family.command, _loading(family, folder, numbers)
    test = Snippet("Open the test part, once", f"{command} evaluate {folder}")
    return [
        *([] if evaluated else [test]),
        Snippet("Load it", load),
        Snippet("Predict from the shell", f"{command} predict {folder} DATA --out answers.csv"),
        Snippet("One file that needs torch alone", f"{command} export {folder} --out my_net"),
    ]


def _loading(family: Family, folder: Path, numbers: bool) -> str:
    package = family.home.partition(".")[0]
    load = (
        f"import {package}\n\nmodel = {package}.load({str(folder)!r})\n"
        "numbers = model.predict(samples)  # an array, a list, files, or the name of a data set"
    )
    return load if numbers else f"{load}\nnames = [model.classes[number] for number in numbers]"


def _judged(
    rows: Sequence[Mapping[str, str]], classes: Sequence[str], numbers: bool
) -> tuple[list[Section], str]:
    """What was right and what was wrong in the part that counts most; the picture of it, if any."""
    parts = {row["part"] for row in rows}
    part = next((name for name in (TEST, VALIDATION) if name in parts), None)
    own = [row for row in rows if row["part"] == part]
    if part is None:
        return [], ""
    many = any(row["mistake"] or not row["probability"] for row in own)
    one = next((name for name in ("node", "point") if own[0][name]), "sample")
    heading = f"{part} part, {len(own):,} {one}s"
    if numbers:
        return _number_sections(own, classes, heading), ""
    figures, wrong = _class_figures(own, classes, many), _mistakes(own, many)
    title = f"Figures per {'label' if many else 'class'} · {heading}"
    order = _of_all(len(classes), MOST_ROWS, "hardest first")
    sections = [Section("classes", title, order, table=figures)]
    if wrong.rows:
        count = sum(row["true"] != row["predicted"] for row in own)
        caption = f"{_of_all(count, MOST_MISTAKES, 'the surest first')}; all are in predictions.csv"
        sections.append(Section("mistakes", f"Worst mistakes · {heading}", caption, table=wrong))
    if many or len(classes) > MOST_CLASSES:
        return sections, ""
    picture = draw_confusion(_counts(own, classes), classes, f"confusion matrix · {heading}")
    return [Section("confusion", "What was taken for what", picture=picture), *sections], picture


def _number_sections(
    rows: Sequence[Mapping[str, str]], names: Sequence[str], heading: str
) -> list[Section]:
    """How far numbers were off, each by itself, and the rows that were farthest."""
    import numpy as np

    truth, said = (
        np.array([[float(word) for word in labels_in(row[side])] for row in rows])
        for side in ("true", "predicted")
    )
    off = truth - said
    spread = truth.var(axis=0)
    r2 = 1 - (off**2).mean(axis=0) / np.where(spread > 0, spread, np.inf)
    figures = zip(names, r2, abs(off).mean(axis=0), (off**2).mean(axis=0) ** 0.5, strict=True)
    lines = [[name, f"{len(rows)}", *(f"{value:.4g}" for value in of)] for name, *of in figures]
    table = Table(["number", "n", "R²", "MAE", "RMSE"], lines[:MOST_ROWS])
    farthest = np.argsort(-(off**2 / np.where(spread > 0, spread, 1)).sum(axis=1))[:MOST_MISTAKES]
    columns = [name for name in ("sample", "node", "point", "true", "predicted") if rows[0][name]]
    worst = Table(columns, [[rows[number][name] for name in columns] for number in farthest])
    caption = f"{_of_all(len(rows), MOST_MISTAKES, 'the farthest first')}; all in predictions.csv"
    return [
        Section(
            "classes", f"Figures per number · {heading}", "in the units of the data", table=table
        ),
        Section("mistakes", f"Farthest off · {heading}", caption, table=worst),
    ]


def _of_all(count: int, most: int, order: str) -> str:
    return order if count <= most else f"{order}, {most} of {count:,}"


def _counts(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> list[list[int]]:
    from sklearn.metrics import confusion_matrix

    pairs = [row["true"] for row in rows], [row["predicted"] for row in rows]
    counts: list[list[int]] = confusion_matrix(*pairs, labels=list(classes)).tolist()
    return counts


def _class_figures(rows: Sequence[Mapping[str, str]], classes: Sequence[str], many: bool) -> Table:
    from sklearn.metrics import precision_recall_fscore_support
    from sklearn.preprocessing import MultiLabelBinarizer

    pairs: list[Any] = [[row[name] for row in rows] for name in ("true", "predicted")]
    options: dict[str, Any] = {"average": None, "zero_division": 0}
    if many:
        binarizer = MultiLabelBinarizer(classes=list(classes))
        pairs = [binarizer.fit_transform(map(labels_in, side)) for side in pairs]
    else:
        options["labels"] = list(classes)
    figures = zip(classes, *precision_recall_fscore_support(*pairs, **options), strict=True)
    hardest = sorted(figures, key=lambda each: (each[3], each[0]))[:MOST_ROWS]
    header = ["label" if many else "class", "n", "precision", "recall", "F1"]
    lines = [[name, f"{n}", *(f"{x:.3f}" for x in values)] for name, *values, n in hardest]
    if rows[0]["point"]:
        header.append("IoU")
        for line, (*_, f1, _) in zip(lines, hardest, strict=True):
            line.append(f"{f1 / (2 - f1):.3f}")
    return Table(header, lines)


def _mistakes(rows: Sequence[Mapping[str, str]], many: bool) -> Table:
    """The wrong rows of which the network was surest."""
    wrong = [row for row in rows if row["true"] != row["predicted"]]
    surest = sorted(wrong, key=lambda row: -float(row["probability"]))[:MOST_MISTAKES]
    told = {"mistake": "surest wrong label"} if many else {"true": "true", "predicted": "predicted"}
    places = {name: name for name in ("sample", "node", "point")}
    columns = {**places, **told, "probability": "probability"}
    shown = {name: head for name, head in columns.items() if any(row[name] for row in surest)}
    lines = [[_rounded(row[name]) if name == "probability" else row[name] for name in shown]
             for row in surest]  # fmt: skip
    return Table([*shown.values()], lines)


def _rounded(text: str) -> str:
    return f"{float(text):.3f}"
