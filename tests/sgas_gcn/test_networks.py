"""Supernets and networks of points and graphs: what runs, what is asked, what is counted.

What they have in common with every other space is in tests/contracts.
"""

from __future__ import annotations

import pytest
import torch
from small_models import SPACES
from torch.utils.flop_counter import FlopCounterMode

from sgas.cells.genotype import Genotype
from sgas.native.backend import use_kernels
from sgas_gcn.config import PointModelConfig
from sgas_gcn.graph_batch import GraphBatch
from sgas_gcn.ops.operation import runs_fused
from sgas_gcn.ops.point import POINT_OPERATIONS
from sgas_gcn.supernet import PointSupernet

POINT, GRAPH = SPACES["point"], SPACES["graph"]


def test_pruned_operations_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    net, decisions = POINT.supernet(), POINT.all_decided(["mr_conv"])
    net.apply_decisions(decisions)
    evaluated: list[tuple[str, int]] = []
    for name, operation in POINT_OPERATIONS.items():
        assert runs_fused(operation)

        def spy(call, *, name=name, run=operation.fused_forward):  # type: ignore[no-untyped-def]
            evaluated.append((name, call.num_edges))
            return run(call)

        monkeypatch.setattr(operation, "fused_forward", spy)
    net(POINT.batch())
    assert {name for name, _ in evaluated} == {"mr_conv"}
    edges = sum(count for _, count in evaluated)
    assert edges == POINT.sizes["num_cells"] * decisions["normal"].num_decided


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["cri1-modelnet-1", "cri2-modelnet-best", "random-modelnet-3"])
def test_flops_are_counted_alike_with_all_kernels(name: str) -> None:
    points = POINT.batch(1)
    # Of a search for neighbours alone the torch form has products.
    neighbors = [torch.arange(16).view(1, 16, 1).add(torch.arange(4)).remainder(16)] * 2
    found = set()
    for kernels in ("torch", "cpu"):
        use_kernels(kernels)
        net = POINT.network(POINT.family.load_published(name)).eval()
        with torch.no_grad():
            net(points, neighbors)
            with FlopCounterMode(display=False) as counter:
                net(points, neighbors)
        found.add(counter.get_total_flops())
    assert len(found) == 1 and found.pop() > 0


def test_points_may_have_features_beside_their_coordinates() -> None:
    net = PointSupernet(PointModelConfig(16, 3, channels=2, num_cells=1, emb_dims=4), 5, 3)
    logits = net(torch.randn(2, 16, 5))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert all(weight.grad is not None for weight in net.weights())


def test_two_edges_may_join_the_same_states() -> None:
    edges = "('gat', 0), ('gin', 0), ('sage', 1), ('sage', 1)"
    text = f"Genotype(normal=[{edges}], normal_concat=[2, 3])"
    net = POINT.network(Genotype.from_text(text, "point"))
    assert net(POINT.batch()).shape == (4, 5)
    assert net.cells[0].out_channels == 2 * POINT.sizes["channels"]


def test_only_the_asked_nodes_are_answered() -> None:
    torch.manual_seed(0)
    net, (batch,) = GRAPH.supernet(), GRAPH.samples(1)
    asked = torch.tensor([7, 2, 5])
    every = net.eval()(batch)
    some = GraphBatch(batch.x, batch.neighbors, batch.sizes, asked)
    torch.testing.assert_close(net(some), every[asked])
    both = GraphBatch.join([batch, some])
    torch.testing.assert_close(net(both), torch.cat([every, every[asked]]))
    assert both.graph_of_node.tolist() == [0] * 8 + [1] * 8
    logits, auxiliary = GRAPH.network(auxiliary=True)(some)
    assert logits.shape == auxiliary.shape == (3, 5)
