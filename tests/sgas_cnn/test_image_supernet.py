"""The image supernet: what runs, its stems and sizes. What all spaces keep is in contracts."""

from __future__ import annotations

import pytest
import torch
from small_models import SPACES

from sgas.errors import ConfigError
from sgas_cnn.config import ImageModelConfig, NasBench201Config
from sgas_cnn.nasbench201 import NasBench201Supernet
from sgas_cnn.ops.operation import Operation
from sgas_cnn.ops.zero import Zero
from sgas_cnn.supernet import ImageSupernet


def test_what_is_decided_or_none_runs_alone_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("none was computed")

    monkeypatch.setattr(Zero, "forward", fail)
    small = SPACES["image"]
    net, x, decisions = small.supernet(), small.batch(), small.all_decided(["sep_conv_3x3"])
    net(x)
    net.apply_decisions(decisions)
    held = [
        name.rsplit(".", 1)[1]
        for name, module in net.named_modules()
        if isinstance(module, Operation) and ".edges." in name
    ]
    assert set(held) == {"sep_conv_3x3"}
    assert len(held) == small.sizes["num_cells"] * decisions["normal"].num_decided
    net(x)


def test_sides_may_be_odd_and_unlike() -> None:
    nets = [ImageSupernet(ImageModelConfig(1, num_cells), 1, 3) for num_cells in (1, 2, 5)]
    nets += [NasBench201Supernet(NasBench201Config(1, *of), 1, 3) for of in ((1, 1), (2, 4))]
    for net in nets:
        logits = net(torch.randn(2, 1, 9, 14))
        logits.sum().backward()
        assert logits.shape == (2, 3)


def test_the_imagenet_stem() -> None:
    net = ImageSupernet(ImageModelConfig(2, 3, stem="imagenet"), 3, 3)
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in net.weights())
    with pytest.raises(ConfigError, match="channels is 3; stem imagenet halves them"):
        ImageModelConfig(channels=3, stem="imagenet")
