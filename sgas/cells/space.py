"""SearchSpace: what can be searched, described without tensors so that a command starts fast."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sgas.cells.topology import CellTopology

NONE = "none"


@dataclass(frozen=True)
class SearchSpace:
    """Names of a search space: candidate operations (column 0 is `none`) and kinds of cell.

    `candidates` is a dict where operations can be added to the space (`sgas.registry`).
    `in_degree` edges enter each step in the end (None: all), and the last `num_outputs` states are
    the output (None: those of the steps that no kept edge leaves). `published_only` are operations
    that published cells use and no search offers.
    """

    name: str
    candidates: Collection[str]
    cell_kinds: tuple[str, ...] = ("normal",)
    num_inputs: int = 2
    in_degree: int | None = 2
    num_outputs: int | None = 4
    published_only: tuple[str, ...] = ()

    @property
    def operations(self) -> tuple[str, ...]:
        """The candidates as they are now, in the order of the columns."""
        return tuple(self.candidates)

    def topology(self, num_steps: int) -> CellTopology:
        """The complete cell of `num_steps` steps."""
        num_outputs = self.num_outputs and min(self.num_outputs, self.num_inputs + num_steps)
        return CellTopology(num_steps, self.num_inputs, self.in_degree, num_outputs)

    def num_steps_of(self, num_edges: int) -> int | None:
        """The number of steps whose kept edges add up to `num_edges`; None where none does."""
        for num_steps in range(1, num_edges + 1):
            if self.topology(num_steps).num_decisions == num_edges:
                return num_steps
        return None

    @property
    def genotype_operations(self) -> tuple[str, ...]:
        """The operations that a genotype may name."""
        names = self.operations if self.in_degree is None else self.operations[1:]
        return names + self.published_only
