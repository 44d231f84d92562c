"""Sweeps of the toy family: what stands in the study, interrupted, repeated, failing, refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from processes import Cli, command, edit
from sampling import some
from sweeps import COMMAND, NAMES, QUICK, figures, states, sweep
from toy_family import FAMILY

from sgas.cli import main
from sgas.config import SweepConfig
from sgas.deciding.evidence import is_enough
from sgas.errors import ConfigError
from sgas.running.runs import read_config, read_metrics, read_records
from sgas.studies.jobs import LocalJob, gpu_of_slot
from sgas.studies.results import results_of
from sgas.studies.standings import tables_of
from sgas.studies.study import PHASES, State, read_study
from sgas.studies.summary import summarise


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = sweep(folder, "--jobs", "2", "--search.noise", "0.1")  # as it is by default
    assert ended.status == 0, ended.err
    assert "12 of 12 parts done" in ended.out and "next     sgas-toy table study" in ended.out
    assert "12/12  " in ended.err and "left 0:00" in ended.err
    return folder / "study"


def test_a_study_holds_every_run_and_figure(undisturbed: Path) -> None:
    study = read_study(undisturbed)
    assert [entry.name for entry in study.entries] == list(NAMES)
    assert study.info.strategies == ["cri1", "random"] and study.info.seeds == [0, 1]
    assert study.info.protocol == "clean" and study.info.environment["torch"]
    assert study.info.search["loop"]["warmup_epochs"] == 1
    assert study.info.train["loop"]["epochs"] == 3
    for entry in study.entries:
        assert all(entry.parts[phase].state is State.DONE for phase in PHASES)
        assert entry.genotype is not None and entry.genotype.meta["strategy"] == entry.strategy
        assert entry.validation is not None and 0 < entry.validation["accuracy"] <= 1
        assert entry.test is not None and 0 < entry.test["accuracy"] <= 1
        assert entry.parameters and entry.flops and entry.search_seconds and entry.train_seconds
        assert entry.failure is None and entry.search_folder and entry.train_folder
        config = json.loads((entry.train_folder / "config.json").read_text())
        assert config["run"]["seed"] == entry.seed
        assert config["command"].startswith("sgas-toy sweep --strategies cri1,random ")
        assert config["asked"] == [] and read_config(entry.search_folder)["asked"] == ["noise"]
        for phase in PHASES:
            assert (undisturbed / entry.name / f"{phase}.log").read_text()
    summary = summarise(results_of(study))
    for trial, entry in zip(summary.results.trials, study.entries, strict=True):
        assert entry.search_folder is not None and entry.genotype is not None
        decided = [r for r in read_records(entry.search_folder) if r.edge is not None]
        found = sum(is_enough(record.evidence) for record in decided)
        edges = sum(len(cell.edges) for cell in entry.genotype.cells.values())
        assert trial.evidence == pytest.approx(100 * found / edges)
    (table, *_) = tables_of(summary).values()
    assert table.header[-1] == "edges with evidence" and table.rows[1][-1] == "0 %"  # by lot


def test_a_part_is_the_run_that_its_verb_makes(undisturbed: Path, here: Path) -> None:
    options = [word.replace("--search.", "--") for word in QUICK[:6]]
    argv = ["search", "--strategy", "cri1", "--seed", "1", "--out", "found", *options]
    assert main(FAMILY, argv) == 0
    argv = ["train", "found", "--seed", "1", "--epochs", "3", "--out", "trained"]
    assert main(FAMILY, argv) == 0
    for run, phase in (("found", "search"), ("trained", "train")):
        mine, theirs = (
            [{**line, "seconds": None} for line in read_metrics(folder)]
            for folder in (here / run, undisturbed / "cri1-1" / phase)
        )
        assert mine == theirs
    folders = here / "found", undisturbed / "cri1-1" / "search"
    assert len({(folder / "decisions.jsonl").read_bytes() for folder in folders}) == 1


def test_what_is_done_is_not_done_again_and_seeds_may_be_added(undisturbed: Path) -> None:
    files = [path for path in undisturbed.rglob("*") if path.is_file() and "-" in path.parent.name]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert sweep(undisturbed.parent).status == 0
    ended = sweep(undisturbed.parent, "--seeds", "1-2", "--strategies", "random")
    assert ended.status == 0, ended.err
    assert {path: path.stat().st_mtime_ns for path in files} == before
    study = read_study(undisturbed)
    assert [entry.name for entry in study.entries] == [*NAMES, "random-2"]
    assert study.info.seeds == [0, 1, 2] and study.entries[-1].test is not None


@pytest.mark.parametrize("name", some(["SIGINT", "SIGTERM", "SIGKILL"], "SIGKILL"))
def test_a_command_that_is_stopped_goes_on_to_the_same_end(
    undisturbed: Path, tmp_path: Path, name: str
) -> None:
    several = name == "SIGKILL"
    argv = ["--strategies", "cri1", *(["--jobs", "2"] if several else ["--seeds", "0"])]
    signals = {"TOY_SIGNAL": f"{name}@30", "TOY_TARGET": "parent"}
    ended = command([*COMMAND, *argv], tmp_path, **signals)
    assert ended.status == (-9 if several else 130), ended.err
    if not several:
        assert "go on with: sgas-toy sweep --strategies cri1,random" in ended.err
        assert "stopped; 0 of 3 parts are done" in ended.err
        assert State.RUNNING not in states(tmp_path / "study").values()
    again = sweep(tmp_path, *argv)
    assert again.status == 0, again.err
    logs = [path.read_text() for path in (tmp_path / "study").glob("*/*.log")]
    assert any("interrupted: stopped in epoch" in log for log in logs)
    found, wanted = figures(tmp_path / "study"), figures(undisturbed)
    assert found == {entry: wanted[entry] for entry in found}


def test_a_job_that_was_stopped_did_not_fail() -> None:
    """A signal to all processes stops the fork server, which then tells nothing of its children."""
    process = SimpleNamespace(exitcode=255, terminate=lambda: None)
    job = LocalJob("random-1", process, 0)
    assert job.ended() == "ended with status 255"
    job.stop()
    assert job.ended() == ""


def test_killed_jobs_are_failures_that_the_next_command_mends(
    undisturbed: Path, tmp_path: Path
) -> None:
    ended = sweep(tmp_path, "--seeds", "0", TOY_SIGNAL="SIGKILL@30")
    assert ended.status == 1
    assert "failed   cri1-0/search: killed by SIGKILL (log: study/cri1-0/search.log)" in ended.out
    assert "failed   random-0/search: killed by SIGKILL" in ended.out
    ended = sweep(tmp_path, "--seeds", "0")
    assert ended.status == 0, ended.err
    log = (tmp_path / "study/cri1-0/search.log").read_text()  # of both: the epochs went on
    assert [log.count(f"epoch {epoch}/5") for epoch in (1, 2, 5)] == [1, 1, 1]
    found, wanted = figures(tmp_path / "study"), figures(undisturbed)
    assert found == {entry: wanted[entry] for entry in ("cri1-0", "random-0")}


def test_a_part_that_fails_keeps_no_other_from_running(tmp_path: Path) -> None:
    assert sweep(tmp_path, "--seeds", "0", "--strategies", "random").status == 0
    in_the_way = tmp_path / "study" / "cri1-0" / "search"
    in_the_way.mkdir(parents=True)
    ended = sweep(tmp_path)
    assert ended.status == 1
    found = states(tmp_path / "study")
    assert found.pop("cri1-0/search") is State.FAILED
    assert found.pop("cri1-0/train") is found.pop("cri1-0/evaluate") is State.WAITING
    assert set(found.values()) == {State.DONE} and len(found) == 9
    told = f"failed   cri1-0/search: {in_the_way} exists already"
    assert told in ended.out and "(log: study/cri1-0/search.log)" in ended.out
    assert "cri1-0/search failed" in (read_study(tmp_path / "study").entries[1].failure or "")
    assert "exists already" in (tmp_path / "study/cri1-0/search.log").read_text()
    in_the_way.rmdir()
    assert sweep(tmp_path).status == 0


def test_a_run_that_was_taken_away_is_made_again(undisturbed: Path, tmp_path: Path) -> None:
    argv = ["--seeds", "0", "--strategies", "random"]
    assert sweep(tmp_path, *argv).status == 0
    before = figures(tmp_path / "study")
    (tmp_path / "study" / "random-0" / "train" / "evaluation.json").unlink()
    made = json.loads((tmp_path / "study" / "study.json").read_text())
    del made["search"]["run"]["cuda_graphs"]  # as if it was begun before this option was there
    edit(tmp_path / "study" / "study.json", json.dumps(made))
    assert sweep(tmp_path, *argv).status == 0
    assert figures(tmp_path / "study") == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--search.warmup_epochs", "2"],
            "study was begun with other options: search.warmup_epochs was 1, now 2",
        ),
        (["--train.noise", "0.5"], "train.noise was 0.1, now 0.5; give them as they were"),
        (["--protocol", "paper"], "protocol was 'clean', now 'paper'"),
        (["--train.epochz", "3"], "unknown option --train.epochz; did you mean --train.epochs?"),
        (["--epochs", "3"], "unknown option --epochs; did you mean --train.epochs?"),
        (["--search.strategy", "cri1"], "unknown option --search.strategy"),
        (["--search.candidates", "a,b"], "unknown option --search.candidates"),
        (["--seed", "3"], "unknown option --seed; did you mean --seeds?"),
        (["--search.batch_size", "x"], "--search.batch_size takes a whole number, got 'x'"),
        (["--train.optimizer", "sgdd"], "unknown value of --train.optimizer 'sgdd': did you mean"),
        (["--strategies", "cri1,cri3"], "unknown strategy in --strategies 'cri3': did you mean"),
        (["--seeds", "0-"], "seeds is '0-'; give whole numbers"),
        (["--seeds", "5-2"], "seeds is '5-2'; give whole numbers"),
        (["--seeds", ""], "--strategies and --seeds have to name one each at least"),
        (["--jobs", "0"], "jobs is 0; it has to be at least 1"),
        (["--partition", "gpu"], "partition is for jobs on a cluster: add --cluster slurm"),
        (["--out", "taken"], "taken exists already and is no study; give another --out"),
        (["--out", "new", "--dataset", "blops"], "unknown data set 'blops': did you mean blobs?"),
        (["--out", "new", "--train.batch_size", "1"], "batch_size is 1; it has to be at least 2"),
        (["--out", "new", "--preset", "tinny"], "did you mean tiny?"),
        (["--cuda_graphs", "false"], "cuda_graphs was True, now False"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    undisturbed: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, more: list[str], told: str
) -> None:
    monkeypatch.chdir(undisturbed.parent)
    (undisturbed.parent / "taken").mkdir(exist_ok=True)
    (undisturbed.parent / "taken" / "mine.txt").touch()
    before = sorted(undisturbed.parent.rglob("*"))
    assert cli(*COMMAND, *more).is_refused(told)
    assert sorted(undisturbed.parent.rglob("*")) == before


def test_a_config_file_has_a_section_for_each_verb(here: Path, cli: Cli) -> None:
    text = "seeds: '3'\nsearch:\n  warmup_epochs: 7\ntrain:\n  epochs: 9\n"
    (here / "study.yaml").write_text(text)
    argv = ["sweep", "--config", "study.yaml", "--train.batch_size", "5", "--print_config"]
    printed = yaml.safe_load(cli(*argv).out)
    assert printed["seeds"] == "3" and printed["search"]["warmup_epochs"] == 7
    assert printed["train"]["epochs"] == 9 and printed["train"]["batch_size"] == 5
    assert printed["search"]["batch_size"] == 16  # of the preset
    assert "--train.epochs INT" in cli("sweep", "--help").out


def test_without_submitit_a_cluster_is_one_clear_error(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    ended = cli(*COMMAND, "--cluster", "slurm")
    assert ended.is_refused("needs submitit: pip install 'sgas[slurm]'")
    assert not (here / "study").exists()


def test_seeds_are_numbers_and_ranges() -> None:
    assert SweepConfig(seeds="0-2, 7,1").seed_numbers == (0, 1, 2, 7)
    assert SweepConfig(strategies=" cri2 ,darts,cri2").strategy_names == ("cri2", "darts")
    for wrong in ("-1", "a", "1.5", "0-99999999", "99999999999"):
        with pytest.raises(ConfigError, match="give whole numbers"):
            SweepConfig(seeds=wrong)


def test_jobs_take_gpus_in_turn() -> None:
    assert [gpu_of_slot(slot, ["2", "5"]) for slot in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("2", "5", "2")
    ]
    assert gpu_of_slot(0, ["3"]) == gpu_of_slot(1, []) == {}
