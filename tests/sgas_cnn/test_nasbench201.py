"""The NAS-Bench-201 space: the text form, and sizes of the benchmark.

What it has in common with every other space is in tests/contracts.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sgas.cells.genotype import Genotype
from sgas.errors import GenotypeError
from sgas.running.genotype_files import load_genotype
from sgas_cnn.config import NasBench201Config
from sgas_cnn.family import FAMILY
from sgas_cnn.nasbench201 import NasBench201Network
from sgas_cnn.nasbench201_text import from_nasbench201, to_nasbench201

ARCHITECTURE = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
SMALL = NasBench201Config(channels=2, num_cells=1)


def test_the_text_form_goes_both_ways() -> None:
    genotype = from_nasbench201(f"  {ARCHITECTURE}\n")
    assert to_nasbench201(genotype) == ARCHITECTURE
    cell = genotype.cells["normal"]
    assert cell.concat == (3,) and [edge.source for edge in cell.edges] == [0, 0, 1, 0, 1, 2]
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert load_genotype(FAMILY, ARCHITECTURE) == genotype
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


def test_a_cell_with_another_output_is_refused() -> None:
    text = "Genotype(normal=[('none', 0), ('none', 0), ('none', 1)], normal_concat=[1, 2])"
    with pytest.raises(GenotypeError, match=r"concat is \[1, 2\]; .* give \[2\]"):
        NasBench201Network(Genotype.from_text(text, "nasbench201"), SMALL, 3, 5)
