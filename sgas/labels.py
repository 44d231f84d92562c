"""How logits are compared with targets: one class for each sample, many labels, or numbers.

Dimensions: R samples (clouds, points, images, graphs, nodes), L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sgas.config import MAE, MSE, UNKNOWN
from sgas.errors import ConfigError, InputError, option


class Labels(Protocol):
    """Loss, predictions and metrics of one kind of labels."""

    primary_metric: str

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss, a scalar."""
        ...

    def predictions(self, logits: Tensor) -> Tensor:
        """What the logits predict, in the form of the targets."""
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each class or label, `[R, L]`."""
        ...

    def surest(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The label that a row is judged by, int64 `[R]`, and the probability of what it is said.

        Of one class the predicted one. Of many labels the one that is wrong with most certainty;
        -1 where all are right.
        """
        ...

    def metrics(
        self, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> dict[str, float]:
        """Named figures; the primary one is better where higher.

        `rows` are those of each graph in turn, where that is known.
        """
        ...


class ManyLabels:
    """Any number of labels for a sample: logits, bool targets and predictions are `[R, L]`."""

    primary_metric = "micro_f1"

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean binary cross-entropy over all entries; smoothing draws targets towards 1/2."""
        wanted = targets.to(logits.dtype)
        if label_smoothing > 0:
            wanted = wanted.lerp(torch.full_like(wanted, 0.5), label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, wanted)

    def predictions(self, logits: Tensor) -> Tensor:
        """The labels that are more likely on than off."""
        return logits > 0

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each label by itself."""
        return logits.sigmoid()

    def surest(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The label that is wrong with most certainty, or -1, and how sure it is."""
        certainty = logits.abs().sigmoid()
        wrong = self.predictions(logits) != targets.bool()
        probs, labels = certainty.masked_fill(~wrong, 0.0).max(-1)
        return labels.where(wrong.any(-1), -1), probs

    def metrics(
        self, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> dict[str, float]:
        """F1 over all pairs of sample and label."""
        from sklearn.metrics import f1_score

        truth, guess = targets.cpu().numpy(), predictions.cpu().numpy()
        return {"micro_f1": float(f1_score(truth, guess, average="micro", zero_division=0))}


class ManyLabelsByGraph(ManyLabels):
    """`ManyLabels` whose micro-F1 is that of a graph, averaged with the rows of each as weights.

    As the authors of SGAS report it on PPI; F1 over all pairs stands beside it, and alone where
    rows were drawn from graphs by chance (the training part).
    """

    def metrics(
        self, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> dict[str, float]:
        """Both figures."""
        f1 = super().metrics
        over_all = {"micro_f1_over_nodes": f1(predictions, targets)["micro_f1"]}
        if not rows:
            return over_all
        graphs = zip(predictions.split(list(rows)), targets.split(list(rows)), strict=True)
        each = [f1(*graph)["micro_f1"] for graph in graphs]
        return {"micro_f1": float(np.average(each, weights=rows)), **over_all}


class OneClass:
    """One class for each sample: logits are `[R, L]`, targets and predictions int64 `[R]`."""

    primary_metric = "accuracy"

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy, smoothed as in Szegedy et al., CVPR 2016."""
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    def predictions(self, logits: Tensor) -> Tensor:
        """The most likely class."""
        return logits.argmax(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of the classes, which add up to 1."""
        return logits.softmax(-1)

    def surest(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The predicted class and its probability."""
        probs, classes = self.probabilities(logits).max(-1)
        return classes, probs

    def metrics(
        self, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> dict[str, float]:
        """Overall accuracy, and the mean of the accuracies of the classes that occur."""
        from sklearn.metrics import accuracy_score, recall_score

        truth, guess = targets.cpu().numpy(), predictions.cpu().numpy()
        present = np.unique(truth)
        per_class = recall_score(truth, guess, labels=present, average="macro", zero_division=0)
        return {
            "accuracy": float(accuracy_score(truth, guess)),
            "balanced_accuracy": float(per_class),
        }


class ClassOfPoints(OneClass):
    """One class for each point of clouds, as `OneClass`; that of some may be UNKNOWN.

    These are asked and not judged: they are in no loss and no figure.
    """

    primary_metric = "mean_iou"

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy of the points of known class; 0 without any."""
        options: dict[str, Any] = {"ignore_index": UNKNOWN, "label_smoothing": label_smoothing}
        total = F.cross_entropy(logits, targets, reduction="sum", **options)
        return total / (targets != UNKNOWN).sum().clamp_min(1)

    def metrics(
        self, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> dict[str, float]:
        """Mean over the classes that occur of the intersection over union, and accuracies.

        The intersection are the points of a class that are said to be of it; the union are those
        and all that are either alone, over all clouds (Everingham et al., IJCV 2015). 0 where no
        class is known.
        """
        from sklearn.metrics import jaccard_score

        known = targets != UNKNOWN
        truth, guess = targets[known], predictions[known]
        if not len(truth):
            return {"mean_iou": 0.0, "accuracy": 0.0, "balanced_accuracy": 0.0}
        figures = super().metrics(guess, truth)
        iou = jaccard_score(truth.cpu().numpy(), guess.cpu().numpy(), average=None)
        return {"mean_iou": float(iou.mean()), **figures}


@dataclass(frozen=True)
class Numbers:
    """Numbers of a sample: logits, targets and predictions are `[R, L]`.

    Logits are standardised by `mean` and `std` `[L]` of the training targets; predictions and
    figures are in the user's units. `measure` is the loss, of squares or absolute values.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    measure: str = MSE
    _on: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False)

    primary_metric = "r2"

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation where the targets are, brought there once."""
        if like.device not in self._on:
            self._on[like.device] = (
                torch.tensor(self.mean, device=like.device),
                torch.tensor(self.std, device=like.device),
            )
        return self._on[like.device]

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean over all entries, of standardised differences; ConfigError for smoothing."""
        if label_smoothing:
            raise ConfigError(
                f"label_smoothing is {label_smoothing}, and numbers have no labels to smooth: give "
                f"{option('label_smoothing', 0)}"
            )
        mean, std = self._scale(targets)
        loss = F.l1_loss if self.measure == MAE else F.mse_loss
        return loss(logits, (targets - mean) / std)

    def predictions(self, logits: Tensor) -> Tensor:
        """The numbers."""
        mean, std = self._scale(logits)
        return logits * std + mean

    def probabilities(self, logits: Tensor) -> Tensor:
        """InputError: there are none."""
        raise InputError("numbers have no probabilities: ask for predictions")

    def surest(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """No label and no probability of any row."""
        none = torch.full(targets.shape[:1], -1, device=targets.device)
        return none, torch.zeros_like(none, dtype=logits.dtype)

    def metrics(
        self, predictions: Tensor, targets: Tensor, rows: Sequence[int] = ()
    ) -> dict[str, float]:
        """R², the mean of those of the numbers, and mean absolute and root mean square errors."""
        truth, guess = targets.double(), predictions.double()
        squares = (truth - guess).square()
        spread = (truth - truth.mean(0)).square().sum(0)
        r2 = 1 - squares.sum(0) / spread.clamp_min(torch.finfo(torch.float64).tiny)
        r2 = torch.where(spread > 0, r2, (squares.sum(0) == 0).double())  # of constants
        return {
            "r2": float(r2.mean()),
            "mae": float((truth - guess).abs().mean()),
            "rmse": float(squares.mean().sqrt()),
        }


def labels_of(
    parts: Sequence[np.ndarray],
    by_graph: bool = False,
    measure: str = MSE,
    of_points: bool = False,
) -> Labels:
    """How the targets of training are compared: bool `[R, L]`, float32 `[R, L]` or int64 `[R]`.

    `of_points`: classes are those of points. ConfigError where a loss of numbers is asked for and
    there are none.
    """
    if parts[0].dtype.kind == "f":
        values = np.concatenate(parts).astype(np.float64)
        std = values.std(axis=0)
        std = np.where(std > 0, std, 1.0)
        return Numbers(tuple(values.mean(axis=0).tolist()), tuple(std.tolist()), measure)
    if measure != MSE:
        raise ConfigError(
            f"number_loss is {measure}, but there are no numbers: leave {option('number_loss')} out"
        )
    if parts[0].dtype.kind == "b":
        return ManyLabelsByGraph() if by_graph else ManyLabels()
    return ClassOfPoints() if of_points else OneClass()


def kept(labels: Labels) -> dict[str, Any]:
    """What a run keeps of how targets are compared: JSON values, which `restored` takes."""
    if isinstance(labels, Numbers):
        return {"kind": "numbers", "mean": list(labels.mean), "std": list(labels.std)}
    if isinstance(labels, ManyLabels):
        return {"kind": "labels"}
    return {"kind": "class of points" if isinstance(labels, ClassOfPoints) else "class"}


def restored(fields: Mapping[str, Any]) -> Labels:
    """The labels that `kept` was made of; of none, as runs of before had, one class."""
    if fields.get("kind") == "numbers":
        return Numbers(tuple(fields["mean"]), tuple(fields["std"]))
    kinds: dict[str, type[Labels]] = {"labels": ManyLabels, "class of points": ClassOfPoints}
    return kinds.get(fields.get("kind", ""), OneClass)()
