"""Jobs on a cluster: submitit's local executor, and a real Slurm of one node where there is one.

The Slurm test runs where SGAS_SLURM_TEST=1 asks for it (`slurm_node.py`); elsewhere it skips with
its reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import CONTEXT
from slurm_node import SlurmNode, why_not
from sweeps import COMMAND, figures, states, sweep

from sgas.config import ClusterConfig
from sgas.studies.cluster import LOCAL_REQUEUE, EntryJob, _parameters
from sgas.studies.study import Part, State, change_parts, read_manifest

TESTS = Path(__file__).parents[1]
THREE = ["--strategies", "cri1", "--seeds", "0-2", "--threads", "1"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = sweep(folder, *THREE, "--seeds", "0")
    assert ended.status == 0, ended.err
    return folder / "study"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are processes of their own, which have to find the toy family."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("importable")
def test_the_local_cluster_takes_the_same_path(undisturbed: Path, tmp_path: Path) -> None:
    ended = sweep(tmp_path, *THREE, "--seeds", "0", "--cluster", "local", "--jobs", "2")
    assert ended.status == 0, ended.err
    assert figures(tmp_path / "study") == figures(undisturbed)
    numbers = {part.job for part in read_manifest(tmp_path / "study").parts.values()}
    assert all(number and number.startswith("local:") for number in numbers)


def job(study: Path, environ: dict[str, str]) -> None:
    """What a node of a cluster does with a job."""
    os.environ.update(environ)
    raise SystemExit(EntryJob(str(study), "toy_family", "cri1-0", 1, 3)())


def test_a_job_whose_time_is_up_writes_a_checkpoint_and_asks_to_be_started_again(
    undisturbed: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_bytes((undisturbed / "study.json").read_bytes())
    parts = ("search", "train", "evaluate")
    change_parts(study, {f"cri1-0/{phase}": Part() for phase in parts})
    codes = []
    for moment in (25, 21, 10**6):  # in the search, after it in the training, never
        environ = {"TOY_SIGNAL": f"SIGUSR2@{moment}", "SUBMITIT_EXECUTOR": "local"}
        process = CONTEXT.Process(target=job, args=(study, environ))
        process.start()
        process.join(120)
        codes.append(process.exitcode)
    assert codes == [LOCAL_REQUEUE, LOCAL_REQUEUE, 0]
    assert set(states(study).values()) == {State.DONE}
    assert figures(study)["cri1-0"] == figures(undisturbed)["cri1-0"]


def test_options_of_a_job_reach_slurm() -> None:
    asked = ClusterConfig("slurm", 2, 1.5, 4, 1, "gpu", "mine", "low", "a100", "module load cuda")
    told = _parameters(asked, 7)
    assert told["timeout_min"] == 2 and told["mem_gb"] == 1.5 and told["cpus_per_task"] == 4
    assert told["gpus_per_node"] == 1 and told["slurm_partition"] == "gpu"
    assert told["slurm_account"] == "mine" and told["slurm_qos"] == "low"
    assert told["slurm_constraint"] == "a100" and told["slurm_setup"] == ["module load cuda"]
    assert told["slurm_array_parallelism"] == 7
    assert told["slurm_signal_delay_s"] == 30  # of two minutes; 90 s of an hour
    assert _parameters(ClusterConfig("slurm"), None)["slurm_signal_delay_s"] == 90


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNode]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    pytest.importorskip("submitit")
    with SlurmNode(tmp_path_factory.mktemp("slurm")) as node:
        yield node


def until(holds: object, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def in_slurm(folder: Path, node: SlurmNode, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "toy_family", *COMMAND, *THREE, "--cluster", "slurm", *more]
    return subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, **node.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


LONG = ["--search.final_epochs", "60", "--train.epochs", "40"]  # time to be stopped in


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_slurm_stops_a_job_and_puts_it_back(slurm: SlurmNode, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    ended = sweep(tmp_path / "here", *THREE, *LONG)
    assert ended.status == 0, ended.err
    study = tmp_path / "there" / "study"
    command = in_slurm(tmp_path / "there", slurm, *LONG, "--time", "10", "--memory", "0.5")
    lines = study / "cri1-1" / "search" / "metrics.jsonl"
    until(lambda: lines.exists() and lines.read_text().count("\n") > 3)
    number = str(read_manifest(study).parts["cri1-1/search"].job).removeprefix("slurm:")
    assert number.endswith("_1")  # the second of an array
    slurm.run("scancel", "--signal=TERM", number)
    out, _ = command.communicate(timeout=1200)
    assert command.returncode == 0, out
    assert "cri1-1/search was interrupted" in out and "9 of 9 parts done" in out
    assert "interrupted: stopped in epoch" in (study / "cri1-1" / "search.log").read_text()
    told = slurm.run("scontrol", "show", "job", number)
    assert "Restarts=1" in told
    assert figures(study) == figures(tmp_path / "here" / "study")


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_a_cancelled_job_stays_cancelled_and_a_second_command_watches_the_first_ones_jobs(
    slurm: SlurmNode, tmp_path: Path
) -> None:
    long = ["--search.final_epochs", "5000"]
    study = tmp_path / "study"
    first = in_slurm(tmp_path, slurm, *long, "--seeds", "0-1")
    until(lambda: (study / "cri1-1" / "search" / "metrics.jsonl").exists())
    first.send_signal(2)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 130
    assert "2 jobs go on in Slurm (scancel" in out and "go on with: sgas-toy sweep" in out
    numbers = {part.job for part in read_manifest(study).parts.values()}
    second = in_slurm(tmp_path, slurm, *long, "--seeds", "0-1")
    time.sleep(4)
    for number in sorted(map(str, numbers)):
        slurm.run("scancel", number.removeprefix("slurm:"))
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 1, out
    assert "failed   cri1-0/search: ended by Slurm: CANCELLED" in out
    assert {part.job for part in read_manifest(study).parts.values()} == numbers
    assert "interrupted: stopped in epoch" in (study / "cri1-0" / "search.log").read_text()
