"""Edges of a cell: counts, order and names, against the golden README's statements."""

from __future__ import annotations

import pytest

from sgas.cells.space import SearchSpace
from sgas.cells.topology import CellTopology
from sgas.errors import ConfigError


@pytest.mark.parametrize(("num_steps", "num_edges"), [(1, 2), (3, 9), (4, 14), (5, 20)])
def test_every_step_reads_all_earlier_states(num_steps: int, num_edges: int) -> None:
    topology = CellTopology(num_steps, num_outputs=min(4, num_steps + 2))
    assert topology.num_edges == num_edges
    assert [edge.index for edge in topology.edges] == list(range(num_edges))
    for step in range(num_steps):
        assert [e.source for e in topology.edges_into(step)] == list(range(2 + step))
    assert topology.num_decisions == 2 * num_steps


def test_output_is_the_last_four_states_and_without_a_limit_all_edges_are_kept() -> None:
    assert CellTopology(3).concat == (1, 2, 3, 4)
    assert CellTopology(4).concat == (2, 3, 4, 5)
    topology = CellTopology(3, num_inputs=1, in_degree=None, num_outputs=1)
    assert (topology.num_edges, topology.num_decisions, topology.concat) == (6, 6, (3,))
    assert topology.state_name(0) == "in"


def test_a_cell_may_output_the_states_that_no_edge_leaves() -> None:
    space = SearchSpace("x", ("none", "a"), num_inputs=1, in_degree=1, num_outputs=None)
    topology = space.topology(4)
    assert (topology.num_edges, topology.num_decisions) == (10, 4)
    assert topology.concat == (1, 2, 3, 4)
    assert topology.outputs({0, 1, 3}) == (2, 4)
    assert CellTopology(3).outputs({0, 1, 2}) == CellTopology(3).concat


def test_names_are_those_of_the_pictures() -> None:
    topology = CellTopology(3)
    names = [topology.edge_name(edge) for edge in topology.edges]
    assert names[:5] == ["c(k-2)→n1", "c(k-1)→n1", "c(k-2)→n2", "c(k-1)→n2", "n1→n2"]


@pytest.mark.parametrize(
    "values",
    [{"num_steps": 0}, {"num_steps": 3, "in_degree": 3}, {"num_steps": 1, "num_outputs": 4}],
)
def test_impossible_cells_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        CellTopology(**values)


def test_steps_of_a_genotype_follow_from_its_edges() -> None:
    two_each = SearchSpace("x", ("none", "a"))
    assert [two_each.num_steps_of(n) for n in (2, 6, 7, 8, 0)] == [1, 3, None, 4, None]
    every_edge = SearchSpace("x", ("none", "a"), num_inputs=1, in_degree=None, num_outputs=1)
    assert [every_edge.num_steps_of(n) for n in (1, 3, 6, 5)] == [1, 2, 3, None]
