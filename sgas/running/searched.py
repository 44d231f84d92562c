"""The cells of a search: what is decided so far, by what evidence, and how that is written down.

Whatever a search trains, it comes here at the end of each epoch with a table `[E, O]` for each kind
of cell, the alphas or what stands in their place, and gets back the records, the genotype that
would be cut now, and the decisions in words. Dimensions: E edges, O candidate operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, Status, genotype_of
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import SearchConfig
from sgas.deciding.evidence import Evidence, in_words, is_enough
from sgas.deciding.records import EpochRecord
from sgas.deciding.replay import completed, empty_history, extend_history, score_epoch
from sgas.deciding.schedule import Schedule
from sgas.deciding.strategies import EpochView, strategy_named

Found = tuple[list[EpochRecord], Genotype, tuple[str, ...]]  # records, genotype of now, news


class SearchedCells:
    """The cells of one search; `notes` go into its genotypes, `errors` are those of the tables."""

    def __init__(
        self,
        space: SearchSpace,
        num_steps: int,
        config: SearchConfig,
        seed: int,
        notes: Mapping[str, Any],
    ) -> None:
        self.space, self.config, self.seed, self.notes = space, config, seed, dict(notes)
        self.strategy = strategy_named(config.strategy)
        self.topology = space.topology(num_steps)
        self.schedule = Schedule.of(config, self.topology)
        self.decisions = {kind: CellDecisions.none_yet(self.topology) for kind in space.cell_kinds}
        history = empty_history(self.topology.num_edges, len(space.operations))
        self.history = dict.fromkeys(space.cell_kinds, history)
        self.errors: dict[str, Tensor | None] = dict.fromkeys(space.cell_kinds)
        self.costs: tuple[int, ...] | None = None  # ranks by cost, where decisions wait
        self.recent: dict[str, Tensor] = {}  # probabilities of the last epochs, to be averaged
        self.evidence: dict[str, Evidence | None] = {}  # by kind and edge, in order of decision

    @property
    def num_decided(self) -> int:
        """Decided edges of all kinds of cell."""
        return sum(cell.num_decided for cell in self.decisions.values())

    def cut(self, epoch: int, alphas: Mapping[str, Tensor]) -> dict[str, CellDecisions]:
        """The complete cells that would be cut now, by kind."""
        views = {kind: self._view(epoch, kind, table) for kind, table in alphas.items()}
        return {kind: completed(view, self.strategy) for kind, view in views.items()}

    def may_decide(self, epoch: int) -> bool:
        """Whether an edge may be decided after an epoch."""
        made = (cell.num_decided for cell in self.decisions.values())
        return any(self.schedule.may_decide(epoch, number) for number in made)

    def _averaged(self, kind: str, alphas: Tensor) -> Tensor:
        """Alphas whose probabilities are the means over the last epochs, this one included."""
        probs = torch.softmax(alphas, -1)[None]
        probs = torch.cat([self.recent[kind], probs]) if kind in self.recent else probs
        self.recent[kind] = probs[-self.config.averaged_epochs :]
        return self.recent[kind].mean(0).clamp_min(torch.finfo(probs.dtype).tiny).log()

    def decide(self, epoch: int, alphas: Mapping[str, Tensor]) -> Found:
        """Scores an epoch and decides; `decisions` are then what holds after it."""
        records: list[EpochRecord] = []
        by_alphas = self.strategy.first_decision(self.schedule) is not None
        if by_alphas and self.config.averaged_epochs > 1:
            alphas = {kind: self._averaged(kind, table) for kind, table in alphas.items()}
        cut = self.cut(epoch, alphas)
        for kind, table in alphas.items():
            made, self.decisions[kind] = score_epoch(self._view(epoch, kind, table), self.strategy)
            records.extend(made)
            self.evidence |= {
                self._name_of(kind, record.edge): record.evidence
                for record in made
                if record.edge is not None
            }
            self.history[kind] = extend_history(self.history[kind], table, self.config.history_size)
        news = tuple(self._in_words(record) for record in records if record.edge is not None)
        return records, self._genotype(cut, epoch=epoch), news

    def _view(self, epoch: int, kind: str, alphas: Tensor) -> EpochView:
        """What the strategy sees of a kind of cell."""
        return EpochView(
            epoch,
            kind,
            alphas,
            self.history[kind],
            self.decisions[kind],
            self.space.operations,
            self.schedule,
            self.seed,
            self.errors[kind],
            self.costs,
        )

    def genotype(self) -> Genotype:
        """The genotype of a search that has decided every edge."""
        return self._genotype(self.decisions)

    def _genotype(self, cells: Mapping[str, CellDecisions], **more: Any) -> Genotype:
        """The genotype of complete cells, with notes on where it comes from.

        `without_evidence` names the edges whose operation is not told from chance, decided or not.
        """
        final = all(cell.complete for cell in self.decisions.values())
        told = {name for name, evidence in self.evidence.items() if is_enough(evidence)}
        kept = [
            self._name_of(kind, edge)
            for kind, cell in cells.items()
            for edge in cell.with_status(Status.DECIDED)
        ]
        weak = [name for name in kept if name not in told]
        notes = {**self.notes, **more, "final": final, "without_evidence": weak}
        return genotype_of(self.space, cells, **notes)

    def _name_of(self, kind: str, edge: int) -> str:
        """An edge in words, with the kind of its cell where there are several."""
        name = self.topology.edge_name(self.topology.edges[edge])
        return f"{kind} cell: {name}" if len(self.space.cell_kinds) > 1 else name

    def _in_words(self, record: EpochRecord) -> str:
        """A decision in one line."""
        assert record.edge is not None
        edges, name, rival = self.topology.edges, self.topology.edge_name, ""
        if record.runner_up is not None:
            score = record.score[record.runner_up]
            rival = f", runner-up {name(edges[record.runner_up])} {score:.3f}"
        edge, score = self._name_of(record.cell, record.edge), record.score[record.edge]
        return f"{edge} = {record.op}, {in_words(record.evidence)}; score {score:.3f}{rival}"

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the cells."""
        return {
            "decisions": {kind: cell.to_strings() for kind, cell in self.decisions.items()},
            "history": dict(self.history),
            "errors": dict(self.errors),
            "recent": dict(self.recent),
            "evidence": msgspec.to_builtins(self.evidence),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.decisions = {
            kind: CellDecisions.from_strings(self.topology, texts)
            for kind, texts in state["decisions"].items()
        }
        self.history = dict(state["history"])
        self.errors = dict(state.get("errors", self.errors))
        self.recent = dict(state.get("recent", {}))
        self.evidence = msgspec.convert(state.get("evidence", {}), dict[str, Evidence | None])
