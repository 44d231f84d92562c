"""Statistics of norms that are taken anew: of what evaluation feeds, and training sees nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import SPACES, SmallSpace
from small_searches import small_search, task_of
from tape import Counted, Tape
from torch import Tensor, nn

import sgas_gcn
from sgas.config import SearchConfig
from sgas.errors import Interrupted
from sgas.protocols import search_parts, train_parts
from sgas.running.capture import AS_EVER
from sgas.running.listeners import Silent
from sgas.running.loop import Loop, measure
from sgas.running.norms import NormStatistics
from sgas.running.runs import Run
from sgas.running.search import Search

CPU = torch.device("cpu")
NAMES = ("running_mean", "running_var")
with_norms = pytest.mark.parametrize("name", [name for name in SPACES if name != "toy"])


class Samples:
    """A source of batches, a sample each."""

    index_device = CPU

    def __init__(self, small: SmallSpace) -> None:
        self.batches = [small.batch(4), small.batch(6)]

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, index: Tensor, generator: Any) -> tuple[Any, Tensor]:
        assert generator is None  # not augmented
        return self.batches[int(index)], torch.zeros(1)


def running(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: x.clone() for name, x in state.items() if name.endswith(NAMES)}


def of_batch(network: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """The statistics of one batch, by norms that move a tenth of the way to them from 0."""
    for name, buffer in network.named_buffers():
        if name.endswith(NAMES):
            buffer.zero_()
    network.train()(inputs)
    return {name: 10 * x for name, x in running(network).items()}


@with_norms
def test_they_are_the_means_of_undropped_batches(name: str) -> None:
    small, dropped = SPACES[name], {}
    if "dropout" in small.family.spaces[name].model_config.__dataclass_fields__:
        dropped = {"dropout": 0.9}
    source = Samples(small)
    plain = small.network()
    wanted = [of_batch(plain, batch) for batch in source.batches]
    torch.manual_seed(0)
    network = small.models(**dropped).build_network(small.genotype(0), False).double()
    network.drop_path = 0.5
    network.spare = nn.BatchNorm1d(3).double()  # one that does not run
    network.spare.running_mean.fill_(7)
    NormStatistics(network, network, source, 2, seed=0).estimate(0, 1, last=True)
    found = running(network)
    assert torch.equal(found.pop("spare.running_mean"), torch.full((3,), 7.0).double())
    found.pop("spare.running_var")
    for key, value in found.items():
        ours = (wanted[0][key] + wanted[1][key]) / 2
        torch.testing.assert_close(value, ours, rtol=1e-9, atol=1e-12, msg=key)
    assert network.training and network.drop_path == 0.5
    assert all(module.training for module in network.modules())
    assert {module.momentum for module in network.modules() if hasattr(module, "momentum")} == {0.1}


@pytest.mark.parametrize("space", ["point", "image"])
def test_replayed_they_are_the_same(space: str) -> None:
    found, recorder = [], Counted(Tape())
    for given in (None, recorder):
        statistics = small_search(space, recorder=given).search.statistics
        statistics.num_batches = AS_EVER + 2
        statistics.estimate(0, 4, last=True)
        found.append(running(statistics.network))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())
    assert recorder.counts == {"recorded": 1, "repeated": 2}


class StopAt(Silent):
    """Sends a stop signal after a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.where = epoch, step

    def stepped(self, epoch: int, step: int, num_batches: int) -> None:
        if (epoch, step) == self.where:
            os.kill(os.getpid(), signal.SIGTERM)


def searched(folder: Path, norm_batches: int, listener: Any = None) -> Loop:
    """The loop of a short search of clouds, with dropout before a norm."""
    task = task_of("point", num_points=16, k=3, num_cells=1, channels=4)
    config = SearchConfig(
        batch_size=120,
        warmup_epochs=0,
        decision_interval=1,
        final_epochs=0,
        norm_batches=norm_batches,
    )
    parts = search_parts(task, "clean", 0, 0.1, CPU)
    search = Search(task, config, parts=parts, seed=0, device=CPU, notes={})
    return Loop(search, Run.create(folder, {}), listener)


def test_a_search_is_trained_as_without_and_resumed_exactly(tmp_path: Path) -> None:
    loops = {}
    for name, norm_batches in (("without", 0), ("with", 2)):
        loops[name] = searched(tmp_path / name, norm_batches)
        loops[name].execute()
    stopped = searched(tmp_path / "stopped", 2, StopAt(1, 2))
    with pytest.raises(Interrupted):
        stopped.execute()
    loops["resumed"] = searched(tmp_path / "resumed", 2)
    loops["resumed"].restore(stopped.run.load_checkpoint() or {})
    loops["resumed"].execute()
    without, with_them, resumed = (loop.body.network.state_dict() for loop in loops.values())
    moved = {name for name, x in without.items() if not torch.equal(x, with_them[name])}
    assert moved and all(name.endswith(NAMES) for name in moved)
    assert all(torch.equal(x, resumed[name]) for name, x in with_them.items())
    assert torch.equal(
        loops["without"].body.state()["random"]["torch"],
        loops["with"].body.state()["random"]["torch"],
    )
    lines = [loop.run.metrics[-1]["validation_loss"] for loop in loops.values()]
    assert lines[0] != lines[1] == lines[2]


def test_the_saved_network_is_the_one_that_was_measured(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "out": str(tmp_path / "run")}
    sizes = {"num_points": 32, "k": 3, "channels": 4, "num_cells": 1, "emb_dims": 16}
    options |= {**sizes, "preset": "demo", "quiet": True}
    trained = sgas_gcn.train("cri2-modelnet-best", dataset="shapes", **options)
    log = (trained.folder / "log.txt").read_text()
    assert "taken anew before each measurement, from 20 batches of the training part" in log
    figures = json.loads((trained.folder / "result.json").read_text())
    task = task_of("point", **sizes)
    parts = train_parts(task, "clean", 0, 0.1, CPU)
    measured = measure(trained.network, task.labels, parts.measured["validation"], 32, CPU)
    assert measured["accuracy"] == figures["validation_accuracy"]
