"""Derived networks of images: published sizes, what cells may be, the auxiliary head's pooling.

What they have in common with every other space is in tests/contracts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sampling import some
from torch import Tensor

from sgas.cells.genotype import Genotype
from sgas.errors import ConfigError, GenotypeError
from sgas.running.complexity import num_flops
from sgas_cnn.config import ImageModelConfig
from sgas_cnn.network import AuxiliaryHead, ImageNetwork
from sgas_cnn.ops.layers import BatchNorm
from sgas_cnn.published import load_published

SMALL = ImageModelConfig(channels=2, num_cells=3)
IMAGENET = ImageModelConfig(channels=48, num_cells=14, stem="imagenet")
CIFAR = ImageModelConfig(channels=36, num_cells=20)
SETTINGS = {  # model, classes, pixels a side
    "cifar10_c36_l20": (CIFAR, 10, 32),
    "cifar100_c36_l20": (CIFAR, 100, 32),
    "imagenet_c48_l14": (IMAGENET, 1000, 224),
}

# Each operation and each form of cell; the others differ in which edges they choose.
COUNTED = ("NASNet", "AmoebaNet", "DARTS_V2", "Cri1_CIFAR_3", "Cri2_CIFAR_4")
# Here the products are those of CIFAR-10, but for the classifier and the stem: one network tells.
COUNTED_IN = {"cifar100_c36_l20": COUNTED[:1], "imagenet_c48_l14": COUNTED[-1:]}


def images(count: int = 4, side: int = 8) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, side, side)


def num_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("setting", some(SETTINGS, "cifar10_c36_l20"))
def test_published_sizes(setting: str, golden: Path) -> None:
    model, num_classes, side = SETTINGS[setting]
    file = json.loads((golden / "networks.json").read_text())
    for known in (n for n in file["networks"] if n["family"] == "cnn"):
        genotype = load_published(known["name"].replace("_", "-"))
        with torch.device("meta"):
            net = ImageNetwork(genotype, model, 3, num_classes, auxiliary=True)
        counts = known["counts"][setting]
        assert num_parameters(net) == counts["params_with_auxiliary"], known["name"]
        net.auxiliary = None
        assert num_parameters(net) == counts["params"], known["name"]
        if known["name"] in COUNTED_IN.get(setting, COUNTED):
            # The weights' values do not matter; a real pass is faster than one on meta tensors.
            flops = num_flops(net.to_empty(device="cpu"), torch.zeros(1, 3, side, side))
            assert flops == 2 * counts["macs"], known["name"]


def test_two_edges_may_join_the_same_states_and_cells_may_differ_in_steps() -> None:
    text = (
        "Genotype(normal=[('sep_conv_3x3', 0), ('dil_conv_3x3', 0)], normal_concat=[2], "
        "reduce=[('skip_connect', 1), ('skip_connect', 1), ('max_pool_3x3', 2), "
        "('skip_connect', 0)], reduce_concat=[2, 3])"
    )
    net = ImageNetwork(Genotype.from_text(text, "image"), SMALL, 3, 5)
    assert net(images()).shape == (4, 5)
    assert [cell.out_channels for cell in net.cells] == [2, 8, 16]


def test_a_reducing_cell_may_not_hand_on_its_inputs() -> None:
    text = (
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)], normal_concat=[1, 2], "
        "reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[1, 2])"
    )
    with pytest.raises(GenotypeError, match=r"reduce cell: concat is \[1, 2\].*states from 2"):
        ImageNetwork(Genotype.from_text(text, "image"), SMALL, 3, 5)


def test_images_that_are_too_small_for_the_imagenet_stem_are_refused() -> None:
    config = ImageModelConfig(channels=2, num_cells=3, stem="imagenet")
    net = ImageNetwork(load_published("darts"), config, 3, 5)
    with pytest.raises(ConfigError, match=r"stem imagenet needs at least 64 a side"):
        net(images(side=63))


@pytest.mark.parametrize("kind, spared", [("normal", True), ("reduce", False)])
def test_drop_path_leaves_skips_of_stride_1_alone(kind: str, spared: bool) -> None:
    skips = [("skip_connect", 0), ("skip_connect", 1)]
    text = f"Genotype(normal={skips}, normal_concat=[2], reduce={skips}, reduce_concat=[2])"
    net = ImageNetwork(Genotype.from_text(text, "image"), SMALL, 3, 5)
    cell = next(cell for cell in net.cells if cell.kind == kind)
    layer, x = cell.edges[0]["skip_connect"], torch.randn(4, cell.out_channels, 8, 8)
    assert layer.skips == spared
    cell.pre0 = cell.pre1 = torch.nn.Identity()
    one, other = (cell(x, x, drop_path=0.5) for _ in range(2))
    assert torch.equal(one, other) == spared


@pytest.mark.parametrize("stem, side", [("cifar", 33), ("imagenet", 65)])
def test_the_auxiliary_head_speaks_in_training_alone(stem: str, side: int) -> None:
    config = ImageModelConfig(channels=2, num_cells=3, stem=stem)
    net = ImageNetwork(load_published("darts"), config, 3, 5, auxiliary=True)
    x = images(side=side)
    logits, auxiliary = net(x)
    assert logits.shape == auxiliary.shape == (4, 5)
    (logits.sum() + auxiliary.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.eval()(x).shape == (4, 5)


@pytest.mark.parametrize("stride, side", [(3, 8), (2, 7)])
def test_the_auxiliary_head_pools_as_published_at_the_published_sizes(
    stride: int, side: int
) -> None:
    torch.manual_seed(0)
    head = AuxiliaryHead(3, 2, stride)
    x = torch.randn(1, 3, side, side)
    pooled = torch.nn.AvgPool2d(5, stride=stride, padding=0, count_include_pad=False)(x)
    assert pooled.shape == (1, 3, 2, 2)
    torch.testing.assert_close(head._pool(x), pooled)


def test_all_norms_of_a_derived_network_are_affine_and_none_follows_a_pooling() -> None:
    net = ImageNetwork(load_published("nasnet"), SMALL, 3, 5)
    norms = {name: m for name, m in net.named_modules() if isinstance(m, BatchNorm)}
    assert all(norm.weight is not None for norm in norms.values())
    assert not any("pool" in name for name in norms)
