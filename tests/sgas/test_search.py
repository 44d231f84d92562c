"""The search loop on the toy family: what it may see, what moves, what a decision frees."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from small_models import SPACES
from toy_family import ToyCell, ToyDataConfig, ToyModelConfig, ToyTask
from toy_searches import CPU, loop_of, make

from sgas.cells.decisions import CellDecisions, Choice
from sgas.config import STRATEGIES, RunConfig, SearchConfig, TrainConfig
from sgas.errors import RunError, SgasError
from sgas.protocols import train_parts
from sgas.running.optimizers import AlphaOptimizer
from sgas.running.paths import measure_effects, paths
from sgas.running.runs import Run, RunFacts, read_records
from sgas.running.train import Training


def make_training() -> Training:
    task = ToyTask(RunConfig(dataset="blobs"), ToyModelConfig(), ToyDataConfig())
    parts = train_parts(task, "clean", 0, 0.1, CPU)
    genotype, config = SPACES["toy"].genotype(0), TrainConfig(batch_size=16, epochs=1)
    return Training(task, genotype, config, parts=parts, seed=0, device=CPU)


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_ends_with_a_complete_cell(tmp_path: Path, strategy: str) -> None:
    search = make(strategy=strategy)
    loop = loop_of(search, tmp_path)
    loop.execute()
    genotype = search.genotype()
    genotype.validate(search.space)
    assert genotype.meta["final"] is True
    assert search.task.opened == ["train"]
    records = read_records(tmp_path / "run")
    assert {record.cell for record in records} == {"normal", "reduce"}
    assert len(loop.run.metrics) == search.num_epochs
    # What is left are the chosen operations alone.
    cells = [part for part in search.network.modules() if isinstance(part, ToyCell)]
    held = [len(edge) for cell in cells for edge in cell.edges]
    assert sorted(filter(None, held)) == [1] * 8


def test_alpha_step_leaves_weights_and_weight_step_leaves_alphas() -> None:
    search = make()
    batch = search.parts.weights.batch(torch.arange(16), None)

    def copies() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        weights = [p.detach().clone() for p in search.network.weights()]
        return weights, [p.detach().clone() for p in search.network.alphas.values()]

    weights, alphas = copies()
    search.alpha_step(*batch)
    after_weights, after_alphas = copies()
    assert all(map(torch.equal, weights, after_weights))
    assert not any(map(torch.equal, alphas, after_alphas))
    assert all(p.grad is None for p in search.network.weights())
    search.weight_step(*batch)
    last_weights, last_alphas = copies()
    assert all(map(torch.equal, after_alphas, last_alphas))
    assert not any(map(torch.equal, after_weights, last_weights))


def test_the_alpha_step_is_adam_with_weight_decay_on_open_edges() -> None:
    torch.manual_seed(0)
    alpha = torch.nn.Parameter(torch.randn(5, 4))
    twin = torch.nn.Parameter(alpha.detach().clone())
    config = SearchConfig(alpha_learning_rate=0.1, alpha_weight_decay=0.2)
    ours = AlphaOptimizer({"normal": alpha}, config)
    reference = torch.optim.Adam([twin], lr=0.1, betas=(0.5, 0.999), weight_decay=0.2)
    topology = ToyTask(
        RunConfig(dataset="blobs"), ToyModelConfig(), ToyDataConfig()
    ).space.topology(2)
    for turn in range(6):
        if turn == 3:
            cell = CellDecisions.none_yet(topology).decide(Choice(1, "skip"))
            ours.close({"normal": cell})
            frozen = alpha[1].detach().clone()
        gradient = torch.randn(5, 4)
        if turn >= 3:
            gradient[1] = math.inf  # what a closed edge gets counts for nothing
        ours.step((gradient,))
        twin.grad = gradient
        reference.step()
        for edge in (0, 2, 3, 4):
            torch.testing.assert_close(alpha[edge], twin[edge])
    assert torch.equal(alpha[1], frozen) and not torch.equal(twin[1], frozen)
    assert not ours.adam.state[alpha]["exp_avg"][1].any()
    assert not ours.adam.state[alpha]["exp_avg_sq"][1].any()


def test_remedies_are_their_formulas_in_the_loss_of_the_alphas() -> None:
    plain, mended = make(), make(beta_decay=0.5, skip_penalty=2.0)
    batch = plain.parts.weights.batch(torch.arange(16), None)
    found = []
    for search in (plain, mended):
        search.network.eval()  # without dropout
        search.ramp.fill_(0.3)
        search.alpha_optimizer.step = lambda gradients: found.append(gradients)
        search.alpha_step(*batch)
    alphas = list(mended.network.alphas.values())
    both = torch.cat(alphas)
    wanted = 0.5 * 0.3 * torch.logsumexp(both, -1).mean() + 2 * torch.softmax(both, -1)[:, 1].mean()
    for less, more, own in zip(*found, torch.autograd.grad(wanted, alphas), strict=True):
        torch.testing.assert_close(more - less, own)


def test_probabilities_are_averaged_over_the_last_epochs() -> None:
    search = make(averaged_epochs=2)
    tables = torch.randn(3, *search.network.alphas["normal"].shape, dtype=torch.float64)
    for epoch, table in enumerate(tables):
        records, _, _ = search.cells.decide(epoch, dict.fromkeys(search.decisions, table))
    found = torch.softmax(torch.tensor(records[0].alphas, dtype=torch.float64), -1)
    torch.testing.assert_close(found, torch.softmax(tables[1:], -1).mean(0))


@pytest.mark.parametrize("strategy", ["cri2", "effects", "darts", "halving"])
def test_patience_ends_with_a_complete_cell(tmp_path: Path, strategy: str) -> None:
    search = make(strategy=strategy, patience=1)
    loop_of(search, tmp_path).execute()
    assert search.genotype().meta["final"] is True
    assert all(record.costs[0] == 0 for record in read_records(tmp_path / "run"))


def test_a_decision_frees_optimiser_state_and_keeps_momentum() -> None:
    search = make()
    batch = search.parts.weights.batch(torch.arange(16), None)
    search.weight_step(*batch)
    before = {
        id(p): (p, search.weight_optimizer.state[p]["momentum_buffer"].clone())
        for p in search.network.weights()
    }
    cell = search.decisions["normal"].decide(Choice(0, "linear")).decide(Choice(1, "skip"))
    search.decisions["normal"] = cell
    search.prune()
    left = search.network.weights()
    assert len(left) < len(before)
    assert {id(p) for p in left} <= before.keys()
    assert set(search.weight_optimizer.state) == set(left)
    grouped = [p for group in search.weight_optimizer.param_groups for p in group["params"]]
    assert [id(p) for p in grouped] == [id(p) for p in left]
    for p in left:
        kept = search.weight_optimizer.state[p]["momentum_buffer"]
        assert torch.equal(kept, before[id(p)][1])
    search.alpha_step(*batch)
    search.weight_step(*batch)


def test_batches_grow_with_decisions(tmp_path: Path) -> None:
    loop = loop_of(make(batch_increase=3), tmp_path)
    loop.execute()
    sizes = [line["batch_size"] for line in loop.run.metrics]
    assert sizes == [16, 16, 19, 22, 25, 28][: len(sizes)]


def test_the_genotype_is_valid_at_every_epoch(tmp_path: Path) -> None:
    search = make()
    seen = []

    class Reader:
        def started(self, first_epoch: int, costs: list[float]) -> None:
            assert len(costs) == search.schedule.num_epochs

        def stepped(self, epoch: int, step: int, num_batches: int) -> None: ...

        def epoch_ended(self, epoch: int, metrics: dict, news: tuple[str, ...]) -> None:
            from sgas.running.runs import read_genotype

            seen.append(read_genotype(tmp_path / "run").validate(search.space).meta["epoch"])

    loop_of(search, tmp_path, Reader()).execute()
    assert seen == list(range(search.schedule.num_epochs))


def test_a_loss_that_is_no_number_ends_the_search(tmp_path: Path) -> None:
    loop = loop_of(make(learning_rate=1e30, grad_clip=1e30), tmp_path)
    with pytest.raises(SgasError, match="training diverged; lower learning_rate"):
        loop.execute()


@pytest.mark.parametrize("verb", ["search", "train"])
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (math.nan, "the loss is nan in epoch 1: training diverged"),
        (0.5, "left the range of numbers in epoch 1: training diverged"),
    ],
)
def test_a_network_that_gives_no_numbers_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, loss: float, message: str
) -> None:
    """As after a last update that breaks the network."""

    def measure(network: torch.nn.Module, *_: object) -> dict[str, float]:
        next(network.parameters()).data.fill_(math.inf)
        return {"loss": loss, "accuracy": 0.0}

    monkeypatch.setattr("sgas.running.loop.measure", measure)
    loop = loop_of(make() if verb == "search" else make_training(), tmp_path)
    with pytest.raises(SgasError, match=message):
        loop.execute()
    assert loop.run.metrics == []


def test_scores_that_are_no_numbers_are_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make()
    endless = {kind: alphas + math.inf for kind, alphas in search._alphas().items()}
    monkeypatch.setattr(search, "_alphas", lambda: endless)
    loop = loop_of(search, tmp_path)
    with pytest.raises(SgasError, match="alphas of the normal cell left the range of numbers"):
        loop.execute()
    assert loop.run.metrics == loop.run.records == []


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    facts = RunFacts("toy", "search", {}, {}, {}, {}, {}, {})
    run = Run.create(tmp_path / "run", msgspec.to_builtins(facts))
    with pytest.raises(RunError, match="another process"):
        Run.open(tmp_path / "run")
    run.__exit__()
    Run.open(tmp_path / "run").__exit__()


def test_scoring_runs_single_paths_and_leaves_weights_and_chance_alone() -> None:
    search = make(strategy="effects")
    before = [weight.clone() for weight in search.network.weights()]
    state = torch.get_rng_state()
    ran: list[object] = []
    select = search.network.select
    search.network.select = lambda cells: (ran.append(cells), select(cells))[-1]
    found = measure_effects(
        search.network,
        search.captured_steps()[-1],
        search.parts.alphas,
        search.decisions,
        search.space.operations,
        64,
        16,
        0,
        3,
    )
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, before, search.network.weights()))
    assert ran[-1] is None
    assert ran[:-1] == list(
        islice(paths(search.decisions, search.space.operations, 0, "scored", 3), 64)
    )
    for effects in found.values():
        assert effects.gains.shape == effects.errors.shape == (5, 5)
        assert (effects.errors >= 0).all() and effects.gains[:, 1:].all()


def test_effects_train_mixtures_first_and_leave_the_cell_of_now_selected() -> None:
    search = make(strategy="effects", alpha_start_epoch=1)
    ran: list[Any] = []
    select = search.network.select
    search.network.select = lambda cells: (ran.append(cells), select(cells))[-1]
    assert len(list(search.steps(0, 0))) == search.num_batches() and not ran
    assert len(list(search.steps(1, 2))) == search.num_batches() - 2
    dealt = paths(search.decisions, search.space.operations, 0, "trained", 1)
    assert ran[:-1] == list(islice(dealt, 2, search.num_batches()))
    assert ran[-1] == search.cells.cut(1, search._alphas())
