"""The options of `search` and `train` as typed keywords, so that editors complete and check them.

Names and types are those of the dataclasses in `sgas.config`, which also say what each means; a
test holds them together. A family adds its own (`sgas_gcn.keywords`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict


class RunOptions(TypedDict, total=False):
    """Fields of `RunConfig` but for the data set, which a call names first."""

    space: str | None
    preset: str | None
    seed: int
    device: str
    threads: int | None
    kernels: Literal["auto", "torch", "cpu", "cuda"]
    precision: Literal["float32", "bf16"]
    cuda_graphs: bool
    out: str | None
    no_lock: bool
    data_root: str
    protocol: Literal["clean", "paper"]


class SearchLoopOptions(TypedDict, total=False):
    """Fields of `SearchConfig`."""

    strategy: str
    warmup_epochs: int
    decision_interval: int
    final_epochs: int
    history_size: int
    batch_size: int
    batch_increase: int
    learning_rate: float
    learning_rate_min: float
    optimizer: Literal["sgd", "adam"]
    momentum: float
    weight_decay: float
    operation_decay: float | None
    head_decay: float | None
    norm_decay: float | None
    grad_clip: float
    alpha_start_epoch: int
    alpha_learning_rate: float
    alpha_weight_decay: float
    norm_batches: int
    scored_paths: int
    num_candidates: int
    candidate_epochs: int
    candidates: str | Sequence[Any] | None
    patience: int
    beta_decay: float
    skip_penalty: float
    averaged_epochs: int
    alphas_from: Literal["training", "validation", "auto"]
    sees: Literal["all", "permuted_labels", "first_half", "second_half"]
    control: Literal["none", "permuted_labels"]
    halves: bool
    validation_fraction: float


class TrainLoopOptions(TypedDict, total=False):
    """Fields of `TrainConfig`."""

    epochs: int
    batch_size: int
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    learning_rate_min: float
    learning_rate_schedule: Literal["cosine", "linear", "two_slopes"]
    learning_rate_warmup: int
    momentum: float
    weight_decay: float
    operation_decay: float | None
    head_decay: float | None
    norm_decay: float | None
    grad_clip: float
    label_smoothing: float
    drop_path: float
    auxiliary: bool
    auxiliary_weight: float
    norm_batches: int
    validation_fraction: float
    weights: str | None
    kept_epoch: Literal["last", "best"]
