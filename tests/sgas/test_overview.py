"""The time left of a study follows from the seconds that a unit of work took so far."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from studies import study_info
from toy_family import FAMILY

from sgas.running.progress import ShowProgress
from sgas.studies.overview import Overview, Watched
from sgas.studies.study import PHASES, Part, State

INFO = study_info(
    strategies=["cri1"],
    search={"loop": {"warmup_epochs": 0, "decision_interval": 1}, "model": {"num_steps": 2}},
    train={"loop": {"epochs": 4}},
)
NAMES = ("cri1-0", "cri1-1")


def epochs(run: Path, count: int, seconds: float) -> None:
    """A run of which `count` epochs are over, after `seconds` in all."""
    run.mkdir(parents=True, exist_ok=True)
    lines = [{"epoch": n, "seconds": seconds, "validation_accuracy": 0.5} for n in range(count)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def parts(**states: State) -> dict[str, Part]:
    known = {name.replace("_", "-", 1).replace("_", "/"): state for name, state in states.items()}
    names = [f"{name}/{phase}" for name in NAMES for phase in PHASES]
    return {name: Part(known.get(name, State.WAITING)) for name in names}


def left(overview: Overview, capsys: pytest.CaptureFixture[str], now: dict[str, Part]) -> str:
    overview.show(now, 1, 1)
    return capsys.readouterr().err.strip().splitlines()[-1].rpartition("left ")[2]


def test_time_left_is_known_once_each_phase_was_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Overview(FAMILY, tmp_path, INFO, NAMES) as overview:
        overview.show(parts(), 0, 1)
        assert left(overview, capsys, parts(cri1_0_search=State.RUNNING)) == "?"
        epochs(tmp_path / "cri1-0/search", 9, 100)
        done = {"cri1_0_search": State.DONE}
        assert left(overview, capsys, parts(**done)) == "at least 1:40"  # the other search
        epochs(tmp_path / "cri1-0/train", 4, 40)
        done |= {"cri1_0_train": State.DONE, "cri1_0_evaluate": State.DONE}
        assert left(overview, capsys, parts(**done)) == "2:20"
        epochs(tmp_path / "cri1-1/search", 9, 100)
        done |= {"cri1_1_search": State.DONE, "cri1_1_train": State.DONE}
        epochs(tmp_path / "cri1-1/train", 4, 40)
        assert left(overview, capsys, parts(**done, cri1_1_evaluate=State.DONE)) == "0:00"


def test_a_running_part_is_timed_from_where_it_went_on(tmp_path: Path) -> None:
    watched = Watched(tmp_path, [1.0] * 10, State.RUNNING)
    watched.began, watched.epochs_then, watched.epochs = time.monotonic() - 6, 4, 7
    seconds, units = watched.pace()
    assert seconds == pytest.approx(6, abs=1) and units == 3 and watched.left == 3
    watched.state = State.WAITING
    assert watched.pace() == (0.0, 0.0)


@pytest.mark.parametrize(
    ("count", "over", "place"), [(4, 0, ["epoch 1/4"]), (4, 4, ["epoch 4/4"]), (0, 0, [])]
)
def test_a_running_part_says_which_epoch_it_is_in(
    tmp_path: Path, count: int, over: int, place: list[str]
) -> None:
    assert Watched(tmp_path, [1.0] * count, State.RUNNING, epochs=over).place == place


def test_a_part_that_goes_on_says_from_which_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs(tmp_path / "cri1-0/search", 2, 1)
    with Overview(FAMILY, tmp_path, INFO, NAMES) as overview:
        overview.show(parts(cri1_0_search=State.FAILED), 0, 1)
        overview.show(parts(cri1_0_search=State.RUNNING), 1, 1)
    assert "cri1-0/search runs, from epoch 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (30, "epoch 13/50 · val 0.512"),
        (39, "epoch 13/50 · val 0.512 · left 5:07"),
        (80, "epoch 13/50 · val 0.512 · 3/8 decided · left 5:07"),
        (120, "epoch 13/50 · loss 1.200 · train 0.500 · val 0.512 · 3/8 decided · left 5:07"),
    ],
)
def test_a_narrow_bar_drops_fields_and_cuts_no_word(
    monkeypatch: pytest.MonkeyPatch, width: int, line: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sgas.running.progress.time.monotonic", lambda: 100.0)
    shown = ShowProgress("search", total_decisions=8)
    shown.started(0, [1.0] * 50)
    figures = {"train_loss": 1.2, "train_accuracy": 0.5, "validation_accuracy": 0.512, "decided": 3}
    shown.epoch_ended(11, figures, ())
    monkeypatch.setattr("sgas.running.progress.time.monotonic", lambda: 200.0)
    shown.stepped(12, 3, 10)
    page = Console(file=io.StringIO(), width=width)
    page.print(shown.bar.get_renderable())
    (text,) = page.file.getvalue().splitlines()
    assert text.endswith(line) and ("━" in text) == (width > 40)


def test_a_search_among_trained_cells_counts_trainings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sgas.running.progress.time.monotonic", lambda: 100.0)
    shown = ShowProgress("search", 8, trains_cells=True)
    shown.started(0, [1.0] * 24)
    figures = {"train_loss": 1.2, "alphas_accuracy": 0.4, "validation_accuracy": 0.5, "decided": 0}
    shown.epoch_ended(11, figures, ("normal cell: 0→n1 = skip",))
    told = capsys.readouterr().err.splitlines()
    place = "training 12/24 · loss 1.200 · held out 0.400 · best val 0.500 · 0/8 decided"
    assert told == [
        f"{place} · left 0:00",
        "  decision after training 12: normal cell: 0→n1 = skip",
    ]
