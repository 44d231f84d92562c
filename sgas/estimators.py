"""Searched and trained networks with scikit-learn's manners: parameters, `fit`, `predict`, `score`.

A family says in thin classes what its samples are. Imported where an estimator is asked for, since
scikit-learn's base classes are needed then.

Dimensions: N samples, K classes.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from sgas import interface
from sgas.cells.genotype import Genotype
from sgas.config import MAX_SEED
from sgas.errors import DataError
from sgas.family import Family
from sgas.labels import OneClass

if TYPE_CHECKING:
    from sgas.exporting.export import Exported
    from sgas.running.run_results import TrainResult

NOT_NEEDED = ("checkpoint*", "*.svg", "report.html", "log.txt", ".lock", "tensorboard")
T = TypeVar("T", bound="NetworkClassifier")


class NetworkClassifier(BaseEstimator):
    """A network whose cell is searched and which is trained by `fit`.

    `preset`, `strategy` and `device` are options of the verbs; `search_options` and `train_options`
    are dicts of any others. With a `genotype` (one, a published name, a file) nothing is searched.
    `random_state` is the seed. `folder` keeps both runs, in `search` and `train`, where a fit that
    was interrupted goes on; without, they are in a temporary one for as long as the estimator is.
    `verbose` shows progress.

    Fitted: `classes_`, `genotype_`, and `run_`, the trained run with its network and figures.
    A fitted estimator is pickled with its weights.
    """

    family: ClassVar[Family]
    _remove: Callable[[], object]

    def __init__(
        self,
        *,
        preset: str | None = None,
        strategy: str = "cri2",
        genotype: Genotype | str | None = None,
        random_state: Any = 0,
        device: str = "auto",
        folder: str | Path | None = None,
        search_options: Mapping[str, Any] | None = None,
        train_options: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.preset, self.strategy, self.genotype = preset, strategy, genotype
        self.random_state, self.device, self.folder = random_state, device, folder
        self.search_options, self.train_options = search_options, train_options
        self.verbose = verbose

    @classmethod
    def from_run(cls: type[T], run: TrainResult | str | Path) -> T:
        """A fitted estimator of a trained run; another `fit` trains its cell from scratch.

        RunError where it is a search, or was not trained to its end.
        """
        trained = interface.load(cls.family, run)
        cls._check(trained)
        asked = trained.config["run"]
        made = cls(preset=asked["preset"], genotype=trained.genotype, random_state=asked["seed"])
        made._take(trained, np.array(trained.classes))
        return made

    def export(self, path: str | Path, format: str = "python") -> Exported:
        """Writes the network as files that need torch alone, as `export` of its run does."""
        check_is_fitted(self)
        return self.run_.export(path, format)

    def _fit(self: T, dataset: Any, classes: np.ndarray | None) -> T:
        """Searches, trains, and takes what was trained; `classes` where it has other names."""
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(MAX_SEED)
        folder = Path(self.folder) if self.folder is not None else self._temporary()
        common: dict[str, Any] = {"preset": self.preset, "seed": int(seed), "device": self.device}
        common |= {"data_root": folder / "data", "quiet": not self.verbose}
        cell: Any = self.genotype
        if cell is None:
            asked = {**common, "strategy": self.strategy, **(self.search_options or {})}
            cell = interface.search(self.family, dataset, out=folder / "search", **asked)
        options = {**common, **(self.train_options or {})}
        trained = interface.train(self.family, cell, dataset, out=folder / "train", **options)
        self._take(trained, np.array(trained.classes) if classes is None else classes)
        return self

    @classmethod
    def _check(cls, trained: TrainResult) -> None:
        """DataError where a run predicts what an estimator of this kind does not."""

    def _take(self, trained: TrainResult, classes: np.ndarray) -> None:
        self.run_, self.classes_, self.genotype_ = trained, classes, trained.genotype

    def _temporary(self) -> Path:
        """A new folder, which goes with the estimator; that of a fit before goes now."""
        if hasattr(self, "_remove"):
            self._remove()
        folder = Path(tempfile.mkdtemp(prefix="sgas-"))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def __getstate__(self) -> dict[str, Any]:
        """The parameters, and of a fitted one the files of its run that predictions need."""
        state = dict(super().__getstate__())
        state.pop("_remove", None)
        trained: TrainResult | None = state.pop("run_", None)
        if trained is not None:
            with tempfile.TemporaryDirectory() as spare:
                names = shutil.ignore_patterns(*NOT_NEEDED)
                shutil.copytree(trained.folder, Path(spare, "run"), ignore=names)
                packed = shutil.make_archive(str(Path(spare, "run")), "zip", Path(spare, "run"))
                state["_packed"] = Path(packed).read_bytes()
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        packed = state.pop("_packed", None)
        super().__setstate__(state)
        if packed is not None:
            folder = self._temporary()
            Path(folder, "run.zip").write_bytes(packed)
            shutil.unpack_archive(folder / "run.zip", folder / "train")
            self.run_ = interface.load(self.family, folder / "train")


class SampleClassifier(ClassifierMixin, NetworkClassifier):
    """A classifier of samples that have one class each."""

    def fit(self: T, X: Any, y: Any) -> T:
        """Searches and trains on samples `[N, ...]` and their classes `[N]`, of any type.

        DataError, a ValueError, for samples or classes that cannot be used.
        """
        if y is None:
            raise DataError("requires y to be passed, but the target y is None")
        if getattr(y, "ndim", 1) > 1 and y.shape[1] > 1:
            raise DataError(
                f"y should be a 1d array, got an array of shape {tuple(y.shape)} instead: a class "
                "a sample; labels of points, many labels and numbers are for search and train"
            )
        samples, labels = self._samples(X, fitting=True), column_or_1d(y, warn=True)
        check_consistent_length(samples, labels)
        if labels.dtype.kind == "f":
            assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"y has one class alone, {classes[0]}; give samples of two at least")
        return self._fit(Named(samples, numbers, [str(name) for name in classes]), classes)

    @classmethod
    def _check(cls, trained: TrainResult) -> None:
        if type(trained.labels) is not OneClass:
            raise DataError(
                f"{trained.folder} does not predict one class a sample, as {cls.__name__} does: "
                "predict by the run itself"
            )

    def predict(self, X: Any) -> np.ndarray:
        """The class of each sample `[N]`; `X` may be all that a trained run predicts on."""
        check_is_fitted(self)
        return self.classes_[self.run_.predict(self._samples(X))]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities of `classes_`, float32 `[N, K]`."""
        check_is_fitted(self)
        probs: np.ndarray = self.run_.predict_proba(self._samples(X))
        return probs

    def _samples(self, X: Any, fitting: bool = False) -> Any:
        """What is given, if it can be samples."""
        if hasattr(X, "tocsr"):
            raise DataError("the samples are a sparse matrix, which they cannot be: give arrays")
        return X

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


class Named(Sequence[tuple[Any, int]]):
    """Samples with the numbers of their classes, and the names of these."""

    def __init__(self, samples: Any, numbers: np.ndarray, classes: Sequence[str]) -> None:
        self.samples, self.numbers, self.classes = samples, numbers, classes

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: Any) -> Any:
        return self.samples[number], int(self.numbers[number])
