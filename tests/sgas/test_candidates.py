"""Searches among trained cells: the best one is taken, and the better half goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from toy_family import FAMILY, QUICK, SPACE
from toy_searches import loop_of, make

from sgas.cells.decisions import CellDecisions, genotype_of
from sgas.cells.genotype import Genotype
from sgas.cli import main
from sgas.config import SearchConfig
from sgas.deciding.predictor import predicted_ranks
from sgas.deciding.schedule import turns
from sgas.errors import ConfigError, GenotypeError, InputError
from sgas.interface import search
from sgas.running.candidates import Judged, error_of, worth
from sgas.running.run_results import SearchResult
from sgas.running.runs import read_config, read_records


def judged(figure: float) -> Judged:
    return Judged(figure, (figure,) * 10, {})


def test_both_strategies_cost_the_same() -> None:
    config = {"num_candidates": 16, "candidate_epochs": 12}
    alike = turns(SearchConfig(strategy="random_trained", **config))
    assert [turn.epochs for turn in alike] == [12] * 16
    halves = turns(SearchConfig(strategy="halving", **config))
    rounds = [[turn.epochs for turn in halves if turn.round == number] for number in range(4)]
    assert rounds == [[3] * 16, [6] * 8, [12] * 4, [24] * 2]
    assert turns(SearchConfig(strategy="cri2", **config)) == ()


def test_the_error_of_a_difference_is_that_of_the_textbook() -> None:
    """Of a mean of tens of samples, the jackknife is the standard error of their means."""
    draw = torch.Generator().manual_seed(0)
    right, other = torch.rand(2, 10, generator=draw, dtype=torch.float64)

    def of(means: torch.Tensor) -> Judged:
        folds = tuple(float((means.sum() - mean) / 9) for mean in means)
        return Judged(float(means.mean()), folds, {})

    wanted = (right - other).std() / 10**0.5
    assert error_of(of(right), of(other)) == pytest.approx(float(wanted))


def test_operations_are_worth_what_their_best_cell_was_when_trained_alike() -> None:
    # Three cells of two edges; cell 2 was best in the first round of two, cell 1 in the second.
    used = torch.zeros(3, 2, 4, dtype=torch.float64)
    for cell, ops in enumerate([(1, 1), (2, 1), (2, 2)]):
        for edge, op in enumerate(ops):
            used[cell, edge, op] = 1
    rounds = [[judged(0.5)], [judged(0.6), judged(0.9)], [judged(0.7), judged(0.8)]]
    found = worth(used, rounds, best=1).gains
    wanted = [[-1, 0.8, 0.9, -1], [-1, 0.9, 0.8, -1]]  # cell 0 was .1 behind cell 1
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    equal = worth(used, [[judged(0.5)]] * 3, best=1).gains
    assert equal[0].argmax() == 2 and equal[1].argmax() == 1


@pytest.mark.parametrize("strategy", ["random_trained", "halving", "predictor"])
def test_the_best_cell_of_the_last_round_is_found(tmp_path: Path, strategy: str) -> None:
    search: Any = make(strategy=strategy, num_candidates=8, candidate_epochs=3)
    loop = loop_of(search, tmp_path)
    loop.execute()
    lines = loop.run.metrics
    last = [line for line in lines if line["round"] == lines[-1]["round"]]
    best = max(last, key=lambda line: line["alphas_accuracy"])
    cells = search.candidates[best["candidate"]]
    assert search.genotype().cells == genotype_of(search.space, cells).cells
    assert (
        lines[-1]["validation_accuracy"]
        == search.judged[best["candidate"]][-1].reported["accuracy"]
    )
    rounds = [[line["candidate"] for line in lines if line["round"] == n] for n in range(3)]
    if strategy == "halving":
        assert [*map(len, rounds)] == [8, 4, 2]
        first = sorted(lines[:8], key=lambda line: -line["alphas_accuracy"])
        assert rounds[1] == [line["candidate"] for line in first[:4]]
    decided = [record for record in read_records(tmp_path / "run") if record.edge is not None]
    assert {record.epoch for record in decided} == {len(lines) - 1}
    for record in decided:
        assert record.evidence is not None and record.errors is not None
        others = [gain for op, gain in enumerate(record.alphas[record.edge][1:], 1)]
        others.remove(max(others))
        assert record.evidence.margin == pytest.approx(best["alphas_accuracy"] - max(others))


def test_predicted_ranks_are_those_of_ridge_regression() -> None:
    draw = torch.Generator().manual_seed(0)
    used = torch.rand(9, 2, 3, 4, generator=draw, dtype=torch.float64).round()
    figures = torch.tensor([3.0, 1, 2, 2, 9, 5, 5, 5, 0])
    ranks = torch.tensor([6.0, 2, 3.5, 3.5, 9, 7, 7, 7, 1], dtype=torch.float64)[:, None] / 9
    ranks[5:8] = (6 + 7 + 8) / 3 / 9
    ranks[0] = 5 / 9
    counts = [used[:, kind, :, op].sum(1) for kind in range(2) for op in range(4)]
    x = torch.cat([torch.stack(counts, 1), 0.3 * used.flatten(1)], 1)
    x = x - x.mean(0)
    effects = torch.linalg.solve(x.t() @ x + torch.eye(32), x.t() @ (ranks - ranks.mean()))
    wanted = ranks.mean() + x @ effects
    torch.testing.assert_close(predicted_ranks(figures, used, used), wanted[:, 0])


def test_an_operation_may_do_in_one_kind_of_cell_what_it_does_not_in_another() -> None:
    draw = torch.Generator().manual_seed(0)
    one_hot = torch.eye(3, dtype=torch.float64)
    used = one_hot[torch.randint(3, (60, 2, 5), generator=draw)]
    counts = used.sum(2)
    figures = counts[:, 1, 0] - counts[:, 0, 0]  # good in the second kind, bad in the first
    predicted = predicted_ranks(figures[:30], used[:30], used[30:])
    assert torch.corrcoef(torch.stack([predicted, figures[30:]]))[0, 1] > 0.9


def test_a_predictor_proposes_cells(tmp_path: Path) -> None:
    search: Any = make(strategy="predictor", num_candidates=9, candidate_epochs=1)
    dealt: Any = make(strategy="random_trained", num_candidates=9, candidate_epochs=1)
    assert search.candidates[:9] == dealt.candidates
    loop = loop_of(search, tmp_path)
    loop.execute()
    numbers = [line["candidate"] for line in loop.run.metrics]
    assert numbers[:3] == [0, 1, 2] and len(set(numbers)) == 9
    used = torch.stack([search.used[kind] for kind in search.space.cell_kinds], 1)
    figures = torch.tensor([line["alphas_accuracy"] for line in loop.run.metrics]).double()
    for count in range(3, 9):
        seen = numbers[:count]
        predicted = predicted_ranks(figures[:count], used[seen], used)
        predicted[seen] = -1e9
        assert numbers[count] == int(predicted.argmax())


def test_a_cell_goes_on_with_its_weights() -> None:
    search: Any = make(strategy="halving", num_candidates=4, candidate_epochs=2)
    ended = {}
    for epoch, turn in enumerate(search.turns):
        steps = search.steps(epoch, 0)
        number = search.going_on[turn.index]
        if turn.round:
            fresh = search._training().network.state_dict()
            assert all(torch.equal(fresh[name], ended[number][name]) for name in fresh)
        assert len(list(steps)) == search.num_batches()
        ended[number] = {n: w.clone() for n, w in search.network.state_dict().items()}
        search.end_epoch(epoch, {"validation": {"loss": 0.0, "accuracy": 0.0}})


@pytest.fixture
def found(here: Path) -> list[SearchResult]:
    """What random searches of three seeds found."""
    return [search(FAMILY, strategy="random", seed=n, quiet=True, **QUICK) for n in range(3)]


def chosen(given: Any, **options: Any) -> SearchResult:
    asked = {"strategy": "random_trained", "candidate_epochs": 1, "batch_size": 16, **options}
    return search(FAMILY, candidates=given, quiet=True, **asked)


def test_the_best_of_given_cells_is_taken_however_they_are_given(
    found: list[SearchResult],
) -> None:
    first = chosen([*found, found[0].genotype])
    lines = first.history
    assert len(lines) == 3  # a cell that is given twice is one
    best = max(lines, key=lambda line: line["alphas_accuracy"])["candidate"]
    assert first.genotype.cells == found[best].genotype.cells
    assert first.genotype.meta["among"] == ["cell searched on blobs (protocol clean)"]
    assert first.genotype.meta["protocol"] == "clean"
    names = ",".join(str(one.folder) for one in found)
    of_names = chosen(names, out="names")
    assert of_names.genotype == first.genotype
    for one in found:
        shutil.rmtree(one.folder)
    assert main(FAMILY, ["search", "--resume", "names"]) == 0  # the run has its cells itself


def test_what_is_chosen_among_cells_of_the_paper_is_called_so(found: list[SearchResult]) -> None:
    paper = search(FAMILY, strategy="random", seed=7, protocol="paper", quiet=True, **QUICK)
    notes = chosen([found[0], paper]).genotype.meta
    assert notes["protocol"] == "paper" and "alphas_on" not in notes  # its own saw no test split
    assert any("with its test split (protocol paper)" in words for words in notes["among"])
    meta = {**found[1].genotype.meta, "protocol": "paper"}
    same = msgspec.structs.replace(found[1].genotype, meta=meta)  # of two origins, the worse counts
    for given in ([found[1].genotype, same, found[0]], [same, found[1].genotype, found[0]]):
        searched = chosen(given)
        assert searched.genotype.meta["protocol"] == "paper"
        assert "protocol paper" in repr(searched)
        assert "protocol paper" in str(read_config(searched.folder)["parts"])
    text = found[1].genotype.to_text()  # says nothing of its origin
    notes = chosen([found[0], Genotype.from_text(text, "toy")]).genotype.meta
    assert notes["protocol"] == "unknown"


def test_cells_that_cannot_be_chosen_among_are_refused(found: list[SearchResult]) -> None:
    for options, said in [
        ({"strategy": "cri2"}, "candidates are given, which strategy cri2 does not train"),
        ({"strategy": "predictor"}, "strategy predictor does not train"),
        ({"num_candidates": 8}, "num_candidates is 8, and 3 candidates that differ are given"),
    ]:
        with pytest.raises(ConfigError, match=said):
            chosen(found, **options)
    with pytest.raises(ConfigError, match="candidates are 1 cell; a search chooses among 2"):
        chosen([found[0], found[0].genotype])
    with pytest.raises(GenotypeError, match="unknown genotype 'nobody'"):
        chosen("nobody,else")
    for odd in (5, found[0], found[0].folder, found[0].genotype, " , "):
        with pytest.raises(InputError, match=r"candidates are (of type int|1 cell|no cell)"):
            chosen(odd)
    with pytest.raises(ConfigError, match="num_candidates= takes a whole number"):
        chosen(found, num_candidates="x")
    with pytest.raises(GenotypeError, match="genotype format is 9"):
        text = found[0].genotype.to_json().replace('"format": 1', '"format": 9')
        chosen(f"[{text}, {text}]")
    with pytest.raises(GenotypeError, match="not a list of genotypes"):
        chosen("[1")
    with pytest.raises(GenotypeError, match=r"cell has 2 steps; the cells of this search 3"):
        chosen(found, num_steps=3)
    gene = found[0].genotype.cells["normal"]
    twice = (gene.edges[0], msgspec.structs.replace(gene.edges[1], source=gene.edges[0].source))
    genes = {"normal": msgspec.structs.replace(gene, edges=(*twice, *gene.edges[2:]))}
    odd = msgspec.structs.replace(found[0].genotype, cells=found[0].genotype.cells | genes)
    with pytest.raises(GenotypeError, match="normal cell reads a state twice"):
        chosen([found[1], odd])


def test_a_cell_is_decided_as_its_genotype_lists_it(found: list[SearchResult]) -> None:
    for one in found:
        for gene in one.genotype.cells.values():
            assert CellDecisions.of_gene(SPACE, gene).to_gene() == gene
