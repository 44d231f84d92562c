"""How logits are compared with labels: one class for each sample, or any number of labels.

Dimensions: R samples (clouds, images, nodes), L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


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
        """Named figures in [0, 1]. `rows` are those of each graph in turn, where that is known."""
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
