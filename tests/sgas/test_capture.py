"""Steps that are captured and replayed compute what steps that run compute, to the last bit.

On the CPU a tape stands for CUDA graphs. With a GPU the tests run again, there, with the graphs.
"""

from __future__ import annotations

import os
import signal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sampling import some
from small_searches import (
    SPACES,
    SmallSearch,
    decide,
    small_search,
    small_training,
    training_batches,
)
from tape import Counted, Tape
from torch import Tensor
from toy_family import ToyDataConfig, ToyModelConfig, ToyTask
from triton_runs import DEVICE, INTERPRETED

from sgas.config import RunConfig, SearchConfig
from sgas.errors import Interrupted, SgasError
from sgas.native.backend import use_kernels
from sgas.protocols import search_parts
from sgas.running.capture import AS_EVER, Captured, CudaGraphs, captured
from sgas.running.listeners import Silent
from sgas.running.loop import Loop, Tally
from sgas.running.machine import recorder_on
from sgas.running.runs import Run
from sgas.running.search import Search

STEPS = AS_EVER + 2
DECIDED = {"image": ((0, 1, 2, 3, 5, 6), (9,))}  # edges before and after, so that few are open
WHERE = torch.device(DEVICE)


# On the CPU also the kernels in plain torch, as CUDA has them for images.
KERNELS = {"float32": "torch", "bf16": "cpu"} if INTERPRETED else {}


PRECISIONS = ("float32", "bf16")


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    """The precision, with the kernels that go with it in force."""
    use_kernels(KERNELS.get(request.param, "auto"))
    return str(request.param)


def counted() -> Counted:
    """A recorder for the device that the tests run on."""
    return Counted(Tape() if INTERPRETED else CudaGraphs(WHERE))


def same(plain: dict[str, Tensor], replayed: dict[str, Tensor], adam: str = "alphas") -> None:
    """Passes where all tensors are equal; on a GPU, whose sums have no fixed order, almost.

    What Adam updates, the names with `adam` in them, is not compared there: a gradient near zero
    moves it by a whole step whose sign is that of the rounding.
    """
    assert plain.keys() == replayed.keys()
    for name, value in plain.items():
        if INTERPRETED:
            assert torch.equal(value, replayed[name]), name
        elif value.is_floating_point() and adam not in name:
            torch.testing.assert_close(value, replayed[name], rtol=1e-2, atol=1e-3)


def take_steps(small: SmallSearch) -> dict[str, Tensor]:
    """What an epoch of the batches of a search leaves."""
    search, evaluated = small.search, Tally()
    trained = small.tally
    alpha_step, weight_step, evaluation = search.captured_steps()
    for inputs, targets in small.batches:
        alpha_step(inputs, targets)
        loss, predictions = weight_step(inputs, targets)
        trained.add(loss, predictions, targets)
        search.network.eval()
        with torch.no_grad():
            evaluated.add(*evaluation(inputs, targets), targets)
        search.network.train()
    kept = {f"evaluated {i}": loss for i, loss in enumerate(evaluated.loss)}
    kept |= {f"loss {i}": loss for i, loss in enumerate(trained.loss)}
    kept |= {f"predictions {i}": p for i, p in enumerate(trained.predictions)}
    kept |= {f"alphas {kind}": alpha.detach() for kind, alpha in search.network.alphas.items()}
    return kept | search.network.state_dict() | {"random": torch.get_rng_state()}


@pytest.mark.parametrize(
    ("precision", "space"),
    some(product(PRECISIONS, SPACES), ("float32", "point"), ("bf16", "graph")),
    indirect=["precision"],
)
def test_replayed_steps_are_the_steps_of_a_search(
    space: str, precision: str, tmp_path: Path
) -> None:
    recorder = counted()
    found = []
    for given in (None, recorder):
        small = small_search(space, steps=STEPS, precision=precision, device=DEVICE, recorder=given)
        before, then = DECIDED.get(space, ((), (0, 1)))
        decide(small.search, before)
        torch.manual_seed(1)
        first = take_steps(small)
        decide(small.search, then)  # a graph of before would go on with what is gone
        found.append({f"first {k}": v.clone() for k, v in first.items()} | take_steps(small))
    same(*found)
    # Batches of graphs have sizes of their own and run as ever.
    recorded = 0 if space == "graph" else 2 * 3  # an evaluation step too
    repeated = recorded * (STEPS - AS_EVER)
    assert recorder.counts == {"recorded": recorded, "repeated": repeated}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("space", ["point", "image"])
def test_replayed_steps_are_the_steps_of_a_training(
    space: str, optimizer: str, precision: str, tmp_path: Path
) -> None:
    recorder = counted()
    found = []
    for given in (None, recorder):
        training = small_training(
            space, optimizer=optimizer, precision=precision, device=DEVICE, recorder=given
        )
        (train_step,) = captured(given, training.train_step)
        ready = training_batches(training, STEPS)
        torch.manual_seed(2)
        tally = Tally()
        for inputs, targets in ready:
            loss, predictions = train_step(inputs, targets)
            tally.add(loss, predictions, targets)
        losses = {f"loss {i}": loss for i, loss in enumerate(tally.loss)}
        weights = {f"{optimizer} {k}": v for k, v in training.network.state_dict().items()}
        found.append(weights | losses | {"random": torch.get_rng_state()})
    same(*found, adam="adam ")
    assert recorder.counts == {"recorded": 1, "repeated": STEPS - AS_EVER}


class StopAt(Silent):
    """Sends a stop signal after a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.where = epoch, step

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        """As in `Listener`."""
        if (epoch, step) == self.where:
            os.kill(os.getpid(), signal.SIGTERM)


def toy_search(folder: Path, recorder: Counted | None, listener: Any = None) -> Loop:
    """The loop of a search of the toy family with a few steps an epoch."""
    task = ToyTask(RunConfig(dataset="blobs"), ToyModelConfig(), ToyDataConfig())
    parts = search_parts(task, "clean", 0, 0.1, WHERE)
    config = SearchConfig(
        batch_size=16, warmup_epochs=1, decision_interval=1, final_epochs=1, learning_rate=0.05
    )
    search = Search(task, config, parts=parts, seed=0, device=WHERE, recorder=recorder, notes={})
    return Loop(search, Run.create(folder, {}), listener)


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics but for how long they took."""
    return [{name: v for name, v in line.items() if name != "seconds"} for line in lines]


def test_a_search_of_replayed_steps_decides_and_measures_the_same(tmp_path: Path) -> None:
    recorder = counted()
    found = []
    for name, given in (("plain", None), ("replayed", recorder)):
        loop = toy_search(tmp_path / name, given)
        loop.execute()
        search: Any = loop.body
        left = search.network.state_dict()
        found.append((search.genotype().cells, without_times(loop.run.metrics), left))
    (cells, metrics, left), (others, again, kept) = found
    same(left, kept)
    assert cells == others
    assert metrics == again or not INTERPRETED
    # One graph of each step for the epochs between two decisions, whose learning rates differ; of
    # the evaluation step where these have batches enough.
    stages = 1 + search.schedule.num_decisions
    assert 2 * stages < recorder.counts["recorded"] <= 3 * stages < 3 * len(metrics)
    assert recorder.counts["repeated"] > 4 * stages


def test_a_search_stopped_among_replayed_steps_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = toy_search(tmp_path / "whole", counted())
    whole.execute()
    stopped = toy_search(tmp_path / "stopped", counted(), StopAt(epoch=1, step=AS_EVER + 1))
    with pytest.raises(Interrupted):
        stopped.execute()
    state = stopped.run.load_checkpoint()
    assert state["step"] == AS_EVER + 1
    resumed = toy_search(tmp_path / "resumed", counted())
    resumed.restore(state)
    resumed.execute()
    same(whole.body.network.state_dict(), resumed.body.network.state_dict())


def test_a_run_goes_on_with_captured_steps_that_began_without(tmp_path: Path) -> None:
    began = toy_search(tmp_path / "began", None, StopAt(epoch=1, step=2))
    with pytest.raises(Interrupted):
        began.execute()
    state = began.run.load_checkpoint()
    resumed = toy_search(tmp_path / "resumed", counted())
    resumed.restore(state)
    search: Any = resumed.body
    adam = search.alpha_optimizer.adam
    assert adam.param_groups[0]["capturable"]
    assert adam.state_dict()["state"].keys() == state["alpha_optimizer"]["state"].keys()
    assert isinstance(search.weight_optimizer.param_groups[0]["lr"], Tensor)
    resumed.execute()
    assert search._captured is None  # what was captured is freed


def test_batches_of_other_sizes_run_as_ever() -> None:
    seen: list[int] = []

    def step(inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(inputs))
        return (inputs.sum() + targets.sum(),)

    recorder = Counted(Tape())
    given = Captured(step, recorder)
    sizes = [3] * (AS_EVER + 2) + [2, 3]
    outs = [given(torch.full((n, 2), float(i)), torch.ones(n)) for i, n in enumerate(sizes)]
    assert [float(out) for (out,) in outs] == [2 * n * i + n for i, n in enumerate(sizes)]
    assert seen == [3] * (AS_EVER + 1) + [2] and recorder.counts["repeated"] == 3
    (wide,) = given(torch.ones(3, 2, dtype=torch.float64), torch.ones(3))
    assert wide.dtype == torch.float64 and recorder.counts["repeated"] == 3


def fail_to_record(step: Any) -> None:
    """Takes steps until one has to be captured."""
    given = Captured(step, Tape())
    for _ in range(AS_EVER + 1):
        given(torch.ones(2, 2), torch.ones(2))


@pytest.mark.parametrize(
    "refused", [lambda x: x * x.sum().item(), lambda x: x @ torch.linalg.qr(x).R, lambda x: x[[0]]]
)
def test_a_step_that_cannot_be_captured_is_refused(refused: Any) -> None:
    with pytest.raises(SgasError, match=r"cannot be captured as a CUDA graph \(operation not .* w"):
        fail_to_record(lambda inputs, targets: (refused(inputs),))


@pytest.mark.parametrize("as_capture_ends", [False, True])
def test_too_little_memory_is_told_as_ever(as_capture_ends: bool) -> None:
    calls = []

    def step(inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        calls.append(inputs)
        if len(calls) <= AS_EVER:
            return (inputs,)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            if as_capture_ends:  # what was captured so far does not fit either
                raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        fail_to_record(step)


def test_where_steps_can_be_captured() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    images, graphs = torch.zeros(1, 3, 8, 8), object()
    assert recorder_on(RunConfig(), cpu, images) is None
    assert recorder_on(RunConfig(), cuda, graphs) is None
    assert recorder_on(RunConfig(cuda_graphs=False), cuda, images) is None
    if torch.cuda.is_available():
        assert recorder_on(RunConfig(), cuda, images)
