"""Derived networks: published sizes, agreement with the supernet, drop path, auxiliary head."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sgas.cells.decisions import CellDecisions, Choice, genotype_of
from sgas.cells.genotype import Genotype
from sgas.errors import ConfigError, GenotypeError
from sgas.native.backend import use_kernels
from sgas_gcn.cells import drop_clouds
from sgas_gcn.config import POINT_SPACE, PointModelConfig
from sgas_gcn.library import LIBRARY
from sgas_gcn.network import PointNetwork
from sgas_gcn.published import load_published, published_names
from sgas_gcn.supernet import PointSupernet

SMALL = PointModelConfig(
    num_points=24, k=4, channels=4, num_cells=3, num_steps=3, emb_dims=8, dropout=0.0
)
SETTINGS = {
    "modelnet40_l9_c128_k20": PointModelConfig(k=20, channels=128, num_cells=9),
    "modelnet40_l3_c128_k9": PointModelConfig(k=9, channels=128, num_cells=3),
}


def small_network(name: str = "cri2-modelnet-best", **options: object) -> PointNetwork:
    torch.manual_seed(0)
    return PointNetwork(load_published(name), SMALL, 3, 5, **options)  # type: ignore[arg-type]


def clouds(count: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, SMALL.num_points, 3)


def num_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_published_genotypes_and_sizes(golden: Path) -> None:
    file = json.loads((golden / "networks.json").read_text())
    wanted = {n["name"]: n for n in file["networks"] if n["family"] == "point"}
    names = {name.lower().replace("_", "-"): name for name in wanted}
    aliases = {
        alias.lower().replace("_", "-"): name
        for alias, name in file["aliases"].items()
        if name in wanted
    }
    own = {name for name in published_names() if "modelnet" in name}
    assert own == {*names, *aliases}
    assert list(published_names()) == sorted(published_names())
    for alias, name in aliases.items():
        assert load_published(alias) == load_published(name.replace("_", "-"))
    for own, name in names.items():
        genotype = load_published(own)
        cell = genotype.validate(POINT_SPACE).cells["normal"]
        assert [[edge.op, edge.source] for edge in cell.edges] == wanted[name]["normal"]
        assert list(cell.concat) == wanted[name]["normal_concat"]
        for setting, count in wanted[name]["counts"].items():
            with torch.device("meta"):
                net = PointNetwork(genotype, SETTINGS[setting], 3, 40)
            assert num_parameters(net) == count["params"], (name, setting)


@pytest.mark.parametrize("name", ["cri1-modelnet-1", "cri2-modelnet-best", "random-modelnet-3"])
def test_flops_are_counted_alike_with_all_kernels(name: str) -> None:
    if (reason := LIBRARY.load()) is not None:
        pytest.skip(reason)
    points = clouds(1)
    # Of a search for neighbours alone the torch form has products.
    neighbors = [torch.arange(24).view(1, 24, 1).add(torch.arange(4)).remainder(24)] * 3
    found = set()
    for kernels in ("torch", "cpu"):
        use_kernels(kernels)
        net = small_network(name).eval()
        with torch.no_grad():
            net(points, neighbors)
            with FlopCounterMode(display=False) as counter:
                net(points, neighbors)
        found.add(counter.get_total_flops())
    use_kernels("auto")
    assert len(found) == 1 and found.pop() > 0


def test_an_unknown_published_name_names_the_nearest() -> None:
    with pytest.raises(GenotypeError, match=r"'cri2-modelnet-44': did you mean cri2-modelnet-4\?"):
        load_published("cri2-modelnet-44")


def test_published_names_need_no_torch() -> None:
    probe = (
        "import sys; from sgas_gcn.published import *; "
        "load_published(published_names()[0]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("training", [True, False])
def test_a_fully_decided_supernet_is_the_derived_network(training: bool) -> None:
    torch.manual_seed(0)
    supernet = PointSupernet(SMALL, 3, 5).double().train(training)
    decisions = CellDecisions.none_yet(POINT_SPACE.topology(3))
    ops = iter(["gat", "edge_conv", "skip_connect", "gin", "rel_sage", "semi_gcn"])
    while decisions.undecided:
        decisions = decisions.decide(Choice(decisions.undecided[-1], next(ops)))
    supernet.apply_decisions({"normal": decisions})
    genotype = genotype_of(POINT_SPACE, {"normal": decisions})
    network = PointNetwork(genotype, SMALL, 3, 5).double().train(training)
    kept = [edge for edge, state in enumerate(decisions.states) if state.op is not None]
    names = {f".edges.{edge}.": f".edges.{place}." for place, edge in enumerate(kept)}
    weights = {}
    for name, value in supernet.state_dict().items():
        old = next((part for part in names if part in name), None)
        weights[name.replace(old, names[old]) if old else name] = value
    weights.pop("alphas.normal")
    network.load_state_dict(weights)
    x = clouds().double()
    torch.testing.assert_close(network(x), supernet(x))


@pytest.mark.parametrize("name", ["cri1-modelnet-9", "random-modelnet-1", "random-modelnet-9"])
def test_published_cells_run_and_learn(name: str) -> None:
    net = small_network(name)
    logits = net(clouds())
    assert isinstance(logits, Tensor) and logits.shape == (4, 5)
    logits.square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name


def test_two_edges_may_join_the_same_states() -> None:
    text = (
        "Genotype(normal=[('gat', 0), ('gin', 0), ('sage', 1), ('sage', 1)], normal_concat=[2, 3])"
    )
    genotype = Genotype.from_text(text, "point")
    net = PointNetwork(genotype, SMALL, 3, 5)
    assert net(clouds()).shape == (4, 5)
    assert net.cells[0].out_channels == 2 * SMALL.channels


def test_a_genotype_of_another_space_is_refused() -> None:
    genotype = Genotype.from_text(
        "Genotype(normal=[('gat', 0), ('gat', 1)], normal_concat=[2])", "x"
    )
    with pytest.raises(GenotypeError, match="of space 'x'"):
        PointNetwork(genotype, SMALL, 3, 5)


def test_clouds_that_are_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cell 2 .*4 · 3 = 12 nearest points.* has 11"):
        small_network()(torch.randn(2, 11, 3))


def test_drop_path_zeroes_edges_of_whole_clouds_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(400 * 5, 2, 3)
    out = drop_clouds(x, 0.25, 400).view(400, 5, 2, 3)
    per_edge = out[:, 0, :, 0]
    assert torch.equal(out, per_edge.view(400, 1, 2, 1).expand_as(out))
    assert set(per_edge.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert not torch.equal(per_edge[:, 0], per_edge[:, 1])
    assert abs(out.mean().item() - 1) < 0.1


def test_drop_path_acts_in_training_alone_and_can_be_set() -> None:
    net, x = small_network(drop_path=0.5), clouds()
    dropped = net(x)
    net.drop_path = 0.0
    whole = net(x)
    assert not torch.equal(dropped, whole)
    assert torch.equal(net(x), whole)
    net.eval()
    wanted = net(x)
    net.drop_path = 0.5
    assert torch.equal(net(x), wanted)


def test_drop_path_leaves_skips_alone() -> None:
    skips = [("skip_connect", 0), ("skip_connect", 1)]
    text = f"Genotype(normal={skips}, normal_concat=[2])"
    net = PointNetwork(Genotype.from_text(text, "point"), SMALL, 3, 5, drop_path=0.9)
    x = clouds()
    assert torch.equal(net(x), net(x))


def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    net, x = small_network(auxiliary=True), clouds()
    logits, auxiliary = net(x)
    assert logits.shape == auxiliary.shape == (4, 5)
    (logits.sum() + auxiliary.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.eval()(x).shape == (4, 5)
    assert num_parameters(net) - num_parameters(small_network()) == num_parameters(net.auxiliary)


def test_one_cloud_can_be_classified_and_others_do_not_matter() -> None:
    net, x = small_network(), clouds()
    net(x)
    net.eval()
    torch.testing.assert_close(net(x[2:3]), net(x)[2:3])
