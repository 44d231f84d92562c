"""The command line on the toy family: exit status, one-line errors, nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_family import FAMILY

from sgas.cli import main
from sgas.commands.doctor import examine
from sgas.errors import DamagedRunError, DataError
from sgas.running.runs import read_records
from sgas.running.session import restore


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(FAMILY, argv)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["serach"], "unknown command 'serach': did you mean search?"),
        (["search", "--decison_interval", "3"], "did you mean --decision_interval?"),
        (["search", "--dataset", "blops"], "unknown data set 'blops': did you mean blobs?"),
        (["search", "--strategy", "cri3"], "unknown value of --strategy 'cri3': did you mean cri"),
        (["search", "--preset", "tinny"], "did you mean tiny?"),
        (["search", "--batch_size", "many"], "--batch_size takes a whole number, got 'many'"),
        (["search", "--batch_size", "1"], "batch_size is 1; it has to be at least 2"),
        (["search", "--learning_rate", "0"], "learning_rate is 0.0; it has to be above 0"),
        (["search", "--learning_rate", "nan"], "--learning_rate takes a number, got 'nan'"),
        (["search", "--learning_rate_min", "3"], "learning_rate_min is 3.0, above learning_rate"),
        (["search", "--device", "cuda:99"], "device is 'cuda:99'"),
        (["search", "--device", "tpu"], "device is 'tpu'; give auto, cpu, cuda or cuda:N"),
        (["search", "--config", "no.yaml"], "no.yaml' does not exist"),
        (["search", "--config", "typo.yaml"], "unknown key 'batch_sise' in the config file"),
        (["search", "--config", "wrong.yaml"], "--batch_size takes a whole number, got 'x'"),
        (["search", "--config", "broken.yaml"], "the config file is no YAML"),
        (["search", "--resume", "nowhere"], "nowhere is not a run"),
        (["search", "--resume", "run", "--seed", "3"], "no other option"),
        (["search", "--batch_size", "2", "--threads", "x"], "--threads takes a whole number, got"),
        (["search", "--threads", "100000"], "threads is 100000; it has to be at most 1024"),
        (["sweep", "--jobs", "1.5"], "--jobs takes a whole number, got '1.5'"),
        (["search", "--dataset", ""], "dataset is empty; give a name or a path"),
        (["sweep", "--dataset", ""], "dataset is empty; give a name or a path"),
        (["train", "cycle.json", "--dataset", ""], "dataset is empty; give a name or a path"),
        (["sweep", "--search.alpha_start_epoch", "99"], "by alphas that would not be trained yet"),
        (["search", "--alpha_start_epoch", "99"], "by alphas that would not be trained yet"),
        (["search", "--out", "taken"], "taken exists already; give another --out"),
        (["search", "--resume", "nowhere"], "is not a run: it does not exist"),
        (["search", "blobs"], "unexpected argument 'blobs'"),
        (["train"], "genotype is missing"),
        (["train", "nothing"], "unknown genotype 'nothing'"),
        (["train", "nothing.json"], "genotype file nothing.json does not exist"),
        (["train", "cycle.json"], "would make a cycle"),
        (["train", "taken"], "taken is not a run"),
        (["evaluate", "taken"], "taken is not a run"),
        (["replay", "nowhere"], "nowhere is not a run"),
        (["show", "nothing"], "unknown genotype 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    (here / "typo.yaml").write_text("batch_sise: 3\n")
    (here / "wrong.yaml").write_text("batch_size: x\n")
    (here / "broken.yaml").write_text("batch_size: [\n")
    (here / "taken").mkdir()
    cell = {"edges": [{"op": "skip", "source": 9}, {"op": "skip", "source": 0}], "concat": [2]}
    cells = {"normal": cell, "reduce": cell}
    (here / "cycle.json").write_text(json.dumps({"format": 1, "space": "toy", "cells": cells}))
    before = sorted(here.rglob("*"))
    status, out, err = run(argv, capsys)
    assert status == 2, err
    assert told in err and err.startswith("error: ") and err.count("\n") == 1
    assert not out and sorted(here.rglob("*")) == before


def test_the_whole_way(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(["search", "--seed", "1"], capsys)
    assert status == 0, err
    folder = here / "runs" / "blobs-cri2-1"
    for name in ("config.json", "metrics.jsonl", "decisions.jsonl", "genotype.json", "log.txt"):
        assert (folder / name).is_file()
    assert (folder / "cell-normal.svg").read_text().startswith("<svg")
    assert "runs/blobs-cri2-1/genotype.json" in out
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["seed"] == 1 and config["environment"]["torch"]

    status, out, err = run(["replay", str(folder), "--json"], capsys)
    assert status == 0, err
    assert json.loads(out)["same"] is True
    status, out, err = run(["replay", str(folder), "--strategy", "cri1", "--json"], capsys)
    assert status == 0 and json.loads(out)["strategy"] == "cri1"

    status, out, err = run(["evaluate", str(folder)], capsys)
    assert status == 2 and "is a search; train it first" in err
    status, out, err = run(["train", str(folder)], capsys)
    assert status == 0, err
    trained = here / "runs" / "blobs-cri2-1-train-0"
    assert "next     sgas-toy evaluate runs/blobs-cri2-1-train-0" in out
    status, out, err = run(["evaluate", str(trained), "--json"], capsys)
    assert status == 0, err
    first = json.loads(out)
    assert 0 <= first["accuracy"] <= 1 and first["samples"] == 60
    status, out, err = run(["evaluate", str(trained), "--json"], capsys)
    assert json.loads(out) == first

    status, out, err = run(["show", str(folder), "--json"], capsys)
    assert status == 0, err
    shown = json.loads(out)
    assert shown["params"] > 0 and all(Path(path).is_file() for path in shown["pictures"])
    status, out, err = run(["show", str(trained)], capsys)
    assert status == 0 and "parameters" in out


def test_epochs_count_from_1_wherever_they_are_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["search", "--warmup_epochs", "1", "--decision_interval", "1", "--final_epochs", "1"]
    status, _, err = run([*quick, "--out", "run"], capsys)
    assert status == 0 and re.findall(r"^epoch (\d+)/6", err, re.M) == list("123456")
    decided = [str(r.epoch + 1) for r in read_records(here / "run") if r.edge is not None]
    assert decided == list("22334455")  # of two kinds of cells, in the four epochs from the second
    assert re.findall(r"decision after epoch (\d+):", err) == decided
    assert re.findall(r"Z? epoch (\d+):", (here / "run" / "log.txt").read_text()) == decided
    assert re.findall(r"^epoch +(\d+) ", run(["replay", "run"], capsys)[1], re.M) == decided
    replayed = json.loads(run(["replay", "run", "--json"], capsys)[1])
    assert [str(line["epoch"]) for line in replayed["decisions"]] == decided
    cell, timeline = ((here / "run" / f"{n}-normal.svg").read_text() for n in ("cell", "timeline"))
    assert "after epoch 6 of 6" in cell and ">0</text>" not in timeline
    for picture in (cell, timeline):
        assert set(re.findall(r"epoch (\d+)[;<]", picture)) == set(decided)
    config = json.loads((here / "run" / "config.json").read_text())
    assert (config["epochs_from"], replayed["epochs_from"]) == (0, 1)


def quick_run(capsys: pytest.CaptureFixture[str]) -> Path:
    quick = ["search", "--warmup_epochs", "0", "--decision_interval", "1", "--final_epochs", "0"]
    assert run([*quick, "--out", "run"], capsys)[0] == 0
    return Path("run")


def test_a_training_finds_the_data_of_its_search(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = quick_run(capsys)
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["data_root"] == str(here / "data")
    config["run"]["data_root"] = str(here / "elsewhere")
    (folder / "config.json").write_text(json.dumps(config))
    for words, found in (([], "elsewhere"), (["--data_root", "mine"], "mine")):
        argv = ["train", "run", "--epochs", "1", "--out", f"from-{found}", *words]
        assert run(argv, capsys)[0] == 0
        trained = json.loads((here / f"from-{found}" / "config.json").read_text())
        assert trained["run"]["data_root"] == str(here / found)


def test_a_training_says_what_it_took_from_its_search(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["search", "--warmup_epochs", "0", "--decision_interval", "1", "--final_epochs", "0"]
    assert run([*quick, "--noise", "0.3", "--protocol", "paper", "--out", "s"], capsys)[0] == 0
    shown = json.loads(run(["show", "s", "--json"], capsys)[1])
    status, _, err = run(["train", "s", "--epochs", "1", "--out", "t"], capsys)
    assert status == 0
    assert "from  s: dataset blobs · space toy · protocol paper · noise 0.3\n" in err
    assert f"net   preset tiny: channels 4 · dropout 0.1 · {shown['params']} parameters\n" in err
    config = json.loads((here / "t" / "config.json").read_text())
    assert config["run"]["protocol"] == "paper" and config["data"]["noise"] == 0.3
    again = ["--noise", "0.1", "--protocol", "clean", "--channels", "6"]
    status, _, err = run(["train", "s", "--epochs", "1", "--out", "u", *again], capsys)
    assert status == 0 and "from  s" not in err and "preset tiny: channels 6" in err
    config = json.loads((here / "u" / "config.json").read_text())
    assert config["run"]["protocol"] == "clean" and config["data"]["noise"] == 0.1
    status, _, err = run(["train", "--resume", "u"], capsys)
    assert status == 0 and "net   preset tiny: channels 6" in err


@pytest.mark.parametrize("verb", ["search", "train"])
def test_a_run_whose_data_changed_does_not_go_on(
    here: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    folder = quick_run(capsys)
    if verb == "train":
        assert run(["train", "run", "--epochs", "1", "--out", "trained"], capsys)[0] == 0
        folder = Path("trained")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sizes": [9, 9]}))
    status, _, err = run([verb, "--resume", str(folder)], capsys)
    assert status == 2
    assert f"the data of {folder} have changed: its parts had [9, 9] samples, and have [" in err


def test_the_checkpoint_of_another_run_is_one_clear_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = quick_run(capsys)
    assert run(["train", "run", "--epochs", "1", "--out", "trained"], capsys)[0] == 0
    shutil.copy("trained/checkpoint.pt", folder / "checkpoint.pt")
    status, _, err = run(["search", "--resume", "run"], capsys)
    assert status == 1
    assert "the checkpoint in run is not of this run (it is of a train); put its own back" in err


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError(""), DamagedRunError),
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError),
        (DataError("gone"), DataError),
    ],
)
def test_what_is_no_fault_of_a_checkpoint_is_told_as_it_is(
    error: Exception, wanted: type[Exception]
) -> None:
    class Held:
        folder = Path("run")

        def load_checkpoint(self) -> dict[str, str]:
            return {"kind": "search"}

    class Loop:
        run = Held()

        def restore(self, state: object) -> None:
            raise error

    loop: Any = Loop()
    with pytest.raises(wanted):
        restore(loop)


@pytest.mark.parametrize(
    ("name", "content", "argv", "told"),
    [
        ("config.json", "[]", ["show", "run"], "config.json is damaged"),
        (
            "config.json",
            '{"family": "toy"}',
            ["search", "--resume", "run"],
            "missing required field `verb`",
        ),
        ("config.json", "{", ["replay", "run"], "config.json is damaged"),
        ("decisions.jsonl", "{}", ["replay", "run"], "decisions.jsonl is damaged"),
        ("decisions.jsonl", "", ["replay", "run"], "no scored epoch yet"),
        ("metrics.jsonl", '{"a": 1}', ["show", "run"], "a line has no epoch"),
        ("metrics.jsonl", "", ["show", "run"], "no scored epoch yet"),
        ("genotype.json", "{}", ["train", "run"], "not a genotype"),
    ],
)
def test_damaged_runs_are_one_line(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
    argv: list[str],
    told: str,
) -> None:
    (quick_run(capsys) / name).write_text(content)
    status, _, err = run(argv, capsys)
    assert status == 2 and told in err and err.count("\n") == 1, err


def test_a_record_that_does_not_fit_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quick_run(capsys) / "decisions.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[0])
    record["score"].pop()
    path.write_text("\n".join([json.dumps(record), *lines[1:]]))
    status, _, err = run(["replay", "run"], capsys)
    assert status == 2 and "the lists of epoch 1 do not agree" in err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["train", "--resume", "run"], "is a run of sgas-toy search; a run of sgas-toy train"),
        (["search", "--resume=run", "--seed=5"], "no other option"),
        (["search", "--seed=5", "--resume=run"], "no other option"),
        (["search", "--out", "run/config.json/x"], "cannot make the run folder"),
        (["show", "run", "--preset", "none"], "unknown preset"),
    ],
)
def test_misused_runs(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    quick_run(capsys)
    status, _, err = run(argv, capsys)
    assert status == 2 and told in err and err.count("\n") == 1, err


def test_a_second_search_takes_another_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["search", "--warmup_epochs", "0", "--decision_interval", "1", "--final_epochs", "0"]
    for name in ("blobs-cri2-0", "blobs-cri2-0-2"):
        assert run(quick, capsys)[0] == 0
        assert (here / "runs" / name / "genotype.json").is_file()


def test_presets_config_files_and_flags_win_in_that_order(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yaml").write_text("batch_size: 24\nfinal_epochs: 3\n")
    argv = ["search", "--config", "mine.yaml", "--final_epochs", "4", "--print_config"]
    status, out, err = run(argv, capsys)
    assert status == 0, err
    shown = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    assert (shown["batch_size"], shown["final_epochs"], shown["batch_increase"]) == ("24", "4", "4")
    status, out, err = run([*argv[:-1], "--print_config=skip_default"], capsys)
    assert status == 0 and sorted(out.splitlines()) == ["batch_size: 24", "final_epochs: 4"]
    assert not (here / "runs").exists()


def test_debug_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(["search", "--dataset", "nothing", "--debug"], capsys)
    assert status == 2 and "Traceback" in err


@pytest.mark.parametrize(
    "verb", [[], ["search"], ["train"], ["sweep"], ["show"], ["replay"], ["doctor"]]
)
def test_help_answers_fast_and_without_torch(verb: list[str]) -> None:
    code = (
        "import sys, sgas_gcn.cli as cli\n"
        f"sys.argv = ['sgas-gcn', *{verb!r}, '--help']\n"
        "try: cli.main()\n"
        "except SystemExit as leave: assert not leave.code, leave.code\n"
        "assert not {'torch', 'numpy', 'torch_geometric', 'sklearn'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "usage: sgas-gcn" in ended.stdout


def test_doctor(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(["doctor", "--json"], capsys)
    assert status == 0 and json.loads(out)["runs_writable"] is True


@pytest.mark.parametrize("reason", [None, "Triton cannot be imported: pip install triton"])
def test_doctor_says_which_kernels_run_on_a_gpu_and_why(
    reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a card")
    monkeypatch.setattr("sgas.native.triton.why_not", lambda: reason)
    found = examine(FAMILY)
    assert "ok    GPU: a card" in found["lines"]
    (line,) = [line for line in found["lines"] if "kernels on the GPU" in line]
    if reason is None:
        assert line.startswith("ok    kernels on the GPU: Triton")
        assert found["kernels"]["why_not_cuda"] is None
    else:
        assert line == f"note  kernels on the GPU: torch: {reason}"
        assert found["kernels"]["cuda"] == "torch"


def test_doctor_says_nothing_of_kernels_on_a_gpu_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    found = examine(FAMILY)
    assert not any("kernels on the GPU" in line for line in found["lines"])
    assert found["kernels"]["cuda"] is None


@pytest.mark.parametrize(
    ("error", "verb", "told"),
    [
        (torch.OutOfMemoryError("CUDA"), "train", "network, or give --cuda_graphs false, which"),
        (torch.OutOfMemoryError("CUDA"), "evaluate", "size of the network and start again"),
        (MemoryError(), "train", "size of the network and start again"),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception,
    verb: str,
    told: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(f"sgas.commands.{verb}.main", fail)
    status, _, err = run([verb, "run"], capsys)
    assert status == 1 and err.startswith("error: out of memory: lower batch_size") and told in err
