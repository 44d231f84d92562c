"""A control on permuted labels and two half-searches stand beside a search, runs of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import command
from small_searches import SPACES, task_of
from toy_family import QUICK_WORDS, SPACE

from sgas.cells.genotype import CellGene, EdgeGene, Genotype
from sgas.data import in_order
from sgas.protocols import search_parts
from sgas.running.companions import agreement
from sgas.running.runs import read_genotype

CPU = torch.device("cpu")


@pytest.mark.parametrize("space", SPACES)
def test_labels_are_permuted_within_each_part_and_inputs_stay(space: str) -> None:
    parts, again = (
        search_parts(task_of(space), "clean", 0, 0.1, CPU, "permuted_labels") for _ in range(2)
    )
    true = search_parts(task_of(space), "clean", 0, 0.1, CPU)
    for name in ("weights", "alphas"):
        part, same, own = getattr(parts, name), getattr(again, name), getattr(true, name)
        (index,) = in_order(len(own), len(own), own.index_device)
        inputs, targets = part.batch(index, None)
        expected, before = own.batch(index, None)
        if torch.is_tensor(inputs):
            assert torch.equal(inputs, expected)
        assert torch.equal(targets, same.batch(index, None)[1]) and not torch.equal(targets, before)
        rows, rows_before = (
            sorted(t.flatten(1).tolist() if t.ndim > 1 else t.tolist()) for t in (targets, before)
        )
        assert rows == rows_before
    assert type(parts.validation) is type(true.validation)


def cell(*edges: tuple[str, int]) -> Genotype:
    gene = CellGene(tuple(EdgeGene(*edge) for edge in edges), (2, 3))
    return Genotype(1, "toy", {"normal": gene})


def test_agreement_counts_edges_with_their_operation() -> None:
    one = cell(("linear", 0), ("skip", 1), ("gate", 2), ("tanh", 0))
    other = cell(("linear", 0), ("tanh", 1), ("tanh", 0), ("gate", 1))
    assert agreement(one, one, SPACE)[:2] == (4, 4)
    shared, total, by_lot = agreement(one, other, SPACE)
    assert (shared, total) == (2, 4)
    # Two of two edges and two of three, of 4 operations each.
    assert by_lot == pytest.approx(2 / 4 + 3 * (2 / 3) ** 2 / 4)


def test_companions_are_runs_that_go_on_and_are_told(tmp_path: Path) -> None:
    words = ["search", *QUICK_WORDS, "--control=permuted_labels", "--halves=true", "--out=run"]
    folders = [tmp_path / name for name in ("killed", "alone")]
    for folder in folders:
        folder.mkdir()
    assert command(words, folders[0], TOY_SIGNAL="SIGKILL@40").status == -9
    again = ["search", "--resume", "run"]
    ended = command(again, folders[0], TOY_SIGNAL="SIGKILL@30")  # more than are left
    assert ended.status == -9 and not (folders[0] / "run" / "control" / "report.html").exists()
    assert (folders[0] / "run" / "report.html").exists()
    ended = command(again, folders[0])
    assert ended.status == 0, ended.err
    assert command(words, folders[1]).status == 0
    for name in ("control", "half-1", "half-2"):
        texts = [(folder / "run" / name / "decisions.jsonl").read_text() for folder in folders]
        assert texts[0] == texts[1]
    assert read_genotype(folders[0] / "run" / "control").meta["sees"] == "permuted_labels"
    for said in ("on permuted labels: ", "edges that agree: "):
        assert said in ended.err and said in (folders[0] / "run" / "log.txt").read_text()
    page = (folders[0] / "run" / "report.html").read_text()
    assert "on permuted labels" in page and "edges that agree" in page
    assert command(["replay", "run/control"], folders[0]).status == 0


def test_halves_are_of_protocol_clean(tmp_path: Path) -> None:
    words = ["search", *QUICK_WORDS, "--halves=true", "--protocol=paper"]
    assert command(words, tmp_path).is_refused("halves are of protocol clean")
    assert not (tmp_path / "runs").exists()
