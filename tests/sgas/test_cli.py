"""The command line on the toy family: exit status, one-line errors, nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from processes import Cli, edit
from toy_family import FAMILY, QUICK_WORDS

from sgas.cells.genotype import Genotype
from sgas.cli import main
from sgas.commands.doctor import examine
from sgas.errors import DamagedRunError, DataError
from sgas.running.runs import read_records
from sgas.running.session import restore


def read(path: str | Path) -> Any:
    return json.loads(Path(path).read_text())


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
        (
            ["search", "--strategy=effects", "--num_steps=9"],
            "effects apart here: give at",
        ),
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
    here: Path, cli: Cli, argv: list[str], told: str
) -> None:
    (here / "typo.yaml").write_text("batch_sise: 3\n")
    (here / "wrong.yaml").write_text("batch_size: x\n")
    (here / "broken.yaml").write_text("batch_size: [\n")
    (here / "taken").mkdir()
    cell = {"edges": [{"op": "skip", "source": 9}, {"op": "skip", "source": 0}], "concat": [2]}
    cells = {"normal": cell, "reduce": cell}
    (here / "cycle.json").write_text(json.dumps({"format": 1, "space": "toy", "cells": cells}))
    before = sorted(here.rglob("*"))
    ended = cli(*argv)
    assert ended.is_refused(told) and ended.err.startswith("error: ")
    assert sorted(here.rglob("*")) == before


def test_the_whole_way(here: Path, cli: Cli) -> None:
    ended = cli("search", "--seed", "1")
    assert ended.status == 0 and "runs/blobs-cri2-1/genotype.json" in ended.out, ended.err
    assert re.search(r"found \d of 8 decisions have evidence", ended.err)
    folder = here / "runs" / "blobs-cri2-1"
    for name in ("config.json", "metrics.jsonl", "decisions.jsonl", "genotype.json", "log.txt"):
        assert (folder / name).is_file()
    assert (folder / "cell-normal.svg").read_text().startswith("<svg")
    config = read(folder / "config.json")
    assert config["run"]["seed"] == 1 and config["environment"]["torch"]
    assert cli("replay", str(folder), "--json").json["same"] is True
    assert cli("replay", str(folder), "--strategy", "cri1", "--json").json["strategy"] == "cri1"
    assert cli("evaluate", str(folder)).is_refused("is a search; train it first")
    ended = cli("train", str(folder))
    assert ended.status == 0, ended.err
    assert "next     sgas-toy evaluate runs/blobs-cri2-1-train-0" in ended.out
    trained = str(here / "runs" / "blobs-cri2-1-train-0")
    first = cli("evaluate", trained, "--json").json
    assert 0 <= first["accuracy"] <= 1 and first["samples"] == 60
    assert cli("evaluate", trained, "--json").json == first
    shown = cli("show", str(folder), "--json").json
    assert shown["params"] > 0 and all(Path(path).is_file() for path in shown["pictures"])
    assert "parameters" in cli("show", trained).out


def test_epochs_count_from_1_wherever_they_are_shown(here: Path, cli: Cli) -> None:
    quick = "search --warmup_epochs 1 --decision_interval 1 --final_epochs 1 --out run"
    ended = cli(*quick.split())
    assert ended.status == 0
    assert re.findall(r"^epoch (\d+)/6", ended.err, re.M) == list("123456")
    decided = [str(r.epoch + 1) for r in read_records(here / "run") if r.edge is not None]
    assert decided == list("22334455")  # of two kinds of cells, in the four epochs from the second
    assert re.findall(r"decision after epoch (\d+):", ended.err) == decided
    assert re.findall(r"Z? epoch (\d+):", (here / "run" / "log.txt").read_text()) == decided
    assert re.findall(r"^epoch +(\d+) ", cli("replay", "run").out, re.M) == decided
    replayed = cli("replay", "run", "--json").json
    assert [str(line["epoch"]) for line in replayed["decisions"]] == decided
    cell, timeline = ((here / "run" / f"{n}-normal.svg").read_text() for n in ("cell", "timeline"))
    assert "after epoch 6 of 6" in cell and ">0</text>" not in timeline
    for picture in (cell, timeline):
        assert set(re.findall(r"epoch (\d+)[;<]", picture)) == set(decided)
    assert (read("run/config.json")["epochs_from"], replayed["epochs_from"]) == (0, 1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has ended."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(FAMILY, ["search", *QUICK_WORDS, "--out", "run"]) == 0
    return folder / "run"


@pytest.fixture
def folder(searched: Path, here: Path) -> Path:
    """A search that has ended, in the current folder."""
    return Path(shutil.copytree(searched, here / "run")).relative_to(here)


def test_a_training_finds_the_data_of_its_search(
    folder: Path, searched: Path, here: Path, cli: Cli
) -> None:
    config = read(folder / "config.json")
    assert config["run"]["data_root"] == str(searched.parent / "data")
    config["run"]["data_root"] = str(here / "elsewhere")
    edit(folder / "config.json", json.dumps(config))
    for words, found in (([], "elsewhere"), (["--data_root", "mine"], "mine")):
        argv = ["train", "run", "--epochs", "1", "--out", f"from-{found}", *words]
        assert cli(*argv).status == 0
        assert read(f"from-{found}/config.json")["run"]["data_root"] == str(here / found)


def test_a_training_says_what_it_took_from_its_search(here: Path, cli: Cli) -> None:
    asked = ["--noise", "0.3", "--protocol", "paper", "--out", "s"]
    assert cli("search", *QUICK_WORDS, *asked).status == 0
    params = cli("show", "s", "--json").json["params"]
    ended = cli("train", "s", "--epochs", "1", "--out", "t")
    assert ended.status == 0
    assert "from  s: dataset blobs · space toy · protocol paper · noise 0.3\n" in ended.err
    assert f"net   preset tiny: channels 4 · dropout 0.1 · {params} parameters\n" in ended.err
    config = read("t/config.json")
    assert config["run"]["protocol"] == "paper" and config["data"]["noise"] == 0.3
    assert cli("search", *QUICK_WORDS, "--noise", "0.1", "--out", "own").status == 0  # the default
    for source, out in (("own", "v"), ("v", "w")):
        ended = cli("train", source, "--epochs", "1", "--out", out)
        told = f"from  {source}: dataset blobs · space toy · protocol clean · noise 0.1\n"
        assert ended.status == 0 and told in ended.err
    again = ["--noise", "0.1", "--protocol", "clean", "--channels", "6"]
    ended = cli("train", "s", "--epochs", "1", "--out", "u", *again)
    assert ended.status == 0 and "from  s" not in ended.err
    assert "preset tiny: channels 6" in ended.err
    config = read("u/config.json")
    assert config["run"]["protocol"] == "clean" and config["data"]["noise"] == 0.1
    ended = cli("train", "--resume", "u")
    assert ended.status == 0 and "net   preset tiny: channels 6" in ended.err


def test_a_cell_is_trained_on_its_own_data_or_asks_for_some(folder: Path, cli: Cli) -> None:
    cell = Genotype.from_json((folder / "genotype.json").read_text())
    Path("own.json").write_text(cell.to_json())
    ended = cli("train", "own.json", "--epochs", "1")
    assert ended.status == 0 and "from  the cell: dataset blobs · space toy\n" in ended.err
    Path("bare.json").write_text(msgspec.structs.replace(cell, meta={}).to_json())
    for bare in ("bare.json", cell.to_text()):
        ended = cli("train", bare, "--epochs", "1", "--out", "no")
        assert ended.is_refused(
            "a cell without its data can be trained on any data set of its space: give --dataset, "
            "one of blobs or a folder"
        )
        assert not Path("no").exists()
        assert cli("train", bare, "--dataset", "blobs", "--epochs", "1").status == 0


@pytest.mark.parametrize("verb", ["search", "train"])
def test_a_run_whose_data_changed_does_not_go_on(folder: Path, cli: Cli, verb: str) -> None:
    if verb == "train":
        assert cli("train", "run", "--epochs", "1", "--out", "trained").status == 0
        folder = Path("trained")
    config = read(folder / "config.json")
    edit(folder / "config.json", json.dumps({**config, "sizes": [9, 9]}))
    changed = f"the data of {folder} have changed: its parts had [9, 9] samples, and have ["
    assert changed in cli(verb, "--resume", str(folder)).err


def test_the_checkpoint_of_another_run_is_one_clear_error(folder: Path, cli: Cli) -> None:
    assert cli("train", "run", "--epochs", "1", "--out", "trained").status == 0
    shutil.copy("trained/checkpoint.pt", folder / "checkpoint.pt")
    ended = cli("search", "--resume", "run")
    wanted = "the checkpoint in run is not of this run (it is of a train); put its own back"
    assert ended.status == 1 and wanted in ended.err


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
    folder: Path, cli: Cli, name: str, content: str, argv: list[str], told: str
) -> None:
    edit(folder / name, content)
    assert cli(*argv).is_refused(told)


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("config.json", ["show", "run"]),
        ("metrics.jsonl", ["search", "--resume", "run"]),
        ("decisions.jsonl", ["replay", "run"]),
        ("genotype.json", ["train", "run"]),
        ("weights.safetensors", ["evaluate", "trained"]),
    ],
)
def test_a_flipped_bit_is_told_whatever_it_means(
    folder: Path, cli: Cli, name: str, argv: list[str]
) -> None:
    if argv[-1] == "trained":
        assert cli("train", "run", "--epochs", "1", "--out", "trained").status == 0
    path = Path(argv[-1], name)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"1") if name.endswith("l") or name.endswith("n") else -1
    content[place] ^= 1  # in text, another digit
    path.write_bytes(content)
    assert cli(*argv).is_refused(f"{path} is damaged: it is not what was written there")


def test_a_record_that_does_not_fit_is_refused(folder: Path, cli: Cli) -> None:
    path = folder / "decisions.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[0])
    record["score"].pop()
    edit(path, "\n".join([json.dumps(record), *lines[1:]]))
    assert cli("replay", "run").is_refused("the lists of epoch 1 do not agree")


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
def test_misused_runs(folder: Path, cli: Cli, argv: list[str], told: str) -> None:
    assert cli(*argv).is_refused(told)


def test_a_second_search_takes_another_folder(here: Path, cli: Cli) -> None:
    for name in ("blobs-cri2-0", "blobs-cri2-0-2"):
        assert cli("search", *QUICK_WORDS).status == 0
        assert (here / "runs" / name / "genotype.json").is_file()


def test_presets_config_files_and_flags_win_in_that_order(here: Path, cli: Cli) -> None:
    (here / "mine.yaml").write_text("batch_size: 24\nfinal_epochs: 3\n")
    argv = ["search", "--config", "mine.yaml", "--final_epochs", "4"]
    ended = cli(*argv, "--print_config")
    assert ended.status == 0, ended.err
    shown = dict(line.split(": ", 1) for line in ended.out.splitlines() if ": " in line)
    assert (shown["batch_size"], shown["final_epochs"], shown["batch_increase"]) == ("24", "4", "4")
    ended = cli(*argv, "--print_config=skip_default")
    assert sorted(ended.out.splitlines()) == ["batch_size: 24", "final_epochs: 4"], ended
    assert not (here / "runs").exists()


def test_debug_shows_the_traceback(here: Path, cli: Cli) -> None:
    ended = cli("search", "--dataset", "nothing", "--debug")
    assert ended.status == 2 and "Traceback" in ended.err


def test_help_answers_without_torch() -> None:
    verbs = ["", "search", "train", "sweep", "show", "replay", "doctor"]
    code = (
        "import sys, sgas_gcn.cli as cli\n"
        f"for verb in {verbs}:\n"
        "    sys.argv = ['sgas-gcn', *verb.split(), '--help']\n"
        "    try: cli.main()\n"
        "    except SystemExit as leave: assert not leave.code, leave.code\n"
        "    assert not {'torch', 'numpy', 'torch_geometric', 'sklearn'} & set(sys.modules), verb\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("usage: sgas-gcn") == len(verbs)


def test_doctor(here: Path, cli: Cli) -> None:
    assert cli("doctor", "--json").json["runs_writable"] is True


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
    error: Exception, verb: str, told: str, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(f"sgas.commands.{verb}.main", fail)
    ended = cli(verb, "run")
    assert ended.is_refused(told, status=1)
    assert ended.err.startswith("error: out of memory: lower batch_size")
