"""The options of `search` and `train` for point clouds and graphs, as typed keywords."""

from __future__ import annotations

from typing import Literal, TypedDict

from sgas.keywords import RunOptions, SearchLoopOptions, TrainLoopOptions


class NetworkOptions(TypedDict, total=False):
    """Fields of the model and data configs of all spaces."""

    num_points: int
    k: int
    channels: int
    num_cells: int
    emb_dims: int
    dropout: float
    resample: bool
    scale: float
    shift: float
    jitter: float
    feature_dropout: float
    batch_nodes: int
    post_layers: int
    stem: Literal["linear", "none"]
    norms: Literal["batch", "affine"]
    propagation: int
    teleport: float
    standardize: bool
    row_normalize: bool
    target: Literal["auto", "class", "labels", "numbers"]
    number_loss: Literal["mse", "mae"]
    test_fraction: float
    split: int
    directed: bool | None
    edge_attributes: bool


class SearchOptions(RunOptions, SearchLoopOptions, NetworkOptions, total=False):
    """Options of `sgas_gcn.search`."""

    num_steps: int


class TrainOptions(RunOptions, TrainLoopOptions, NetworkOptions, total=False):
    """Options of `sgas_gcn.train`."""

    drop_path_by: Literal["graph", "node"]
    micro_f1_by: Literal["node", "graph"]
    pre_layers: int
