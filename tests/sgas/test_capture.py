"""Steps that are captured and replayed compute what steps that run compute, to the last bit."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import SPACES, small_search, small_training, training_batches
from tape import Tape
from torch import Tensor
from toy_family import ToyDataConfig, ToyModelConfig, ToyTask
from triton_runs import run_alone

from sgas.capture import AS_EVER, Captured, captured
from sgas.commands.loops import recorder_on
from sgas.config import RunConfig, SearchConfig
from sgas.errors import ConfigError, DeviceError, Interrupted, SgasError
from sgas.loop import Silent
from sgas.runs import Run
from sgas.search import Search

STEPS = AS_EVER + 3
CPU = torch.device("cpu")


class StopAt(Silent):
    """Sends a stop signal after a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.where = epoch, step

    def stepped(self, epoch: int, step: int, num_steps: int) -> None:
        """As in `Listener`."""
        if (epoch, step) == self.where:
            os.kill(os.getpid(), signal.SIGTERM)


def toy_search(folder: Path, recorder: Any) -> Search:
    """A search of the toy family with a few steps an epoch."""
    task = ToyTask(RunConfig(dataset="blobs"), ToyModelConfig(), ToyDataConfig())
    parts = task.search_parts("clean", 0, 0.1, CPU)
    config = SearchConfig(
        batch_size=16, warmup_epochs=1, decision_interval=1, final_epochs=1, learning_rate=0.05
    )
    run = Run.create(folder, {})
    return Search(task, config, run, parts=parts, seed=0, device=CPU, recorder=recorder, notes={})


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    """Counts from zero."""
    Tape.recorded = Tape.repeated = 0
    yield


def taken(folder: Path, space: str, decided: int, recorder: Any) -> dict[str, Tensor]:
    """What STEPS steps of a search leave."""
    small = small_search(folder, space, steps=STEPS, decided=decided, recorder=recorder)
    search = small.search
    torch.manual_seed(1)
    alpha_step, weight_step = captured(recorder, search._alpha_step, search._weight_step)
    for inputs, targets in small.batches:
        alpha_step(inputs, targets)
        search.tally.add(*weight_step(inputs, targets), targets)
    kept = {f"loss {i}": loss for i, loss in enumerate(search.tally.loss)}
    kept |= {f"predictions {i}": p for i, p in enumerate(search.tally.predictions)}
    kept |= {f"alphas {kind}": alpha.detach() for kind, alpha in search.supernet.alphas.items()}
    return kept | search.supernet.state_dict() | {"random": torch.get_rng_state()}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("decided", [0, 2], ids=["undecided", "half decided"])
def test_replayed_steps_are_the_steps_of_a_search(space: str, decided: int, tmp_path: Path) -> None:
    plain = taken(tmp_path / "plain", space, decided, None)
    same(plain, taken(tmp_path / "replayed", space, decided, Tape))
    # Batches of graphs have sizes of their own and run as ever.
    expected = (0, 0) if space == "graph" else (2, 2 * (STEPS - AS_EVER))
    assert (Tape.recorded, Tape.repeated) == expected


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics but for how long they took."""
    return [{name: v for name, v in line.items() if name != "seconds"} for line in lines]


def same(plain: dict[str, Tensor], replayed: dict[str, Tensor]) -> None:
    """Passes where all tensors are equal."""
    assert plain.keys() == replayed.keys()
    for name, value in plain.items():
        assert torch.equal(value, replayed[name]), name


def test_a_search_of_replayed_steps_decides_and_measures_the_same(tmp_path: Path) -> None:
    found = []
    for name, recorder in (("plain", None), ("replayed", Tape)):
        search = toy_search(tmp_path / name, recorder)
        genotype = search.execute()
        left = search.supernet.state_dict()
        found.append((genotype.cells, without_times(search.run.metrics), left))
    (cells, metrics, left), (others, again, kept) = found
    assert cells == others and metrics == again
    same(left, kept)
    epochs = len(metrics)
    assert Tape.recorded == 2 * epochs  # one graph of each step an epoch, and with each decision
    assert Tape.repeated > Tape.recorded


def test_a_search_stopped_among_replayed_steps_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = toy_search(tmp_path / "whole", Tape)
    whole.execute()
    stopped = toy_search(tmp_path / "stopped", Tape)
    stopped.listener = StopAt(epoch=1, step=AS_EVER + 1)
    with pytest.raises(Interrupted):
        stopped.execute()
    state = stopped.run.load_checkpoint()
    assert state["step"] == AS_EVER + 1
    resumed = toy_search(tmp_path / "resumed", Tape)
    resumed.restore(state)
    resumed.execute()
    same(whole.supernet.state_dict(), resumed.supernet.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("space", ["point", "image"])
def test_replayed_steps_are_the_steps_of_a_training(
    space: str, optimizer: str, tmp_path: Path
) -> None:
    found = []
    for name, recorder in (("plain", None), ("replayed", Tape)):
        training = small_training(tmp_path / name, space, optimizer)
        (train_step,) = captured(recorder, training._train_step)
        ready = training_batches(training, STEPS)
        torch.manual_seed(2)
        for inputs, targets in ready:
            training.tally.add(*train_step(inputs, targets), targets)
        losses = {f"loss {i}": loss for i, loss in enumerate(training.tally.loss)}
        found.append(training.network.state_dict() | losses | {"random": torch.get_rng_state()})
    same(*found)
    assert Tape.recorded == 1 and Tape.repeated == STEPS - AS_EVER


def test_batches_of_other_sizes_run_as_ever() -> None:
    seen: list[int] = []

    def step(inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(inputs))
        return (inputs.sum() + targets.sum(),)

    given = Captured(step, Tape())
    sizes = [3] * (AS_EVER + 2) + [2, 3]
    outs = [given(torch.full((n, 2), float(i)), torch.ones(n)) for i, n in enumerate(sizes)]
    assert [float(out) for (out,) in outs] == [2 * n * i + n for i, n in enumerate(sizes)]
    assert seen == [3] * (AS_EVER + 1) + [2] and Tape.repeated == 3


def test_a_step_that_waits_for_the_device_is_refused() -> None:
    given = Captured(lambda inputs, targets: (inputs * inputs.sum().item(),), Tape())
    batch = torch.ones(2, 2), torch.ones(2)
    for _ in range(AS_EVER):
        given(*batch)
    with pytest.raises(
        SgasError, match=r"cannot be captured as a CUDA graph .* without cuda_graphs"
    ):
        given(*batch)


def test_where_steps_can_be_captured() -> None:
    cuda, images, graphs = torch.device("cuda"), torch.zeros(1, 3, 8, 8), object()
    assert recorder_on(CPU, False, images) is None
    with pytest.raises(DeviceError, match="cuda_graphs is true, but the device is cpu: give"):
        recorder_on(CPU, True, images)
    assert recorder_on(cuda, True, images) is not None
    with pytest.raises(ConfigError, match="no two batches of graphs have the same size"):
        recorder_on(cuda, True, graphs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("space", ["point", "image"])
def test_steps_are_replayed_on_a_gpu(space: str, tmp_path: Path) -> None:
    """In a process of its own, since Triton interprets in this one."""
    program = f"""
import sys
sys.path[:0] = ["tests"]
from functools import partial
from pathlib import Path
import torch
from small_searches import small_search
from sgas.capture import CudaGraphs, captured
found = []
for name, make in (("plain", None), ("replayed", partial(CudaGraphs, torch.device("cuda")))):
    small = small_search(
        Path(sys.argv[1]) / name, {space!r}, device="cuda", steps={STEPS}, recorder=make
    )
    torch.manual_seed(1)
    search = small.search
    alpha_step, weight_step = captured(make, search._alpha_step, search._weight_step)
    for inputs, targets in small.batches:
        alpha_step(inputs, targets)
        search.tally.add(*weight_step(inputs, targets), targets)
    found.append(torch.stack(search.tally.loss))
torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
"""
    run_alone([sys.executable, "-c", program, os.fspath(tmp_path)], {})
