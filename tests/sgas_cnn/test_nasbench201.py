"""The NAS-Bench-201 space: operations, the text form, sizes of the benchmark, the mixture.

What it has in common with every other space is in tests/contracts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sgas.cells.genotype import Genotype
from sgas.errors import GenotypeError
from sgas_cnn.config import NASBENCH201_OPERATIONS, NASBENCH201_SPACE, NasBench201Config
from sgas_cnn.nasbench201 import NasBench201Network, NasBench201Supernet
from sgas_cnn.nasbench201_text import from_nasbench201, to_nasbench201
from sgas_cnn.ops.layers import BatchNorm
from sgas_cnn.ops.nasbench201 import NASBENCH201_TABLE
from sgas_cnn.ops.operation import Operation

ARCHITECTURE = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
SMALL = NasBench201Config(channels=2, num_cells=1)
TOPOLOGY = NASBENCH201_SPACE.topology(3)


def images(count: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, 8, 8, dtype=torch.float64)


def small_supernet() -> NasBench201Supernet:
    torch.manual_seed(0)
    return NasBench201Supernet(SMALL, 3, 5).double()


def test_the_table_has_the_operations_of_the_search_space_in_order() -> None:
    assert tuple(NASBENCH201_TABLE) == NASBENCH201_OPERATIONS == NASBENCH201_SPACE.operations


def norm(bn: BatchNorm, x: Tensor) -> Tensor:
    """Batch norm over all but the channels, by its definition."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    x = (x - mean) / torch.sqrt(var + 1e-5)
    if bn.weight is None:
        return x
    return x * bn.weight.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)


def plain_mean(x: Tensor) -> Tensor:
    """The mean of the pixels of each 3 × 3 window that are inside the image."""
    padded = F.pad(x, (1, 1, 1, 1), value=float("nan"))
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2).nanmean(-1)


PLAIN: dict[str, Callable[[Operation, Tensor], Tensor]] = {
    "none": lambda op, x: torch.zeros_like(x),
    "skip_connect": lambda op, x: x,
    "nor_conv_1x1": lambda op, x: norm(op.norm, F.conv2d(F.relu(x), op.lin.weight)),
    "nor_conv_3x3": lambda op, x: norm(op.norm, F.conv2d(F.relu(x), op.lin.weight, padding=1)),
    "avg_pool_3x3": lambda op, x: plain_mean(x),
}


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", NASBENCH201_TABLE)
def test_equals_the_plain_formula(name: str, affine: bool) -> None:
    torch.manual_seed(0)
    op = NASBENCH201_TABLE[name](3, 1, affine).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(op(x), PLAIN[name](op, x))


def test_the_text_form_goes_both_ways() -> None:
    genotype = from_nasbench201(f"  {ARCHITECTURE}\n")
    assert to_nasbench201(genotype) == ARCHITECTURE
    cell = genotype.cells["normal"]
    assert cell.concat == (3,) and [edge.source for edge in cell.edges] == [0, 0, 1, 0, 1, 2]
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert to_nasbench201(from_nasbench201("|none~0|+|skip_connect~0|none~1|")).count("none") == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "node 1 is '', expected 1 edges"),
        ("|skip_connect~0|+|skip_connect~0|", "node 2 is .*, expected 2 edges"),
        ("|skip_connect~0|none~1|", "node 1 is .*, expected 1 edges"),
        ("|skip_connect~1|", "'skip_connect~1' stands where one from node 0"),
        ("|skip_connect|", "'skip_connect' stands where"),
        ("|conv_3x3~0|", r"'conv_3x3': did you mean nor_conv_3x3\?"),
        ("skip_connect~0", "node 1 is"),
    ],
)
def test_a_wrong_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        from_nasbench201(text)


def test_a_cell_that_the_benchmark_does_not_know_has_no_text() -> None:
    twice = "Genotype(normal=[('none', 0), ('none', 0), ('none', 0)], normal_concat=[2])"
    with pytest.raises(GenotypeError, match="none of NAS-Bench-201"):
        to_nasbench201(Genotype.from_text(twice, "nasbench201"))
    with pytest.raises(GenotypeError, match="of space 'image'"):
        to_nasbench201(Genotype.from_text(twice, "image"))


def test_size_of_a_network_of_the_benchmark() -> None:
    """1.073466 million parameters and 153.27 million multiply-adds (CIFAR-10)."""
    net = NasBench201Network(from_nasbench201(ARCHITECTURE), NasBench201Config(), 3, 10)
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_073_466
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, 3, 32, 32))
    assert round(counter.get_total_flops() / 2e6, 2) == 153.27


def test_the_mixture_is_the_weighted_sum_of_the_candidates() -> None:
    net = small_supernet()
    torch.nn.init.normal_(net.alphas["normal"])
    weights = torch.softmax(net.alphas["normal"], -1)
    cell, x = net.body.cells[0], images()[:, :2]
    states = [x]
    for step in range(3):
        edges = [edge for edge in TOPOLOGY.edges if edge.step == step]
        states.append(
            sum(
                weights[edge.index, column]
                * PLAIN[name](cell[edge.index][name], states[edge.source])
                for edge in edges
                for column, name in enumerate(NASBENCH201_OPERATIONS)
            )
        )
    torch.testing.assert_close(cell([x], weights), states)


@pytest.mark.parametrize("num_cells, num_steps", [(1, 1), (2, 4)])
def test_other_sizes(num_cells: int, num_steps: int) -> None:
    net = NasBench201Supernet(NasBench201Config(1, num_cells, num_steps), 1, 3)
    logits = net(torch.randn(2, 1, 9, 14))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert len(net.body.cells) == 3 * num_cells


def test_a_cell_with_another_output_is_refused() -> None:
    text = "Genotype(normal=[('none', 0), ('none', 0), ('none', 1)], normal_concat=[1, 2])"
    with pytest.raises(GenotypeError, match=r"concat is \[1, 2\]; .* give \[2\]"):
        NasBench201Network(Genotype.from_text(text, "nasbench201"), SMALL, 3, 5)
