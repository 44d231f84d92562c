"""Published genotypes of both families: the authors' cells and sizes, by name, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Cli
from small_models import SPACES

from sgas.errors import GenotypeError

# What the golden file calls a space, and models with their dimensions by the name of a count.
POINTS = {"in_channels": 3, "num_classes": 40}
GRAPHS = {"in_channels": 50, "num_outputs": 121}
KNOWN: dict[str, tuple[str, dict[str, tuple[dict[str, Any], dict[str, int]]]]] = {
    "point": (
        "point",
        {
            "modelnet40_l9_c128_k20": ({"k": 20, "channels": 128, "num_cells": 9}, POINTS),
            "modelnet40_l3_c128_k9": ({"k": 9, "channels": 128, "num_cells": 3}, POINTS),
        },
    ),
    "graph": (
        "graph",
        {
            "ppi_l5_c512": ({"channels": 512, "num_cells": 5}, GRAPHS),
            "ppi_l5_c64": ({"channels": 64, "num_cells": 5}, GRAPHS),
        },
    ),
    "image": ("cnn", {}),  # test_image_network counts the parameters and multiplications of these
}


def our_name(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("name", KNOWN)
def test_published_genotypes_and_sizes(name: str, golden: Path) -> None:
    space, family, (label, settings) = SPACES[name].space, SPACES[name].family, KNOWN[name]
    file = json.loads((golden / "networks.json").read_text())
    wanted = {n["name"]: n for n in file["networks"] if n["family"] == label}
    aliases = {alias: known for alias, known in file["aliases"].items() if known in wanted}
    ours = {n for n in family.published_names() if family.load_published(n).space == name}
    assert ours == {our_name(known) for known in (*wanted, *aliases)}
    assert list(family.published_names()) == sorted(family.published_names())
    for alias, known in aliases.items():
        assert family.load_published(our_name(alias)) == family.load_published(our_name(known))
    for known, network in wanted.items():
        genotype = family.load_published(known.replace("_", "-")).validate(space)
        for kind, cell in genotype.cells.items():
            assert [[edge.op, edge.source] for edge in cell.edges] == network[kind]
            assert list(cell.concat) == network[f"{kind}_concat"]
        for setting in network["counts"] if settings else ():
            options, dimensions = settings[setting]
            place = family.spaces[name]
            models = place.models(place.model_config(**options), dimensions)
            with torch.device("meta"):
                net: Any = models.build_network(genotype, False)
            count = sum(parameter.numel() for parameter in net.parameters())
            assert count == network["counts"][setting]["params"], (known, setting)


@pytest.mark.parametrize(
    ("space", "wrong", "nearest"),
    [("point", "cri2-modelnet-44", "cri2-modelnet-4"), ("image", "cri2-cifar-33", "cri2-cifar-3")],
)
def test_an_unknown_name_names_the_nearest(space: str, wrong: str, nearest: str) -> None:
    with pytest.raises(GenotypeError, match=rf"'{wrong}': did you mean {nearest}\?"):
        SPACES[space].family.load_published(wrong)


@pytest.mark.parametrize(
    ("space", "name"), [("point", "cri2-modelnet-best"), ("image", "cri1-cifar-best")]
)
def test_training_a_published_cell_asks_for_a_data_set(
    here: Path, cli: Cli, space: str, name: str
) -> None:
    family = SPACES[space].family
    ended = cli("train", name, family=family)
    assert ended.is_refused("give --dataset, one of ") and family.default_dataset in ended.err
    assert not list(here.iterdir())
