"""Supernets against arrays that the authors' published method gave, to 1e-9."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_arrays import Arrays, check_step, close, our_name, read_arrays
from small_models import SPACES
from torch import Tensor

from sgas.cells.decisions import PRUNED, UNDECIDED, CellDecisions, decided
from sgas_gcn.graph_batch import GraphBatch


@dataclass(frozen=True)
class Golden:
    """A file, the model that it was made with, its input and its loss."""

    space: str
    file: str
    options: Mapping[str, Any]
    dimensions: Mapping[str, int]
    input_of: Callable[[Arrays, str], tuple[Any, ...]]
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    evaluated: bool = True  # in evaluation mode too


def points(arrays: Arrays, state: str) -> tuple[Any, ...]:
    return (torch.from_numpy(arrays["input"]).double().transpose(1, 2),)


def with_neighbors(arrays: Arrays, state: str) -> tuple[Any, ...]:
    given = [torch.from_numpy(arrays[f"{state}.neighbors.cell{cell}"]) for cell in range(2)]
    return (*points(arrays, state), given)


def graph(arrays: Arrays, state: str) -> tuple[Any, ...]:
    x = torch.from_numpy(arrays["input"]).double()
    return (GraphBatch.of_graph(x, torch.from_numpy(arrays["edge_index"])),)


def binary_loss(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.double())


CLOUDS: dict[str, Any] = {
    "space": "point",
    "file": "supernet_point",
    "options": {"num_points": 32, "k": 5, "channels": 4, "emb_dims": 16},
    "dimensions": {"in_channels": 3, "num_classes": 10},
}
CASES = {
    "point": Golden(**CLOUDS, input_of=points),
    # In evaluation mode the features, and so the neighbours, are others.
    "point, neighbours given": Golden(**CLOUDS, input_of=with_neighbors, evaluated=False),
    "graph": Golden(
        "graph",
        "supernet_graph",
        {"channels": 4, "num_cells": 1},
        {"in_channels": 50, "num_outputs": 121},
        graph,
        binary_loss,
    ),
    "image": Golden(
        "image",
        "supernet_cnn",
        {"channels": 4, "num_cells": 4},
        {"in_channels": 3, "num_classes": 10, "image_size": 32},
        lambda arrays, state: (torch.from_numpy(arrays["input"]).double(),),
    ),
}


def of_ours(name: str) -> str:
    """The name of a weight of ours: `classifier.lin.weight` is `classifier.weight`."""
    return re.sub(r"^classifier\.lin\.", "classifier.", our_name(name))


def supernet_of(case: Golden, arrays: Arrays, state: str) -> Any:
    """The supernet with the weights and the decisions of the file."""
    small = SPACES[case.space]
    family, kinds = small.family, small.space.cell_kinds
    config = family.spaces[case.space].model_config(**{**small.sizes, **case.options})
    net: Any = family.spaces[case.space].models(config, case.dimensions).build_supernet()
    net.double()
    weights = {of_ours(key[2:]): value for key, value in arrays.items() if key.startswith("w.")}
    suffix = {kind: f"_{kind}" if len(kinds) > 1 else "" for kind in kinds}
    weights |= {f"alphas.{kind}": arrays[f"alpha{suffix[kind]}"] for kind in kinds}
    parameters = {of_ours(name): parameter for name, parameter in net.named_parameters()}
    assert set(weights) == set(parameters)
    for name, parameter in parameters.items():
        parameter.data.copy_(torch.from_numpy(weights[name]).view_as(parameter))
    words, decisions = {-1: UNDECIDED, 0: PRUNED}, {}
    for kind in kinds:
        selected = [int(number) for number in arrays[f"{state}.selected{suffix[kind]}"]]
        operations = small.space.operations
        states = tuple(words.get(number) or decided(operations[number]) for number in selected)
        decisions[kind] = CellDecisions(small.space.topology(config.num_steps), states)
    net.apply_decisions(decisions)
    return net


@pytest.mark.parametrize("state", ["undecided", "mixed"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("kernels")
def test_agrees_with_the_published_method(name: str, state: str, golden: Path) -> None:
    case = CASES[name]
    arrays = read_arrays(golden / f"{case.file}.npz")
    net, inputs = supernet_of(case, arrays, state), case.input_of(arrays, state)
    if "is_reduction" in arrays:
        assert [cell.kind == "reduce" for cell in net.cells] == arrays["is_reduction"].tolist()
    logits = net(*inputs)
    loss = case.loss(logits, torch.from_numpy(arrays["target"]))
    loss.backward()
    weights = {of_ours(name): weight.grad for name, weight in net.named_parameters()}
    of_alphas = {kind: alphas.grad for kind, alphas in net.alphas.items()}
    check_step(arrays, state, logits, loss, of_alphas, lambda name: weights.get(of_ours(name)))
    if case.evaluated:
        net.eval()
        close(net(*inputs), arrays[f"{state}.logits_eval"])
