"""Hand-made networks beside a found cell: of its size, the same settings, one look at the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import Ended

from benchmarks import hand_made
from sgas.errors import InputError

CELLS = {
    "point": ("shapes", "cri2-modelnet-best", ["ours", "pointnet", "dgcnn"]),
    "image": ("digits", "cri2-cifar-best", ["ours", "resnet20"]),
}

SIZES = {
    "point": {
        "num_points": 24,
        "k": 4,
        "num_cells": 1,
        "channels": 8,
        "emb_dims": 32,
        "batch_size": 200,
    },
    "image": {"channels": 4, "num_cells": 3},
}


@pytest.mark.parametrize("space", CELLS)
def test_networks_of_our_size_are_trained_alike_and_kept(
    space: str, script: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, genotype, names = CELLS[space]
    load_preset = hand_made.load_preset
    monkeypatch.setattr(hand_made, "load_preset", lambda *of: load_preset(*of) | SIZES[space])
    words = ["--space", space, "--dataset", dataset, "--genotype", genotype, "--preset", "demo"]
    words += ["--epochs", "1", "--seeds", "0,1", "--json", "--keep", str(tmp_path / "kept")]
    ended = script(hand_made, *words)
    assert ended.status == 0, ended.err
    result = json.loads(ended.out)
    assert list(result["networks"]) == names
    ours = result["networks"]["ours"]["parameters"]
    for name in names[1:]:
        row, less = result["networks"][name], result["ours_less"][name]
        assert 0.5 * ours < row["parameters"] <= ours
        tests = [line["test"] for line in row["seeds"]]
        theirs = [line["test"] for line in result["networks"]["ours"]["seeds"]]
        assert less["difference"] == pytest.approx((sum(theirs) - sum(tests)) / 2)
    monkeypatch.setattr(hand_made, "train_once", abs)  # nothing is trained again
    again = json.loads(script(hand_made, *words).out)
    assert again["networks"] == result["networks"]


def test_edge_convolution_is_that_of_its_formula() -> None:
    torch.manual_seed(0)
    layer = hand_made.EdgeConv(3, 5, 4).double().eval()
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    u, v = layer.of_point.weight[:, :, 0], layer.of_neighbor.weight[:, :, 0]
    near = torch.cdist(x.transpose(1, 2), x.transpose(1, 2)).topk(4, largest=False).indices
    for cloud in range(2):
        for point in range(9):
            x_i, x_j = x[cloud, :, point], x[cloud][:, near[cloud, point]]
            joined = torch.cat([x_i[:, None].expand_as(x_j), x_j - x_i[:, None]])
            edges = torch.cat([u + v, v], 1) @ joined / (1 + layer.norm.eps) ** 0.5
            wanted = torch.nn.functional.leaky_relu(edges, 0.2).amax(1)
            torch.testing.assert_close(layer(x)[cloud, :, point], wanted)


def test_no_network_is_made_for_too_few_parameters() -> None:
    task = SimpleNamespace(in_channels=3, num_classes=10)
    with pytest.raises(InputError, match="no hand-made network is as small as 10 parameters"):
        hand_made.widest(hand_made.ResNet20, task, 10)


def test_some_of_the_hand_made_networks_may_be_asked_for() -> None:
    assert hand_made.networks_of("point", None) == ["pointnet", "dgcnn"]
    assert hand_made.networks_of("point", "dgcnn") == ["dgcnn"]
    with pytest.raises(InputError, match="unknown network 'resnet20'"):
        hand_made.networks_of("point", "dgcnn,resnet20")
