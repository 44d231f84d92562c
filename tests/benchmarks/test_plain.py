"""The plain supernets agree with the published method, and with ours along a whole search."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from contest import Batch, Contest, decisions_at
from golden_arrays import Arrays, check_step, close, our_name, read_arrays
from plain.common import CellNetwork, search_plan
from plain.graph import PlainGraph
from plain.image import PlainImage
from plain.point import PlainPoint
from settings import FAMILIES
from torch import Tensor
from weights import plain_names, plain_values

TINY: dict[str, dict[str, Any]] = {
    "point": {"batch": 4, "points": 24, "k": 4, "channels": 4, "emb_dims": 8, "dropout": 0.0},
    "graph": {"batch": 2, "nodes": 20, "degree": 6, "channels": 4, "features": 6, "outputs": 5},
    "image": {"batch": 4, "side": 8, "channels": 2, "cells": 3},
}


def name_in(space: str, name: str) -> str:
    """The name that our supernet has for a weight."""
    ours = our_name(name)
    return re.sub(r"^classifier\.", "classifier.lin.", ours) if space == "graph" else ours


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
        name_in(space, key[2:]): torch.from_numpy(value).double()
        for key, value in arrays.items()
        if key.startswith("w.")
    }
    for kind in kinds:
        stored = arrays["alpha" if len(kinds) == 1 else f"alpha_{kind}"]
        weights[f"alphas.{kind}"] = torch.from_numpy(stored).double()
    return weights


@pytest.mark.parametrize("state", ["undecided", "mixed"])
@pytest.mark.parametrize("space", FAMILIES)
def test_agrees_with_the_published_method(space: str, state: str, golden: Path) -> None:
    arrays = read_arrays(golden / f"supernet_{ {'image': 'cnn'}.get(space, space) }.npz")
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
    parameters = dict(net.named_parameters())
    logits = net(*inputs)
    loss = family.loss(logits, targets)
    loss.backward()

    def of_weight(name: str) -> Tensor | None:
        names = plain_names(name_in(space, name), space, 0)
        if not all(each in parameters for each in names):
            return None
        grads = [parameters[each].grad for each in names]
        assert all(grad is not None for grad in grads)
        return torch.cat([grad.flatten() for grad in grads if grad is not None])

    of_alphas = {
        kind: torch.stack(
            [torch.zeros_like(a) if a.grad is None else a.grad for a in net.edge_alphas(kind)]
        )
        for kind in kinds
    }
    check_step(arrays, state, logits, loss, of_alphas, of_weight)
    net.eval()
    close(net(*inputs), arrays[f"{state}.logits_eval"])


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


@pytest.mark.parametrize("space", FAMILIES)
def test_ten_steps_of_a_search_equal_ours(space: str, kernels: str) -> None:
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
