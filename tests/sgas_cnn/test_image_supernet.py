"""The image supernet: what runs, its stems and sizes. What all spaces keep is in contracts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Choice
from sgas.errors import ConfigError
from sgas_cnn.config import IMAGE_SPACE, ImageModelConfig
from sgas_cnn.ops.operation import Operation
from sgas_cnn.ops.zero import Zero
from sgas_cnn.supernet import ImageSupernet

TOPOLOGY = IMAGE_SPACE.topology(4)
SMALL = ImageModelConfig(channels=2, num_cells=3)
KINDS = IMAGE_SPACE.cell_kinds


def small_supernet(seed: int = 0) -> tuple[ImageSupernet, Tensor, Tensor]:
    """A supernet in float64, and a batch for it."""
    torch.manual_seed(seed)
    net = ImageSupernet(SMALL, 3, 5).double()
    return net, torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(5, (4,))


def all_decided(op: str = "sep_conv_3x3") -> dict[str, CellDecisions]:
    decisions = CellDecisions.none_yet(TOPOLOGY)
    while decisions.undecided:
        decisions = decisions.decide(Choice(decisions.undecided[0], op))
    return dict.fromkeys(KINDS, decisions)


def test_what_is_decided_or_none_runs_alone_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("none was computed")

    monkeypatch.setattr(Zero, "forward", fail)
    net, x, _ = small_supernet()
    net(x)
    net.apply_decisions(all_decided())
    held = [
        name.rsplit(".", 1)[1]
        for name, module in net.named_modules()
        if isinstance(module, Operation) and ".edges." in name
    ]
    assert set(held) == {"sep_conv_3x3"}
    assert len(held) == SMALL.num_cells * TOPOLOGY.num_decisions
    net(x)


def test_sides_may_be_odd_and_unlike() -> None:
    for num_cells in (1, 2, 5):
        net = ImageSupernet(ImageModelConfig(1, num_cells), 1, 3)
        logits = net(torch.randn(2, 1, 9, 14))
        logits.sum().backward()
        assert logits.shape == (2, 3)


def test_the_imagenet_stem() -> None:
    net = ImageSupernet(ImageModelConfig(2, 3, stem="imagenet"), 3, 3)
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in net.weights())


def test_the_imagenet_stem_needs_even_channels() -> None:
    with pytest.raises(ConfigError, match="channels is 3; stem imagenet halves them"):
        ImageModelConfig(channels=3, stem="imagenet")
