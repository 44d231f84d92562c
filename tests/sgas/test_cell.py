"""The DAG forward against sums written out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from sgas.cells.forward import dag_extend
from sgas.cells.topology import CellTopology


@pytest.mark.parametrize(("num_steps", "num_inputs"), [(1, 2), (3, 2), (4, 1)])
def test_states_are_sums_over_incoming_edges(num_steps: int, num_inputs: int) -> None:
    torch.manual_seed(0)
    topology = CellTopology(num_steps, num_inputs, None, 1)
    weights = torch.randn(topology.num_edges, dtype=torch.float64)
    inputs = [torch.randn(5, dtype=torch.float64) for _ in range(num_inputs)]

    def extend(source: int, state: Tensor, sums: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {
            edge.step: sums.get(edge.step, 0) + weights[edge.index] * torch.sin(state)
            for edge in topology.edges
            if edge.source == source
        }

    states = dag_extend(inputs, num_steps, extend)

    expected = list(inputs)
    for step in range(num_steps):
        incoming = topology.edges_into(step)
        expected.append(
            torch.stack([weights[e.index] * torch.sin(expected[e.source]) for e in incoming]).sum(0)
        )
    assert len(states) == topology.num_states
    for state, wanted in zip(states, expected, strict=True):
        torch.testing.assert_close(state, wanted)


def test_a_step_that_nothing_enters_is_refused() -> None:
    with pytest.raises(AssertionError, match="no edge enters step 1"):
        dag_extend([torch.ones(1)] * 2, 2, lambda n, state, _: {0: state} if n < 2 else {})
