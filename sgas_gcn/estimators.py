"""Networks for point clouds and for graphs with scikit-learn's manners.

Dimensions: N clouds, P points, C channels; M nodes of a graph, L labels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.validation import check_is_fitted

from sgas.errors import DataError
from sgas.estimators import NetworkClassifier, SampleClassifier
from sgas.own.keep import as_array
from sgas_gcn.family import FAMILY
from sgas_gcn.own_data import is_graph

G = TypeVar("G", bound="GraphNodeClassifier")


class PointCloudClassifier(SampleClassifier):
    """A network for clouds `[N, P, C]`, x, y and z first; `predict` takes clouds of any sizes.

    Parameters and fitted attributes are those of `sgas.estimators.NetworkClassifier`.
    """

    family = FAMILY

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class GraphNodeClassifier(NetworkClassifier):
    """A network for the nodes of graphs: PyG's Data with `x` and `edge_index`, or a list of them.

    A node has a class, a number from 0, or any number of labels. Parameters and fitted attributes
    are those of `sgas.estimators.NetworkClassifier`.
    """

    family = FAMILY

    def fit(self: G, X: Any, y: Any = None) -> G:
        """Searches and trains on the nodes of one graph with its masks, or of several graphs.

        `y` `[M]` or `[M, L]`, for several graphs a list, stands in the place of theirs.
        """
        return self._fit(_labelled(X, y), None)

    def predict(self, X: Any) -> Any:
        """The class of each node, int64 `[M]`, or bool `[M, L]`; of several graphs a list."""
        check_is_fitted(self)
        return self.run_.predict(X)

    def predict_proba(self, X: Any) -> Any:
        """The probabilities of `classes_`, float32 `[M, L]`; of several graphs a list."""
        check_is_fitted(self)
        return self.run_.predict_proba(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Accuracy over all nodes, or those of `test_mask`; of many labels micro-F1."""
        graphs = _labelled(X, y)
        graphs = [graphs] if is_graph(graphs) else graphs
        truth, guess = [], []
        for graph, predicted in zip(graphs, self.predict(graphs), strict=True):
            mask = getattr(graph, "test_mask", None)
            rows = slice(None) if mask is None else as_array(mask).astype(bool)
            targets = as_array(graph.y)
            if targets.ndim > predicted.ndim:  # one-hot classes
                targets = targets.argmax(1)
            truth.append(targets.reshape(len(targets), -1)[rows])
            guess.append(predicted.reshape(len(targets), -1)[rows])
        pair = np.concatenate(truth), np.concatenate(guess)
        if pair[0].shape[1] == 1:
            return float(accuracy_score(*pair))
        return float(f1_score(*pair, average="micro", zero_division=0))


def _labelled(graphs: Any, y: Any) -> Any:
    """Graphs with the labels of `y`, if given, in the place of their own."""
    if y is None:
        return graphs
    import torch

    alone = is_graph(graphs)
    several, labels = ([graphs], [y]) if alone else (graphs, y)
    if len(several) != len(labels) or not isinstance(labels, Sequence):
        raise DataError(f"there are {len(several)} graphs: give y as a list of as many arrays")
    changed = []
    for graph, own in zip(several, labels, strict=True):
        changed.append(copy.copy(graph))
        changed[-1].y = torch.as_tensor(np.asarray(own))
    return changed[0] if alone else changed
