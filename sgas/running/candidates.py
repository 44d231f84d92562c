"""Searches that train complete cells and take the best: what they do in the loop.

Cells are dealt evenly (`sgas.running.paths`) and trained from scratch as networks of the search's
sizes, on the weights' half of the data; each is judged on the alphas' half. Strategy
`random_trained` trains all of them alike (Li and Talwalkar, UAI 2019); `halving` trains all of them
shortly, the better half goes on with its weights for twice as long, and so on (successive halving,
Jamieson and Talwalkar, AISTATS 2016). `predictor` trains all alike too, but deals a third of them
alone: each later one is that of `POOL` dealt cells which those before predict to rank best
(`sgas.deciding.predictor`). All cost the same for the same `num_candidates` and `candidate_epochs`.
With `candidates` the cells are given, as those that several searches found, and none is dealt.

An epoch of the loop is one training of one cell, a turn (`sgas.deciding.schedule`). In the place of
alphas stands what each operation of each edge was worth: the figure of the best cell, less what the
best cell with that operation was behind it when both were last trained alike. So the best cell has
the largest value on each of its edges, and all that reads alphas reads these.
Dimensions: E edges, O candidate operations, N cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import msgspec
import torch
from torch import Tensor

from sgas.cells.decisions import CellDecisions, genotype_of
from sgas.cells.genotype import Genotype
from sgas.cells.space import SearchSpace
from sgas.config import STRATEGIES, SearchConfig, TrainConfig, make
from sgas.data import Source, stream_seed
from sgas.deciding.predictor import predicted_ranks
from sgas.deciding.schedule import turns
from sgas.deciding.strategies.effects import used_by
from sgas.errors import GenotypeError
from sgas.family import Network, Trainable
from sgas.protocols import VALIDATION, SearchParts, TrainParts
from sgas.running.capture import Recorder, Step
from sgas.running.complexity import cost_ranks
from sgas.running.genotype_files import genotypes_in
from sgas.running.loop import EpochEnd, Figures, StepOutput, tallied
from sgas.running.norms import NormStatistics
from sgas.running.paths import Path, paths
from sgas.running.search import Search
from sgas.running.searched import SearchedCells
from sgas.running.train import Training

FOLDS = 10  # parts of which each is left out once, for the standard error of a figure
LEAST = 1e-9  # how far the best cell is ahead of its equals
POOL = 512  # dealt cells that a predictor chooses among


class Judged(msgspec.Struct, frozen=True):
    """What a cell was worth after a turn.

    `figure` on the alphas' half, `folds` the same with each tenth of the samples left out, and the
    reported figures.
    """

    figure: float
    folds: tuple[float, ...]
    reported: dict[str, float]


def error_of(one: Judged, other: Judged) -> float:
    """The standard error of the difference of two figures on the same samples, by the jackknife.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11.
    """
    apart = torch.tensor([a - b for a, b in zip(one.folds, other.folds, strict=True)])
    return float(((FOLDS - 1) * apart.double().var(correction=0)).sqrt())


@dataclass(frozen=True)
class Worth:
    """What each operation of each edge was worth: `gains` and `errors`, float64 `[E, O]`."""

    gains: Tensor
    errors: Tensor


def worth(used: Tensor, judged: list[list[Judged]], best: int) -> Worth:
    """What operations were worth, of `judged` cells that use them: `used` is `[N, E, O]`.

    `judged` has what each cell was worth after each of its turns, `best` is one with most turns.
    -1 where no cell has an operation. `errors` are those of the distance to the best cell.
    """
    top, gains = judged[best], torch.full(used.shape[1:], -1.0, dtype=torch.float64)
    errors = torch.zeros_like(gains)
    for cell, turns_of in enumerate(judged):
        if not turns_of:
            continue
        last, alike = turns_of[-1], top[len(turns_of) - 1]
        behind = 0.0 if cell == best else max(alike.figure - last.figure, LEAST)
        better = (used[cell] > 0) & (top[-1].figure - behind > gains)
        gains[better] = top[-1].figure - behind
        errors[better] = error_of(alike, last)
    return Worth(gains, errors)


def _decided(genotype: Genotype, space: SearchSpace, num_steps: int) -> Path:
    """The cells of a genotype as a search decides them; GenotypeError where it could not."""
    cells = {kind: CellDecisions.of_gene(space, gene) for kind, gene in genotype.cells.items()}
    for kind, gene in genotype.cells.items():
        again, steps = cells[kind].to_gene(), gene.num_steps(space)
        if steps != num_steps:
            raise GenotypeError(
                f"a candidate's {kind} cell has {steps} steps; the cells of this search {num_steps}"
            )
        ops = {edge.op for edge in gene.edges} - set(space.operations[1:])
        if ops or again.concat != gene.concat or len(again.edges) != len(gene.edges):
            why = f"has {sorted(ops)[0]}" if ops else "reads a state twice or outputs other states"
            raise GenotypeError(
                f"a candidate's {kind} cell {why}, which no search decides: leave out "
                f"{genotype.to_text()}"
            )
    return cells


class CandidateSearch:
    """One search among cells that are trained: all of them, the figures so far. A `Body` as well.

    Each training is a `Training`, with a seed of its own, its learning rate a whole cosine.
    """

    verb = "search"
    measured: Mapping[str, Source]

    def __init__(
        self,
        task: Trainable,
        config: SearchConfig,
        *,
        parts: SearchParts,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        recorder: Recorder | None = None,
        notes: Mapping[str, Any],
    ) -> None:
        self.task, self.config, self.parts, self.seed = task, config, parts, seed
        self.labels, self.measured = task.labels, {VALIDATION: parts.validation}
        self.device, self.precision, self.recorder = device, precision, recorder
        self.space = task.space
        self.cells = SearchedCells(task.space, task.num_steps, config, seed, notes)
        if config.patience:
            self.cells.costs = cost_ranks(task)
        self.turns = turns(config)
        self.predicts, count = STRATEGIES[config.strategy].predicts, config.num_candidates
        if config.candidates is None:
            dealt = paths(self.cells.decisions, self.space.operations, seed, "candidates")
            self.candidates = list(islice(dealt, max(count, POOL) if self.predicts else count))
        else:
            given = genotypes_in(config.candidates, self.space)
            self.candidates = [_decided(genotype, self.space, task.num_steps) for genotype in given]
        self.used = {kind: self._used(kind) for kind in self.space.cell_kinds}
        self.judged: list[list[Judged]] = [[] for _ in self.candidates]
        first = max(2, count // 3) if self.predicts else count
        self.going_on = list(range(first))  # in this round; of later rounds the best first
        self.weights: dict[int, dict[str, Tensor]] = {}  # of cells that may go on
        self.place = 0
        self.training = self._training()

    @property
    def network(self) -> Network:
        """The network that is trained, or was last."""
        return self.training.network

    @property
    def statistics(self) -> NormStatistics:
        """What takes the statistics of that network's norms."""
        return self.training.statistics

    @property
    def num_epochs(self) -> int:
        """Turns."""
        return len(self.turns)

    @property
    def batch_size(self) -> int:
        """Samples a batch."""
        return self.config.batch_size

    def costs(self) -> list[float]:
        """Shares of the work: the epochs of each turn."""
        return [float(turn.epochs) for turn in self.turns]

    def num_batches(self) -> int:
        """Batches of the turn that begins now."""
        return self.turns[self.place].epochs * self.training.num_batches()

    def _training(self) -> Training:
        """The training of the turn at `place`, from where the cell's last one ended."""
        turn, config = self.turns[self.place], self.config
        number = self.going_on[turn.index]
        own = {**asdict(config), "epochs": turn.epochs, "drop_path": 0.0}
        train = make(TrainConfig, own)  # the rest as the search has it
        training = Training(
            self.task,
            self._genotype_of(number),
            train,
            parts=TrainParts(self.parts.weights, {}),
            seed=stream_seed(self.seed, "candidate", number, turn.round),
            device=self.device,
            precision=self.precision,
            recorder=self.recorder,
        )
        if number in self.weights:
            training.network.load_state_dict(self.weights[number])
        return training

    def _genotype_of(self, number: int) -> Genotype:
        return genotype_of(self.space, self.candidates[number])

    def steps(self, epoch: int, first: int) -> Iterator[StepOutput | None]:
        """The steps of one cell's training; those of its last epoch count in the figures."""
        if first == 0:
            self.training = self._training()
        whole, rest = divmod(first, self.training.num_batches())
        last = self.turns[epoch].epochs - 1
        for of_training in range(whole, last + 1):
            for output in self.training.steps(of_training, rest):
                yield output if of_training == last else None
            rest = 0

    def evaluation(self) -> Step:
        """The evaluation step of the network that is trained."""
        return self.training.evaluation()

    def release(self) -> None:
        """Lets go of captured steps."""
        self.training.release()

    def end_epoch(self, epoch: int, figures: Figures) -> EpochEnd:
        """Judges the cell, lets the better go on after a round, decides after the last."""
        turn = self.turns[epoch]
        number = self.going_on[turn.index]
        own = self._judge(figures[VALIDATION])
        self.judged[number].append(own)
        best = max(self.going_on, key=self._rank)
        later = [next_turn for next_turn in self.turns if next_turn.round == turn.round + 1]
        if later:
            network = self.training.network.state_dict()
            self.weights[number] = {name: value.clone() for name, value in network.items()}
        found = self.cells.decide(epoch, self._worth(best))
        metric = self.labels.primary_metric
        state = {
            "learning_rate": self.config.learning_rate,
            "batch_size": self.batch_size,
            "decided": self.cells.num_decided,
            "candidate": number,
            "round": turn.round,
            f"alphas_{metric}": own.figure,
            **{f"{VALIDATION}_{k}": v for k, v in self.judged[best][-1].reported.items()},
        }
        self.place = epoch + 1
        if self.predicts and turn.index + 1 == len(self.going_on) < self.config.num_candidates:
            self.going_on.append(self._proposed())
        if later and turn.index == len(self.going_on) - 1:
            self.going_on = sorted(self.going_on, key=self._rank, reverse=True)[: len(later)]
            self.weights = {n: self.weights[n] for n in self.going_on}
        return EpochEnd(state, *found)

    def _rank(self, number: int) -> tuple[float, ...]:
        """What a cell is compared by: its turns, then its figure; the earlier one on a tie."""
        judged = self.judged[number]
        return len(judged), judged[-1].figure if judged else 0.0, -number

    def _proposed(self) -> int:
        """The cell that is predicted to rank best of those not trained yet."""
        trained = [number for number, turns_of in enumerate(self.judged) if turns_of]
        figures = torch.tensor([self.judged[n][-1].figure for n in trained], dtype=torch.float64)
        used = torch.stack(list(self.used.values()), 1)
        predicted = predicted_ranks(figures, used[trained], used)
        predicted[trained] = -torch.inf
        return int(predicted.argmax())

    def _judge(self, reported: Mapping[str, float]) -> Judged:
        """What the network that was trained is worth on the alphas' half."""
        metric, tally = self.labels.primary_metric, self._tally(self.parts.alphas)
        predictions, targets = torch.cat(tally.predictions), torch.cat(tally.targets)
        fold = torch.arange(len(targets), device=targets.device) % FOLDS
        folds = (
            self.labels.metrics(predictions[fold != part], targets[fold != part])[metric]
            for part in range(FOLDS)
        )
        return Judged(tally.figures(self.labels)[metric], tuple(folds), dict(reported))

    def _tally(self, source: Source) -> Any:
        where = source, self.batch_size, self.device, self.precision, self.evaluation()
        return tallied(self.network, self.labels, *where)

    def _worth(self, best: int) -> dict[str, Tensor]:
        """The table of each kind of cell; keeps its errors."""
        gains = {}
        for kind in self.space.cell_kinds:
            found = worth(self.used[kind], self.judged, best)
            gains[kind], self.cells.errors[kind] = found.gains, found.errors
        return gains

    def _used(self, kind: str) -> Tensor:
        """Which operations each candidate uses in a kind of cell: `[N, E, O]`."""
        cells = [used_by(candidate[kind], self.space.operations) for candidate in self.candidates]
        return torch.stack(cells)

    def genotype(self) -> Genotype:
        """The genotype of the best cell, once all turns are over."""
        return self.cells.genotype()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the search."""
        return {
            **self.cells.state(),
            "place": self.place,
            "judged": msgspec.to_builtins(self.judged),
            "going_on": list(self.going_on),
            "weights": self.weights,
            "training": self.training.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.cells.restore(state)
        self.judged = msgspec.convert(state["judged"], list[list[Judged]])
        self.going_on, self.weights = list(state["going_on"]), dict(state["weights"])
        self.place = state["place"]
        if self.place < len(self.turns):  # else there is nothing left to train
            self.training = self._training()
            if state["step"]:
                self.training.restore(state["training"])


def open_search(task: Trainable, config: SearchConfig, **more: Any) -> Search | CandidateSearch:
    """The search of a strategy: of a supernet, or among cells that are trained."""
    if STRATEGIES[config.strategy].keeps is None:
        return Search(task, config, **more)
    return CandidateSearch(task, config, **more)
