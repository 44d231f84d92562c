"""What a search and a training return: their run folders, read; shown in a line or as a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sgas.cells.genotype import Genotype
from sgas.deciding.records import EpochRecord
from sgas.deciding.schedule import shown_epoch
from sgas.family import Family, Preparation
from sgas.protocols import protocol_of_search
from sgas.registry import plugged
from sgas.running.evaluation import evaluate_run
from sgas.running.predict import Answers, answer, is_own_data, kept_inputs
from sgas.running.process import undisturbed
from sgas.running.runs import read_genotype, read_metrics, read_records
from sgas.running.settings import open_settings
from sgas.running.trained import (
    open_trained,
    read_evaluation,
    read_result,
    trained_network,
)

if TYPE_CHECKING:
    from torch import nn

    from sgas.exporting.export import Exported
    from sgas.labels import Labels


def _described(result: SearchResult | TrainResult) -> str:
    """A few lines: the run, its data, its last epoch, its genotype."""
    lines = (f"  {name:<10} {value}" for name, value in result.facts().items())
    return "\n".join([type(result).__name__, *lines])


def _as_svg(result: SearchResult | TrainResult) -> str:
    """The first cell, for a notebook that shows SVG alone."""
    return next(iter(_cells_of(result).values()))


def _as_html(result: SearchResult | TrainResult) -> str:
    """All cells, and below them what `_described` says."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in result.facts().items()
    )
    cells = _cells_of(result).values()
    return f"<div>{''.join(cells)}<table>{rows}</table></div>"


def _cells_of(result: SearchResult | TrainResult) -> dict[str, str]:
    with plugged(result.family, folders=[result.folder]):
        return cells_of(result.family, result.genotype)


def cells_of(family: Family, genotype: Genotype) -> dict[str, str]:
    """SVG of each cell of a genotype, by its kind."""
    from sgas.reports import draw_genotype

    space, groups = family.search_space(genotype.space), family.operation_groups
    return {kind: draw_genotype(genotype, space, kind, groups=groups) for kind in genotype.cells}


def _common_facts(result: SearchResult | TrainResult, protocol: str) -> dict[str, Any]:
    run, last = result.config["run"], result.history[-1]
    figures = [
        f"{name} {value:.4f}"
        for name, value in last.items()
        if name.startswith(("validation_", "test_"))
    ]
    return {
        "run": result.folder,
        "data": f"{run['dataset']} · protocol {protocol} · seed {run['seed']}",
        "epochs": f"{shown_epoch(last['epoch'])} · {' · '.join(figures) or 'no validation part'}",
        "genotype": result.genotype.to_text(),
    }


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found, read from its run folder.

    `config` is its resolved configuration as in config.json, `history` the figures of each epoch
    (losses, metrics, learning rate, decided edges, seconds), `decisions` the records of the epochs
    that decided an edge, in order.
    """

    family: Family
    folder: Path
    genotype: Genotype
    config: Mapping[str, Any]
    history: list[dict[str, Any]]
    decisions: list[EpochRecord]

    @classmethod
    def from_run(cls, family: Family, folder: str | Path) -> SearchResult:
        """The result of a run folder; RunError where it is no search of this family."""
        path = Path(folder)
        with plugged(family, folders=[path]):
            _, config = open_settings(family, path, "search")
        decisions = [record for record in read_records(path) if record.edge is not None]
        return cls(family, path, read_genotype(path), config, read_metrics(path), decisions)

    def facts(self) -> dict[str, Any]:
        """What is said of the search in a few lines."""
        return {
            **_common_facts(self, protocol_of_search(self.config)),
            "decisions": len(self.decisions),
        }

    __repr__, _repr_svg_, _repr_html_ = _described, _as_svg, _as_html


@dataclass(frozen=True, repr=False)
class TrainResult:
    """A trained network, read from its run folder: it predicts, without the data.

    `config` and `history` are as those of a search; `result` has the figures of the epoch that was
    kept, parameters and FLOPs.
    """

    family: Family
    folder: Path
    genotype: Genotype
    config: Mapping[str, Any]
    history: list[dict[str, Any]]
    result: Mapping[str, Any]

    @classmethod
    def from_run(cls, family: Family, folder: str | Path) -> TrainResult:
        """The result of a run folder; RunError where it is no training that has ended."""
        path = Path(folder)
        with plugged(family, folders=[path]):
            settings, config = open_trained(family, path)
        assert settings.genotype is not None, "a training has a genotype"
        result = read_result(path)
        return cls(family, path, settings.genotype, config, read_metrics(path), result)

    @cached_property
    @undisturbed()
    def network(self) -> nn.Module:
        """The trained network, on the CPU in evaluation mode at first; takes a prepared batch."""
        with plugged(self.family, folders=[self.folder]):
            return cast("nn.Module", trained_network(self.family, self.folder))

    @cached_property
    @undisturbed()
    def _inputs(self) -> tuple[tuple[str, ...], Preparation]:
        with plugged(self.family, folders=[self.folder]):
            return kept_inputs(self.family, self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes or labels, in the order of their numbers."""
        return self._inputs[0]

    @property
    def labels(self) -> Labels:
        """What is predicted: one class, many labels or numbers."""
        return self._inputs[1].labels

    @undisturbed()
    def answers(self, data: Any) -> Answers:
        """The logits for what `predict` takes, with names of the samples and targets if known."""
        classes, preparation = self._inputs
        with plugged(self.family, folders=[self.folder]):
            settings, _ = open_trained(self.family, self.folder)
            if is_own_data(self.family, settings.run, data):
                self.evaluate()  # a look at the test part is an evaluation, and is kept as one
            return answer(self.network, preparation, classes, data, settings)

    def predict(self, data: Any) -> Any:
        """The number of the class of each sample, int64 `[N]`, or of a single one.

        `data` is one sample or several: an array or tensor, a list (of clouds of any sizes), PyG's
        data, a map-style `torch.utils.data.Dataset`, the path of files or of a folder of one's own,
        or the name of a data set; of the last two, the test part. Samples are as in the data, not
        normalised. Of many labels bool `[N, L]`; of graphs an array for each, with a row a node,
        and so of clouds whose points are asked, with a row for each point that is given.
        The network runs where its parameters are. DataError where it cannot take them.
        """
        answers = self.answers(data)
        return answers.collected(answers.labels.predictions)

    def predict_proba(self, data: Any) -> Any:
        """The probabilities of all `classes`, float32 `[N, L]`; all else is as for `predict`."""
        answers = self.answers(data)
        return answers.collected(answers.labels.probabilities)

    @undisturbed()
    def export(self, path: str | Path, format: str = "python") -> Exported:
        """Writes the network as files that need torch alone, and what was checked of them.

        `format` is `python`, one readable file with its weights beside it, `torch`, a program of
        torch.export, or `onnx`, a model of ONNX. InputError where it cannot be exported so;
        nothing is left then.
        """
        from sgas.exporting.python_file import About
        from sgas.running.export import export_network

        classes, preparation = self._inputs
        with plugged(self.family, folders=[self.folder]):
            settings, config = open_trained(self.family, self.folder)
            space = str(settings.run.space)
            models = self.family.spaces[space].models(settings.model, config["dimensions"])
            network = trained_network(self.family, self.folder)
            name, origin = Path(path).stem, self.result["provenance"]
            about = About(name, origin, self.genotype, True, classes, preparation.labels)
            example = models.example_input()
            return export_network(
                self.family, space, network, preparation, example, about, path, format
            )

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The figures on the test split; None where `evaluate` has not opened it yet."""
        return read_evaluation(self.folder)

    @undisturbed()
    def evaluate(self, device: str = "auto", dataset: str | Path | None = None) -> dict[str, Any]:
        """The figures on the test split, which is opened once; the next call reads them.

        `dataset` is where data of one's own lie now, if not where they were.
        """
        place = None if dataset is None else str(dataset)
        with plugged(self.family, folders=[self.folder]):
            return evaluate_run(self.family, self.folder, device, place)

    def facts(self) -> dict[str, Any]:
        """What is said of the training in a few lines."""
        cost = f"{self.result['parameters']:,} parameters · {self.result['flops']:,} FLOPs a sample"
        facts = _common_facts(self, self.result["protocol"])
        kept = {"kept": f"epoch {self.result['epoch']}"} if "epoch" in self.result else {}
        return {**facts, **kept, "network": cost, "made by": self.result["provenance"]}

    __repr__, _repr_svg_, _repr_html_ = _described, _as_svg, _as_html
