"""Supernets against arrays that the authors' published method gave, to 1e-9."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import SPACES
from torch import Tensor

from sgas.cells.decisions import PRUNED, UNDECIDED, CellDecisions, decided
from sgas_gcn.graph_batch import GraphBatch

Arrays = Mapping[str, np.ndarray]


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


def our_name(name: str) -> str:
    """`cell0.edge3.gat.att` as `cells.0.edges.3.gat.att`, `classifier.lin.w` as `classifier.w`."""
    name = re.sub(r"edge(\d+)\.", r"edges.\1.", re.sub(r"cell(\d+)\.", r"cells.\1.", name))
    return re.sub(r"^classifier\.lin\.", "classifier.", name)


def close(ours: Tensor | None, wanted: np.ndarray) -> None:
    known = torch.as_tensor(wanted, dtype=torch.float64)
    assert ours is not None
    torch.testing.assert_close(
        ours.detach(), known.view_as(ours), rtol=1e-9, atol=1e-10 * known.abs().max().item()
    )


def supernet_of(case: Golden, arrays: Arrays, state: str) -> Any:
    """The supernet with the weights and the decisions of the file."""
    small = SPACES[case.space]
    family, kinds = small.family, small.space.cell_kinds
    config = family.spaces[case.space].model_config(**{**small.sizes, **case.options})
    net: Any = family.spaces[case.space].models(config, case.dimensions).build_supernet()
    net.double()
    weights = {our_name(key[2:]): value for key, value in arrays.items() if key.startswith("w.")}
    suffix = {kind: f"_{kind}" if len(kinds) > 1 else "" for kind in kinds}
    weights |= {f"alphas.{kind}": arrays[f"alpha{suffix[kind]}"] for kind in kinds}
    parameters = {our_name(name): parameter for name, parameter in net.named_parameters()}
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
    with np.load(golden / f"{case.file}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    net, inputs = supernet_of(case, arrays, state), case.input_of(arrays, state)
    if "is_reduction" in arrays:
        assert [cell.kind == "reduce" for cell in net.cells] == arrays["is_reduction"].tolist()

    logits = net(*inputs)
    loss = case.loss(logits, torch.from_numpy(arrays["target"]))
    loss.backward()

    close(logits, arrays[f"{state}.logits"])
    close(loss, arrays[f"{state}.loss"])
    for kind, alphas in net.alphas.items():
        key = f"{state}.grad_alpha"
        close(alphas.grad, arrays[key if key in arrays else f"{key}_{kind}"])
    parameters = {our_name(name): parameter for name, parameter in net.named_parameters()}
    norms, used = arrays[f"{state}.grad_norm"], arrays[f"{state}.grad_used"]
    compared = 0
    for parameter_name, norm, takes_part in zip(arrays["grad_names"], norms, used, strict=True):
        parameter = parameters.get(our_name(str(parameter_name)))
        assert (parameter is not None) == takes_part
        if parameter is not None:
            assert parameter.grad is not None
            close(parameter.grad.norm(), norm)
            if (key := f"{state}.grad_w.{parameter_name}") in arrays:
                close(parameter.grad, arrays[key])
                compared += 1
    assert compared > 10
    if case.evaluated:
        net.eval()
        close(net(*inputs), arrays[f"{state}.logits_eval"])
