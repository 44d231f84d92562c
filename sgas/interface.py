"""The verbs as functions, for programs: `search`, `train`, `evaluate`, `load` of a family.

`sgas_gcn` and `sgas_cnn` offer them without the first argument and with typed options. They take
the options of the command line by the same names, with the same presets and the same errors, and
write the same run folders, so that the command line can go on with what a program began.

    import sgas_gcn

    searched = sgas_gcn.search("shapes", strategy="cri2", seed=0)
    trained = sgas_gcn.train(searched)
    print(searched.genotype.to_text(), trained.evaluate()["accuracy"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.cells.genotype import Genotype
from sgas.config import AUTO, refuse_unknown
from sgas.errors import ConfigError, InputError
from sgas.family import Family
from sgas.registry import plugged
from sgas.running.genotype_files import (
    as_argument,
    genotype_label,
    load_genotype,
    load_genotypes,
)
from sgas.running.process import undisturbed
from sgas.running.run_results import SearchResult, TrainResult
from sgas.running.session import Output, begin
from sgas.running.settings import option_names, resolve, where_of

if TYPE_CHECKING:
    from sgas.running.listeners import Listener

Trainable = SearchResult | TrainResult | Genotype | str | Path


@undisturbed()
def search(
    family: Family,
    dataset: Any = None,
    *,
    test: Any = None,
    plugins: Sequence[str | Path] = (),
    listener: Listener | None = None,
    quiet: bool = False,
    **options: Any,
) -> SearchResult:
    """Searches a cell and returns what was found.

    `dataset` is a name, the path of a folder, or data in memory: for images and clouds a map-style
    `torch.utils.data.Dataset` of (sample, label) or a pair of arrays, for graphs PyG's Data or a
    list of them, with `test` for its test part (opened by `evaluate` alone). Data in memory is kept
    under `data_root`. `options` are those of the verb by name, `preset` and `out` included; the
    same call goes on with a search that was interrupted. `plugins` are files with additions, or the
    names of installed ones (`sgas.registry`). `candidates` may be a list of what searches returned,
    genotypes, runs and files. `listener` hears of steps and epochs
    (`sgas.running.listeners.Listener`); `quiet` prints nothing. InputError for what cannot be used,
    Interrupted after a stop signal.
    """
    _check_family(family)
    with plugged(family, plugins):
        chosen = _options_of(family, "search", dataset, test, options)
        if "candidates" in chosen:
            chosen["candidates"] = load_genotypes(family, chosen["candidates"])
        settings = resolve(family, "search", chosen)
        command = _command(family, "search", chosen, plugins)
        folder = begin(family, settings, "", command, Output(quiet, listener))
        return SearchResult.from_run(family, folder)


@undisturbed()
def train(
    family: Family,
    genotype: Trainable,
    dataset: Any = None,
    *,
    test: Any = None,
    plugins: Sequence[str | Path] = (),
    listener: Listener | None = None,
    quiet: bool = False,
    **options: Any,
) -> TrainResult:
    """Trains the network of a genotype from scratch and returns it.

    `genotype` is what a search returned, a Genotype, a published name, a file or a run folder; the
    data set that it was searched on, if it says so and is not published, is the default. All else
    is as for `search`.
    """
    _check_family(family)
    source = None
    if isinstance(genotype, Genotype):
        word = as_argument(genotype)
    elif isinstance(genotype, SearchResult | TrainResult | str | Path):
        word = str(getattr(genotype, "folder", genotype))
        source = Path(word)
    else:
        raise InputError(
            f"the genotype is {_kind(genotype)}; give what a search returned, a Genotype, a "
            "published name, a file or a run folder"
        )
    with plugged(family, plugins, [] if source is None else [source]):
        if not isinstance(genotype, Genotype):
            genotype = load_genotype(family, word)
        label = genotype_label(word, genotype)
        chosen = _options_of(family, "train", dataset, test, options, source, genotype)
        settings = resolve(family, "train", chosen, source=source, genotype=genotype)
        command = _command(family, "train", chosen, plugins, word)
        folder = begin(family, settings, label, command, Output(quiet, listener))
        return TrainResult.from_run(family, folder)


@undisturbed()
def evaluate(
    family: Family,
    run: TrainResult | str | Path,
    *,
    plugins: Sequence[str | Path] = (),
    device: str = "auto",
    dataset: str | Path | None = None,
) -> dict[str, Any]:
    """The figures of a trained run on the test split, which is opened once and then read.

    `dataset` is where data of one's own lie now, if they were moved.
    """
    _check_family(family)
    with plugged(family, plugins):
        return load(family, run).evaluate(device, dataset)


@undisturbed()
def load(
    family: Family, run: TrainResult | str | Path, *, plugins: Sequence[str | Path] = ()
) -> TrainResult:
    """A trained run, which predicts: its classes, network, genotype, config and figures.

    RunError where it is a search, or was not trained to its end; PluginError where `plugins` are
    not those that it had.
    """
    _check_family(family)
    folder = run.folder if isinstance(run, TrainResult) else Path(run)
    with plugged(family, plugins, [folder]):
        return TrainResult.from_run(family, folder)


def _check_family(family: Any) -> None:
    if not isinstance(family, Family):
        raise InputError(
            f"the family is {_kind(family)}; give FAMILY of sgas_gcn.family or sgas_cnn.family, or "
            "call the functions of sgas_gcn and sgas_cnn, which know theirs"
        )


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"


def _options_of(
    family: Family,
    verb: str,
    dataset: Any,
    test: Any,
    options: Mapping[str, Any],
    source: Path | None = None,
    genotype: Genotype | None = None,
) -> dict[str, Any]:
    """The options that a call gives; ConfigError for one that there is none of."""
    _check_family(family)
    if "resume" in options:
        raise ConfigError("resume is no option here: the same call goes on with its run")
    chosen = {name: value for name, value in options.items() if value is not None}
    in_memory = dataset is not None and not isinstance(dataset, str | Path)
    if test is not None and not in_memory:
        raise ConfigError("test goes with data in memory; a name or a folder has its own test part")
    if dataset is not None and not in_memory:
        chosen["dataset"] = str(dataset)
    # Of data in memory, whose space is not known yet, the names of all spaces count.
    where = None if in_memory else where_of(family, verb, chosen, source, genotype)
    spaces = family.spaces if where is None else [where[1]]
    names = [name for space in spaces for name in option_names(family, verb, space)]
    refuse_unknown(chosen, dict.fromkeys(names), otherwise=_no_such_option(family, verb))
    if in_memory:
        chosen["dataset"] = str(
            family.keep_own(
                dataset, test, chosen.get("data_root", "data"), chosen.get("target", AUTO)
            )
        )
        return _options_of(family, verb, chosen.pop("dataset"), None, chosen, source)
    return chosen


def _no_such_option(family: Family, verb: str) -> str:
    return f"; {family.command} {verb} --help lists them"


def _command(
    family: Family,
    verb: str,
    chosen: Mapping[str, Any],
    plugins: Sequence[str | Path],
    *words: str,
) -> str:
    """The command that makes the same run, for its config.json; nothing reads it back."""
    import shlex

    options = [*chosen.items(), *(("plugin", plugin) for plugin in plugins)]
    flags = [f"--{name}={_word(value)}" for name, value in options]
    return shlex.join([family.command, verb, *words, *flags])


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
