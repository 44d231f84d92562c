"""Options of the supernets and networks of points and graphs, and their search spaces."""

from __future__ import annotations

from dataclasses import dataclass

from sgas.cells.space import SearchSpace
from sgas.config import (
    AUTO,
    MSE,
    NUMBER_LOSS,
    NUMBER_LOSSES,
    TARGET,
    TARGETS,
    TEST_FRACTION,
    option,
    validate,
)
from sgas.errors import ConfigError

OPERATIONS = (
    "none",
    "skip_connect",
    "conv_1x1",
    "edge_conv",
    "mr_conv",
    "gat",
    "semi_gcn",
    "gin",
    "sage",
    "rel_sage",
)

POINT_SPACE = SearchSpace("point", dict.fromkeys(OPERATIONS))
GRAPH_SPACE = SearchSpace("graph", dict.fromkeys(OPERATIONS))

NASBENCHGRAPH_OPERATIONS = (
    "none",
    "gat",
    "gcn",
    "gin",
    "cheb",
    "sage",
    "arma",
    "graph",
    "fc",
    "skip",
)
NASBENCHGRAPH_SPACE = SearchSpace(
    "nasbenchgraph",
    dict.fromkeys(NASBENCHGRAPH_OPERATIONS),
    num_inputs=1,
    in_degree=1,
    num_outputs=None,
)
GAT_HEADS = 4

DROP_PATHS = ("graph", "node")
BATCH, AFFINE = NORMS = ("batch", "affine")
LINEAR, NO_STEM = STEMS = ("linear", "none")
F1_BY = ("node", "graph")


@dataclass(frozen=True)
class PointModelConfig:
    """Size of a point-cloud supernet or network."""

    num_points: int = option(1024, "points taken of each cloud", low=2, of_data=True)
    k: int = option(
        9,
        "neighbours of a point, itself included; cell i takes every (i+1)-th",
        low=2,
        of_data=True,
    )
    channels: int = option(32, "channels of a state (C)", low=1)
    num_cells: int = option(2, "cells", low=1)
    num_steps: int = option(3, "steps of a cell", low=1, high=16, verbs=("search",))
    emb_dims: int = option(1024, "channels after the fusion of all cells", low=1)
    dropout: float = option(0.5, "dropout in the classifier", low=0, high=0.95)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class PointDataConfig:
    """How clouds are changed while training, and what own data is; evaluation changes nothing."""

    resample: bool = option(
        False, "draw num_points anew from all points of a cloud for every batch"
    )
    scale: float = option(
        1.5, "each axis is scaled by a factor from 1/scale to scale", low=1, high=4
    )
    shift: float = option(
        0.2, "largest shift along each axis, in radii of the cloud", low=0, high=2
    )
    jitter: float = option(
        0.0, "standard deviation of noise on each point, in radii", low=0, high=1
    )
    target: str = option(AUTO, TARGET, choices=TARGETS)
    number_loss: str = option(MSE, NUMBER_LOSS, choices=NUMBER_LOSSES)
    test_fraction: float = option(0.0, TEST_FRACTION, low=0, high=0.5)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class GraphModelConfig:
    """Size of a graph supernet or network."""

    channels: int = option(32, "channels of a state (C)", low=1)
    num_cells: int = option(1, "cells", low=1)
    num_steps: int = option(3, "steps of a cell", low=1, high=16, verbs=("search",))
    stem: str = option(
        LINEAR,
        "before the cells: linear, a layer of 3 C channels; none, cells read the features",
        choices=STEMS,
    )
    dropout: float = option(0.0, "dropout before the classifier", low=0, high=0.95)
    norms: str = option(
        BATCH,
        "of stem and cells: batch, by the nodes' statistics; affine, scale and shift alone, with "
        "which weight decay bounds a network, as few labels need",
        choices=NORMS,
    )
    propagation: int = option(
        0, "steps in which logits go on to neighbours, as in APPNP (0: none)", low=0, high=100
    )
    teleport: float = option(
        0.1, "share of a node's own logits in each of these steps", above=0, high=1
    )
    standardize: bool = option(
        False,
        "take features less their mean, over their deviation, of the training nodes",
        of_data=True,
    )
    row_normalize: bool = option(
        False,
        "take the features of each node over the sum of their sizes, as counts of words",
        of_data=True,
    )
    drop_path_by: str = option(
        "graph",
        "what an edge of the cell is dropped for at once: a whole graph, or a node alone",
        choices=DROP_PATHS,
        verbs=("train",),
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.standardize and self.row_normalize:
            raise ConfigError(
                "standardize and row_normalize are both true, and each undoes the other: give one"
            )


@dataclass(frozen=True)
class NasBenchGraphConfig:
    """Size of a supernet or network of the NAS-Bench-Graph space."""

    channels: int = option(128, "channels of a node of the cell (C)", low=GAT_HEADS)
    num_steps: int = option(4, "computing nodes of the cell", low=1, high=16, verbs=("search",))
    pre_layers: int = option(
        1, "linear layers before the cell; a search has one", low=0, high=1, verbs=("train",)
    )
    post_layers: int = option(1, "linear layers after that on the joined leaves", low=0, high=1)
    dropout: float = option(
        0.5, "dropout of the features and before every operation", low=0, high=0.95
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.channels % GAT_HEADS:
            raise ConfigError(
                f"channels is {self.channels}; {GAT_HEADS} heads of gat share them: give a "
                f"multiple of {GAT_HEADS}"
            )


@dataclass(frozen=True)
class GraphDataConfig:
    """How graphs are changed while training and measured, and what own data is."""

    feature_dropout: float = option(
        0.0, "probability of zeroing a feature of a node in a batch", low=0, high=0.95
    )
    batch_nodes: int = option(
        0,
        "most nodes of one large graph that a step holds for each of its batch_size parts, and a "
        "search measures at a time; networks are measured on the whole; 0: the whole in a step",
        low=0,
    )
    micro_f1_by: str = option(
        "node",
        "micro-F1 over all nodes at once, or of each graph and averaged by numbers of nodes",
        choices=F1_BY,
        verbs=("train",),
    )
    target: str = option(AUTO, TARGET, choices=TARGETS)
    number_loss: str = option(MSE, NUMBER_LOSS, choices=NUMBER_LOSSES)
    test_fraction: float = option(0.0, TEST_FRACTION, low=0, high=0.5)
    split: int = option(0, "which of several splits that own masks have, a column each", low=0)
    directed: bool | None = option(
        None, "whether own edges lead one way; default: as the data says, npz files both ways"
    )
    edge_attributes: bool = option(
        True,
        "attributes of own edges count, in gat and gin of space graph; false: nowhere",
        before=False,
    )

    def __post_init__(self) -> None:
        validate(self)
