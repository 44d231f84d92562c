"""Greedy architecture search for images, from Python.

Nothing heavy is imported before a call.

    import sgas_cnn

    searched = sgas_cnn.search("digits", strategy="cri2", seed=0)
    trained = sgas_cnn.train(searched)
    print(searched.genotype.to_text(), trained.evaluate()["accuracy"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Unpack

    from sgas.interface import Trainable
    from sgas.running.listeners import Listener
    from sgas.running.run_results import SearchResult, TrainResult
    from sgas_cnn.estimators import ImageClassifier
    from sgas_cnn.keywords import SearchOptions, TrainOptions

__all__ = ["ImageClassifier", "evaluate", "load", "search", "train"]


def search(
    dataset: Any = None,
    *,
    test: Any = None,
    plugins: Sequence[str | Path] = (),
    listener: Listener | None = None,
    quiet: bool = False,
    **options: Unpack[SearchOptions],
) -> SearchResult:
    """Searches a cell and returns what was found; the same call goes on where it was interrupted.

    `dataset` is a name, the path of a folder, or data in memory: a map-style
    `torch.utils.data.Dataset` of (image, label) or a pair of arrays, with
    `test` for its test part, which `evaluate` alone opens. Options are those of
    `sgas-cnn search --help`. `plugins` are files with operations, strategies, data sets or
    spaces of your own (`sgas.registry`). `listener` hears of steps and epochs, `quiet` prints
    nothing. InputError for what cannot be used, Interrupted after a stop signal.
    """
    from sgas import interface
    from sgas_cnn.family import FAMILY

    return interface.search(
        FAMILY,
        dataset,
        test=test,
        plugins=plugins,
        listener=listener,
        quiet=quiet,
        **options,
    )


def train(
    genotype: Trainable,
    dataset: Any = None,
    *,
    test: Any = None,
    plugins: Sequence[str | Path] = (),
    listener: Listener | None = None,
    quiet: bool = False,
    **options: Unpack[TrainOptions],
) -> TrainResult:
    """Trains the network of a genotype from scratch and returns it.

    `genotype` is what `search` returned (whose data set is then the default), a Genotype, a
    published name, a file or a run folder. All else is as for `search`.
    """
    from sgas import interface
    from sgas_cnn.family import FAMILY

    return interface.train(
        FAMILY,
        genotype,
        dataset,
        test=test,
        plugins=plugins,
        listener=listener,
        quiet=quiet,
        **options,
    )


def evaluate(
    run: TrainResult | str | Path,
    *,
    plugins: Sequence[str | Path] = (),
    device: str = "auto",
    dataset: str | Path | None = None,
) -> dict[str, Any]:
    """The figures of a trained run on the test split, which is opened once and then read.

    `dataset` is where data of one's own lie now, if they were moved.
    """
    from sgas import interface
    from sgas_cnn.family import FAMILY

    return interface.evaluate(FAMILY, run, plugins=plugins, device=device, dataset=dataset)


def load(run: TrainResult | str | Path, *, plugins: Sequence[str | Path] = ()) -> TrainResult:
    """A trained run: `predict`, `predict_proba` and `classes`, without its data.

    Beside them `network`, `genotype`, `config`, and figures (`result`, `evaluation`). RunError
    where it is a search, or was not trained to its end.
    """
    from sgas import interface
    from sgas_cnn.family import FAMILY

    return interface.load(FAMILY, run, plugins=plugins)


def __getattr__(name: str) -> Any:
    """The estimators, whose base classes are scikit-learn's, when they are first asked for."""
    if name in ("ImageClassifier",):
        from sgas_cnn import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
