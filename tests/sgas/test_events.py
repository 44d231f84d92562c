"""TensorBoard events are read back and say what the run folder says; they never stop a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_family import FAMILY, QUICK_WORDS

from sgas.cli import main
from sgas.deciding.records import EpochRecord
from sgas.running.runs import read_metrics, read_records

pytest.importorskip("tensorboard", reason="tensorboard is an extra and not installed")
TEXT = "decisions/text_summary"


def search(out: str, *more: str) -> None:
    assert main(FAMILY, ["search", *QUICK_WORDS, "--out", out, *more]) == 0


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0, "scalars": 0})
    found.Reload()
    return found


def series(events: Any, tag_name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(tag_name)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that has ended."""
    run = tmp_path_factory.mktemp("events") / "run"
    search(str(run))
    return run


def test_a_search_can_be_read_back(folder: Path) -> None:
    events, metrics, records = events_of(folder), read_metrics(folder), read_records(folder)
    assert series(events, "loss/validation") == pytest.approx(
        {line["epoch"] + 1: line["validation_loss"] for line in metrics}
    )
    assert series(events, "loop/learning_rate")[1] == pytest.approx(metrics[0]["learning_rate"])
    normal = [record for record in records if record.cell == "normal"]
    alphas = np.array(normal[0].alphas[0])
    expected = np.exp(alphas) / np.exp(alphas).sum()
    tags = [f"normal-ck-2-to-n1/{op}" for op in ("none", "skip", "linear", "tanh", "gate")]
    assert [series(events, name)[1] for name in tags] == pytest.approx(list(expected), abs=1e-6)
    for score in ("importance", "certainty", "stability"):
        found = series(events, f"normal-{score}/ck-2-to-n1")
        assert found[1] == pytest.approx(getattr(normal[0], score)[0], abs=1e-6)
    told = [event.tensor_proto.string_val[0].decode() for event in events.Tensors(TEXT)]
    count = sum(record.edge is not None for record in records)
    assert len(told) == count and all("score" in line for line in told)


def open_until(records: list[EpochRecord], edge: int) -> int:
    """The last epoch whose record still scores an edge as open, its own decision included."""
    return max(r.epoch for r in records if r.states[edge] == "undecided" or r.edge == edge)


def test_edges_are_told_until_they_are_decided_or_pruned(folder: Path) -> None:
    normal = [r for r in read_records(folder) if r.cell == "normal"]
    events = events_of(folder)
    names = ["ck-2-to-n1", "ck-1-to-n1", "ck-2-to-n2", "ck-1-to-n2", "n1-to-n2"]
    for edge, name in enumerate(names):
        assert max(series(events, f"normal-score/{name}")) == open_until(normal, edge) + 1


def test_a_training_can_be_read_back(folder: Path, here: Path) -> None:
    assert main(FAMILY, ["train", str(folder), "--out", "trained", "--epochs", "2"]) == 0
    events, metrics = events_of(here / "trained"), read_metrics(here / "trained")
    expected = {line["epoch"] + 1: line["train_accuracy"] for line in metrics}
    assert series(events, "accuracy/train") == pytest.approx(expected)


def test_a_resumed_search_has_each_epoch_once(here: Path) -> None:
    from processes import command

    stopped = command(["search", *QUICK_WORDS, "--out", "run"], here, TOY_SIGNAL="SIGTERM@30")
    assert stopped.status == 130, stopped.err
    assert main(FAMILY, ["search", "--resume", "run"]) == 0
    steps = [event.step for event in events_of(here / "run").Scalars("loss/train")]
    # Files of one second are read in the order of process numbers, which may begin anew.
    assert sorted(steps) == [line["epoch"] + 1 for line in read_metrics(here / "run")]


def test_where_events_fail_the_search_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    search("run")
    log = (here / "run" / "log.txt").read_text()
    assert log.count("no more TensorBoard events: OSError: No space left on device") == 1
    assert json.loads((here / "run" / "genotype.json").read_text())["meta"]["final"] is True


def test_without_tensorboard_nothing_of_it_is_imported(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgas.running.events.find_spec", lambda name: None)
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    search("run")
    assert not (here / "run" / "tensorboard").exists()
    assert "TensorBoard" not in (here / "run" / "log.txt").read_text()
