"""The plain supernets agree with the published method, and with ours along a whole search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contest import Batch, Contest, decisions_at
from plain.common import CellNetwork, search_plan
from plain.graph import PlainGraph
from plain.image import PlainImage
from plain.point import PlainPoint
from settings import FAMILIES
from torch import Tensor
from weights import plain_names, plain_values

from sgas.native.backend import use_kernels

Arrays = Mapping[str, np.ndarray]

TINY: dict[str, dict[str, Any]] = {
    "point": {"batch": 4, "points": 24, "k": 4, "channels": 4, "emb_dims": 8, "dropout": 0.0},
    "graph": {"batch": 2, "nodes": 20, "degree": 6, "channels": 4, "features": 6, "outputs": 5},
    "image": {"batch": 4, "side": 8, "channels": 2, "cells": 3},
}


def close(ours: Tensor | None, wanted: Tensor) -> None:
    assert ours is not None
    torch.testing.assert_close(
        ours.detach().view_as(wanted), wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item()
    )


def our_name(name: str, space: str) -> str:
    """`cell0.edge3.gat.att` as `cells.0.edges.3.gat.att`, the names that ours have."""
    name = re.sub(r"edge(\d+)\.", r"edges.\1.", re.sub(r"cell(\d+)\.", r"cells.\1.", name))
    return re.sub(r"^classifier\.", "classifier.lin.", name) if space == "graph" else name


def golden_point(arrays: Arrays) -> tuple[CellNetwork, tuple[Any, ...], Tensor]:
    net = PlainPoint(
        search_plan(3, FAMILIES["point"].space.operations),
        search=True,
        channels=4,
        k=5,
        emb_dims=16,
        dropout=0.0,
    )
    points = torch.from_numpy(arrays["input"]).double()
    return net, (points,), torch.from_numpy(arrays["target"])


def golden_graph(arrays: Arrays) -> tuple[CellNetwork, tuple[Any, ...], Tensor]:
    net = PlainGraph(search_plan(3, FAMILIES["graph"].space.operations), search=True, channels=4)
    x = torch.from_numpy(arrays["input"]).double()
    inputs = x, torch.from_numpy(arrays["edge_index"]).long()
    return net, inputs, torch.from_numpy(arrays["target"])


def golden_image(arrays: Arrays) -> tuple[CellNetwork, tuple[Any, ...], Tensor]:
    plan = search_plan(4, FAMILIES["image"].space.operations)
    net = PlainImage({"normal": plan, "reduce": plan}, search=True, channels=4, num_cells=4)
    images = torch.from_numpy(arrays["input"]).double()
    return net, (images,), torch.from_numpy(arrays["target"])


GOLDEN = {"point": golden_point, "graph": golden_graph, "image": golden_image}


def golden_weights(arrays: Arrays, space: str, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """The golden weights and alphas by our names, statistics not among them."""
    weights = {
        our_name(key[2:], space): torch.from_numpy(value).double()
        for key, value in arrays.items()
        if key.startswith("w.")
    }
    for kind in kinds:
        stored = arrays["alpha" if len(kinds) == 1 else f"alpha_{kind}"]
        weights[f"alphas.{kind}"] = torch.from_numpy(stored).double()
    return weights


@pytest.fixture(params=FAMILIES)
def golden_case(request: pytest.FixtureRequest, golden: Path) -> tuple[str, Arrays]:
    """The name of a family and its golden arrays."""
    file_name = {"image": "cnn"}.get(request.param, request.param)
    with np.load(golden / f"supernet_{file_name}.npz", allow_pickle=False) as file:
        return request.param, {key: file[key] for key in file.files}


@pytest.mark.parametrize("state", ["undecided", "mixed"])
def test_agrees_with_the_published_method(state: str, golden_case: tuple[str, Arrays]) -> None:
    space, arrays = golden_case
    family = FAMILIES[space]
    kinds = family.space.cell_kinds
    suffix = {kind: "" if len(kinds) == 1 else f"_{kind}" for kind in kinds}
    net, inputs, targets = GOLDEN[space](arrays)
    net.double()
    parameters = dict(net.named_parameters())
    weights = plain_values(golden_weights(arrays, space, kinds), space)
    assert set(weights) == set(parameters)
    for name, value in weights.items():
        parameters[name].data.copy_(value.view_as(parameters[name]))
    net.select({kind: arrays[f"{state}.selected{suffix[kind]}"].tolist() for kind in kinds})

    logits = net(*inputs)
    loss = family.loss(logits, targets)
    loss.backward()

    close(logits, torch.from_numpy(arrays[f"{state}.logits"]))
    close(loss, torch.from_numpy(arrays[f"{state}.loss"]))
    for kind in kinds:
        wanted = torch.from_numpy(arrays[f"{state}.grad_alpha{suffix[kind]}"])
        rows = [torch.zeros_like(a) if a.grad is None else a.grad for a in net.edge_alphas(kind)]
        close(torch.stack(rows), wanted)
    check_weight_gradients(net, arrays, state, space)
    net.eval()
    close(net(*inputs), torch.from_numpy(arrays[f"{state}.logits_eval"]))


def check_weight_gradients(net: CellNetwork, arrays: Arrays, state: str, space: str) -> None:
    parameters, compared = dict(net.named_parameters()), 0
    norms, used = arrays[f"{state}.grad_norm"], arrays[f"{state}.grad_used"]
    for name, norm, takes_part in zip(arrays["grad_names"], norms, used, strict=True):
        names = plain_names(our_name(str(name), space), space, 0)
        assert all((each in parameters) == takes_part for each in names)
        if takes_part:
            gradients = [parameters[each].grad for each in names]
            assert all(gradient is not None for gradient in gradients)
            whole = torch.cat([g.flatten() for g in gradients if g is not None])
            close(whole.norm(), torch.tensor(norm))
            key = f"{state}.grad_w.{name}"
            if key in arrays:
                close(whole, torch.from_numpy(arrays[key]).flatten())
                compared += 1
    assert compared > 10


def tiny_contest(space: str) -> Contest:
    """Supernets in float64 with equal weights and alphas far apart, and ten batches."""
    torch.manual_seed(0)
    family = FAMILIES[space]
    contest = family.search_contest({**family.paper, **TINY[space]})
    for alphas in contest.ours.network.alphas.values():
        alphas.data.normal_()
    return in_double(contest, space, 10)


def in_double(contest: Contest, space: str, num_batches: int) -> Contest:
    """The contest in float64, with so many batches."""
    contest.plain.network.double()
    contest.ours.network.double()
    contest.equalise()
    family = FAMILIES[space]
    size = {**family.paper, **TINY[space]}
    contest.batches = [as_double(family.batch(size)) for _ in range(num_batches)]
    return contest


def as_double(batch: Batch) -> Batch:
    plain = tuple(x.double() if x.is_floating_point() else x for x in batch.plain)
    if isinstance(batch.ours, Tensor):
        return Batch(plain, batch.ours.double(), batch.targets)
    return Batch(plain, batch.ours.with_features(batch.ours.x.double()), batch.targets)


@pytest.fixture(params=["torch", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each implementation of the kernels in turn."""
    use_kernels("auto" if request.param == "cpu" else "torch")  # not every family has its own
    yield
    use_kernels("auto")


@pytest.mark.parametrize("space", FAMILIES)
def test_ten_steps_of_a_search_equal_ours(space: str, kernels: None) -> None:
    contest, family = tiny_contest(space), FAMILIES[space]
    decisions = family.space.topology(family.num_steps).num_decisions
    for step, batch in enumerate(contest.batches):
        for player in (contest.plain, contest.ours):
            player.alpha_step(batch)
            player.weight_step(contest.batches[step - 1])
        if step < decisions:
            contest.decide(decisions_at(family.space, family.num_steps, step + 1))
            check_equal(contest)
    check_equal(contest)
    plain, ours = contest.losses()
    assert plain == pytest.approx(ours, rel=1e-8)


def check_equal(contest: Contest) -> None:
    """Every weight, alpha and statistic of ours has its equal in plain."""
    values = contest.plain.network.state_dict()
    ours = plain_values(contest.ours.network.state_dict(), contest.space.name)
    for name, wanted in ours.items():
        torch.testing.assert_close(
            values[name].view_as(wanted), wanted, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("space", FAMILIES)
def test_derived_networks_train_alike(space: str) -> None:
    torch.manual_seed(0)
    family = FAMILIES[space]
    contest = in_double(family.derived_contest({**family.paper, **TINY[space]}), space, 3)
    for batch in contest.batches:
        contest.plain.weight_step(batch)
        contest.ours.weight_step(batch)
    check_equal(contest)
