"""The verbs as functions, for programs: `search`, `train`, `evaluate`.

They take the same options by the same names, with the same presets and the same errors, and write
the same run folders, so that the command line can go on with what a program began.

    from sgas.interface import search, train
    from sgas_gcn.family import FAMILY

    found = search(FAMILY, "shapes", strategy="cri2", seed=0)
    trained = train(FAMILY, found)
    print(found.genotype.to_text(), trained.evaluate()["accuracy"])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgas.commands import search as search_verb
from sgas.commands import train as train_verb
from sgas.commands.common import command_of, genotype_label, load_genotype, open_settings
from sgas.commands.evaluate import evaluate_run, trained_network
from sgas.errors import ConfigError
from sgas.family import Family, Network
from sgas.genotype import Genotype
from sgas.records import EpochRecord
from sgas.runs import read_genotype, read_metrics, read_records


@dataclass(frozen=True)
class SearchResult:
    """What a search found, read from its run folder.

    `decisions` are the records of the epochs that decided an edge, in order; `history` has the
    figures of each epoch (losses, metrics, learning rate, decided edges, seconds).
    """

    family: Family
    folder: Path
    genotype: Genotype
    decisions: list[EpochRecord]
    history: list[dict[str, Any]]

    @classmethod
    def from_run(cls, family: Family, folder: str | Path) -> SearchResult:
        """The result of a run folder; RunError where it is no search of this family."""
        path = Path(folder)
        open_settings(family, path, "search")
        decisions = [record for record in read_records(path) if record.edge is not None]
        return cls(family, path, read_genotype(path), decisions, read_metrics(path))


@dataclass(frozen=True)
class TrainResult:
    """A trained network, read from its run folder.

    `result` has the figures of the last epoch, parameters and FLOPs; `history` those of each epoch.
    """

    family: Family
    folder: Path
    genotype: Genotype
    result: Mapping[str, Any]
    history: list[dict[str, Any]]

    def evaluate(self, device: str = "auto") -> dict[str, Any]:
        """The figures on the test split, which is opened once; the next call reads them."""
        return evaluate_run(self.family, self.folder, device)

    def network(self) -> Network:
        """The trained network on the CPU, in evaluation mode; it takes a prepared batch."""
        return trained_network(self.family, self.folder)


def search(
    family: Family, dataset: Any = None, *, test: Any = None, **options: Any
) -> SearchResult:
    """Searches a cell and returns what was found.

    `dataset` is a name, the path of a folder, or data in memory: for images and clouds a map-style
    `torch.utils.data.Dataset` of (sample, label) or a pair of arrays, for graphs PyG's Data or a
    list of them, with `test` for its test part (opened by `evaluate` alone). Data in memory is kept
    under `data_root`. `options` are those of the verb by name, `preset` and `out` included; the
    same call goes on with a search that was interrupted. InputError for what cannot be used,
    Interrupted after a stop signal.
    """
    argv = _words(family, dataset, test, options)
    settings = search_verb.settings_of(family, search_verb.parser_of(family, argv), argv)
    command = command_of(family, "search", argv)
    return SearchResult.from_run(family, search_verb.begin_search(family, settings, command).folder)


def train(
    family: Family,
    genotype: SearchResult | Genotype | str | Path,
    dataset: Any = None,
    *,
    test: Any = None,
    **options: Any,
) -> TrainResult:
    """Trains the network of a genotype from scratch and returns it.

    `genotype` is what a search returned (whose data set is then the default), a Genotype, a
    published name, a file or a run folder. All else is as for `search`.
    """
    if isinstance(genotype, Genotype):
        given, name, found = "genotype", genotype.content_hash[:8], genotype
    else:
        given = str(genotype.folder if isinstance(genotype, SearchResult) else genotype)
        found = load_genotype(family, given)
        name = genotype_label(given, found)
    argv = [given, *_words(family, dataset, test, options)]
    settings, _ = train_verb.settings_of(family, train_verb.parser_of(family, argv), argv)
    words = [found.to_text() if isinstance(genotype, Genotype) else given, *argv[1:]]
    command = command_of(family, "train", words)
    trained = train_verb.begin_training(family, settings, found, name, command)
    return TrainResult(family, trained.folder, found, trained.result, read_metrics(trained.folder))


def _words(family: Family, dataset: Any, test: Any, options: Mapping[str, Any]) -> list[str]:
    """A call's options as the words of a command, so that both are read by the same rules."""
    root = str(options.get("data_root") or "data")
    if dataset is not None and not isinstance(dataset, str | Path):
        dataset = family.keep_own(dataset, test, root)
    elif test is not None:
        raise ConfigError("test goes with data in memory; a name or a folder has its own test part")
    if "resume" in options:
        raise ConfigError("resume is no option here: the same call goes on with its run")
    given = {"dataset": dataset, **options}
    return [f"--{name}={_word(value)}" for name, value in given.items() if value is not None]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
