"""Searches that stand beside a search, to say how much it knows: a control, and two halves.

`control` is the same search on permuted labels: what has evidence there has it by chance, or by
what operations are worth without any data. `halves` are two searches on disjoint halves of the
training parts: what depends on the sample differs between them. Each is a run of its own inside the
run, goes on where it stopped, and can be shown and replayed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import FIRST_HALF, NO_CONTROL, SECOND_HALF, SearchConfig
from sgas.deciding.evidence import ENOUGH, is_enough
from sgas.reports.html import Fact
from sgas.running.genotype_files import genotypes_in
from sgas.running.runs import is_run, read_config, read_genotype, read_records

CONTROL, HALVES = "control", ("half-1", "half-2")


def companions(config: SearchConfig) -> dict[str, SearchConfig]:
    """The searches that stand beside one, by the folders that they have in its run."""
    sees = {} if config.control == NO_CONTROL else {CONTROL: config.control}
    if config.halves:
        sees |= dict(zip(HALVES, (FIRST_HALF, SECOND_HALF), strict=True))
    alone = dataclasses.replace(config, control=NO_CONTROL, halves=False)
    return {name: dataclasses.replace(alone, sees=what) for name, what in sees.items()}


def agreement(one: Genotype, other: Genotype, space: SearchSpace) -> tuple[int, int, float]:
    """Kept edges with their operation that two genotypes share, of how many, and by lot how many.

    By lot: the mean of pairs of cells whose edges and operations are drawn evenly.
    """
    shared, total, by_lot = 0, 0, 0.0
    for kind, cell in one.cells.items():
        topology = space.topology(cell.num_steps(space))
        steps = zip(cell.edges_by_step(space), other.cells[kind].edges_by_step(space), strict=True)
        for step, (ours, theirs) in enumerate(steps):
            shared, total = shared + len({*ours} & {*theirs}), total + len(ours)
            choices = len(topology.edges_into(step)) * (len(space.operations) - 1)
            by_lot += len(ours) ** 2 / choices
    return shared, total, by_lot


def what_is_known(folder: Path, space: SearchSpace) -> list[Fact]:
    """How far the decisions of a search stand out of the noise, with its companions beside it."""
    facts = [Fact("decisions with evidence", _evidence(folder), f"z above {ENOUGH:g}")]
    if _has_decided(folder / CONTROL):
        facts.append(Fact("on permuted labels", _evidence(folder / CONTROL), "the same search"))
    halves = [folder / name for name in HALVES]
    if all(map(_has_decided, halves)):
        one, other = map(read_genotype, halves)
        shared, total, by_lot = agreement(one, other, space)
        given = read_config(folder)["loop"].get("candidates")
        if given:  # what two draws of these share
            cells = genotypes_in(given, space)
            pairs = [agreement(a, b, space)[0] for a in cells for b in cells]
            by_lot = sum(pairs) / len(pairs)
        note = f"two halves of the data; two cells by lot: {by_lot:.1f}"
        facts.append(Fact("edges that agree", f"{shared} of {total}", note))
    return facts


def _has_decided(folder: Path) -> bool:
    return is_run(folder) and bool(read_genotype(folder).meta["final"])


def _evidence(folder: Path) -> str:
    decided = [record for record in read_records(folder) if record.edge is not None]
    return f"{sum(is_enough(record.evidence) for record in decided)} of {len(decided)}"
