"""Writes study folders as `sweep` leaves them, without a search: genotypes drawn, figures given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgas.cells.genotype import CellGene, EdgeGene, Genotype
from sgas.cells.space import SearchSpace
from sgas.family import Family
from sgas.studies.study import PHASES, Part, State, StudyInfo, change_parts, write_info

Figure = Callable[[str, int], float]


def drawn_genotype(space: SearchSpace, num_steps: int, seed: int, **notes: Any) -> Genotype:
    """A genotype of a space, drawn."""
    draw, topology = np.random.default_rng(seed), space.topology(num_steps)
    cells = {}
    for kind in space.cell_kinds:
        edges = []
        for step in range(num_steps):
            num_sources = topology.state_of(step)
            kept = sorted(draw.choice(num_sources, topology.kept_into(step), replace=False))
            edges += [EdgeGene(str(draw.choice(space.operations[1:])), int(s)) for s in kept]
        cells[kind] = CellGene(tuple(edges), topology.concat)
    return Genotype(1, space.name, cells, notes)


def study_info(**given: Any) -> StudyInfo:
    """What `sweep` writes of a small study of the toy family, or of another with what is given."""
    usual: dict[str, Any] = {
        "format": 1,
        "family": "toy",
        "home": "toy_family",
        "dataset": "blobs",
        "space": "toy",
        "preset": "tiny",
        "protocol": "clean",
        "strategies": ["cri2"],
        "seeds": [0, 1],
        "search": {},
        "train": {},
        "command": "sgas-toy sweep --dataset blobs",
        "environment": {"torch": "2.13.0", "sgas": "0.1", "python": "3.11", "device": "cpu"},
    }
    return StudyInfo(**{**usual, **given})


def write_study(
    folder: Path,
    family: Family,
    test: Figure,
    *,
    validation: Figure = lambda strategy, seed: 0.5,
    strategies: Sequence[str] = ("cri1", "cri2", "random"),
    seeds: Sequence[int] = (0, 1, 2, 3),
    num_steps: int = 3,
    space: str | None = None,
    protocol: str = "clean",
    searched_by: str | None = None,
    metric: str = "accuracy",
    result: dict[str, Any] | None = None,
) -> Path:
    """A study whose parts are all done; `test` and `validation` give the figures in [0, 1].

    `searched_by` is the protocol that the cells name, where it is another than the study's.
    """
    chosen = family.search_space(space or next(iter(family.spaces)))
    folder.mkdir(parents=True)
    of = {"family": family.name, "space": chosen.name, "protocol": protocol}
    command = f"{family.command} sweep --dataset blobs"
    chosen_runs = {"strategies": list(strategies), "seeds": list(seeds)}
    write_info(folder, study_info(**of, **chosen_runs, command=command))
    done, parts = Part(State.DONE), {}
    for place, strategy in enumerate(strategies):
        for seed in seeds:
            entry = folder / f"{strategy}-{seed}"
            genotype = drawn_genotype(
                chosen, num_steps, 100 * place + seed, protocol=searched_by or protocol
            )
            _write_search(entry / "search", genotype, metric, validation(strategy, seed))
            _write_training(entry / "train", metric, test(strategy, seed), seed, result or {})
            parts.update({f"{entry.name}/{phase}": done for phase in PHASES})
    change_parts(folder, parts)
    return folder


def _write_search(run: Path, genotype: Genotype, metric: str, validation: float) -> None:
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "genotype.json").write_text(genotype.to_json())
    line = {"epoch": 0, f"validation_{metric}": validation, "validation_loss": 1.0, "seconds": 61.0}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")


def _write_training(run: Path, metric: str, test: float, seed: int, result: dict[str, Any]) -> None:
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "metrics.jsonl").write_text(json.dumps({"epoch": 0, "seconds": 122.0}) + "\n")
    cost = {"parameters": 1000 + seed, "flops": 2000 + seed}
    (run / "result.json").write_text(json.dumps({**result, **cost}))
    (run / "evaluation.json").write_text(json.dumps({"loss": 0.7, metric: test, "samples": 60}))
