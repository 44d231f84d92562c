"""Jobs of a study on a cluster, through submitit: Slurm, or the same path on this machine.

A job that Slurm stops (preemption, its time limit, `scancel --signal=TERM`) writes its checkpoint
and is put back into the queue; the next start of the same job goes on with the runs that it finds.
All machines have to see the study folder, the data and this package under the same paths.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgas.config import ClusterConfig
from sgas.errors import ConfigError, SgasError
from sgas.running.signals import StopSignal
from sgas.studies.jobs import Job

LOOK_SECONDS = 5.0  # between two questions to Slurm
LAST_SECONDS = 90  # before the time limit, in which a job writes its checkpoint
LOCAL_REQUEUE = 144  # the exit status by which submitit's local executor starts a job again
GOING_ON = (
    *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SIGNALING", "STAGE_OUT"),
)


@dataclass
class EntryJob:
    """What submitit runs on the other machine: one entry, from where it stopped."""

    study: str
    home: str
    entry: str
    threads: int
    requeues: int

    def __call__(self) -> int:
        """Runs the entry and returns its status; put back into the queue, ends the process."""
        from_clock: list[int] = []

        def time_is_up(number: int, frame: object) -> None:
            from_clock.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

        with StopSignal():
            signal.signal(signal.SIGUSR2, time_is_up)
            from sgas.studies.entry import INTERRUPTED, run_entry

            status = run_entry(Path(self.study), self.home, self.entry, self.threads)
        if status == INTERRUPTED:
            if os.environ.get("SUBMITIT_EXECUTOR") == "local":
                if from_clock:
                    raise SystemExit(LOCAL_REQUEUE)
            elif self._put_back():
                raise SystemExit(1)
        return status

    def _put_back(self) -> bool:
        """Puts this job back into Slurm's queue, unless it was cancelled or put back too often."""
        job = own_number()
        asked = _run("squeue", "--noheader", "--jobs", job, "--format=%T").split()
        if asked != ["RUNNING"]:  # cancelled, or put back by Slurm already
            return False
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= self.requeues:
            print(f"put back {self.requeues} times already; not again", file=sys.stderr)
            return False
        _run("scontrol", "requeue", job)
        return True


def own_number() -> str:
    """The number of the Slurm job that this process is, as `squeue` writes it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def _run(*command: str) -> str:
    """What a Slurm command prints; SgasError in one line where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SgasError(f"{command[0]} does not answer ({error})") from None
    if done.returncode:
        raise SgasError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


class ClusterJob:
    """A job of submitit's local executor."""

    def __init__(self, entry: str, submitted: Any) -> None:
        self.entry, self.submitted = entry, submitted
        self.number: str | None = f"local:{submitted.job_id}"

    def ended(self) -> str | None:
        """None while it goes on; else what ended it, empty where it ended by itself."""
        if not self.submitted.done():
            return None
        return "" if self.submitted.paths.result_pickle.exists() else "ended without a word"

    def stop(self) -> None:
        """Asks it to write its checkpoint and end."""
        self.submitted._process.terminate()  # its controller hands the signal on


class SlurmJob:
    """A job in Slurm's queue. Its state is what Slurm said last."""

    def __init__(self, entry: str, number: str) -> None:
        self.entry = entry
        self.number: str | None = number
        self.state = "PENDING"

    def ended(self) -> str | None:
        """None while it goes on; else what ended it, empty where it ended by itself."""
        if self.state.split()[0] in GOING_ON:
            return None
        return "" if self.state == "COMPLETED" else f"ended by Slurm: {self.state}"

    def stop(self) -> None:
        """Takes it out of the queue; a running one writes its checkpoint first."""
        _run("scancel", str(self.number).removeprefix("slurm:"))


class ClusterJobs:
    """Submits jobs: to Slurm as one array, or to submitit's local executor one by one."""

    def __init__(
        self, study: Path, home: str, threads: int, config: ClusterConfig, jobs: int | None
    ) -> None:
        self.study, self.home, self.threads = study, home, threads
        self.config, self.jobs = config, jobs
        self.outlive = config.cluster == "slurm"
        self.capacity = None if self.outlive else jobs or 1
        self.looked = 0.0
        self.executor = self._make_executor()

    def _make_executor(self) -> Any:
        try:
            import submitit
        except ImportError:
            raise ConfigError(
                f"cluster is {self.config.cluster!r}, which needs submitit: pip install "
                "'sgas[slurm]'"
            ) from None
        folder = self.study / "cluster"
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=self.config.cluster)
        except RuntimeError:
            raise ConfigError(
                "cluster is 'slurm', but this machine has no srun: go to a node that submits to "
                "Slurm, or give --cluster local"
            ) from None
        executor.update_parameters(**_parameters(self.config, self.jobs))
        return executor

    def start(self, entries: Sequence[str]) -> list[Job]:
        """Submits a job for each entry."""
        study, requeues = str(self.study), self.config.requeues
        work = [EntryJob(study, self.home, entry, self.threads, requeues) for entry in entries]
        if not self.outlive:
            with _sigint_ignored():
                return [ClusterJob(job.entry, self.executor.submit(job)) for job in work]
        try:
            with self.executor.batch():
                submitted = [self.executor.submit(job) for job in work]
        except Exception as error:  # submitit wraps what sbatch says in errors of its own
            raise SgasError(f"Slurm took no job: {' '.join(str(error).split())}") from None
        numbers = [f"slurm:{job.job_id}" for job in submitted]
        return [SlurmJob(job.entry, number) for job, number in zip(work, numbers, strict=True)]

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Sleeps for `seconds`; asks Slurm about its jobs from time to time."""
        time.sleep(seconds)
        queued = [job for job in jobs if isinstance(job, SlurmJob)]
        if queued and time.monotonic() - self.looked > LOOK_SECONDS:
            with contextlib.suppress(SgasError):  # a controller that restarts will answer later
                update_states(queued)
            self.looked = time.monotonic()


def _parameters(config: ClusterConfig, jobs: int | None) -> dict[str, Any]:
    """submitit's parameters for what the command asks for; others keep the cluster's defaults."""
    setup = [config.setup] if config.setup else None
    wanted = {
        "name": "sgas",
        "timeout_min": config.time,
        "mem_gb": config.memory,
        "cpus_per_task": config.cpus,
        "gpus_per_node": config.gpus or None,
        "slurm_partition": config.partition,
        "slurm_account": config.account,
        "slurm_qos": config.qos,
        "slurm_constraint": config.constraint,
        "slurm_setup": setup,
        "slurm_array_parallelism": jobs,
        "slurm_signal_delay_s": min(LAST_SECONDS, config.time * 15),
        "slurm_additional_parameters": {"requeue": True},
        # Slurm 22.05 and later do not hand a job's cores on to srun.
        "slurm_srun_args": ["--cpus-per-task", str(config.cpus)],
        "local_setup": setup,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def slurm_states() -> dict[str, str]:
    """The state of each of this user's jobs that Slurm still knows, by number."""
    user = str(os.getuid())
    command = ("squeue", "--noheader", "--states=all", "--array", "--user", user)
    rows = _run(*command, "--format=%i|%T").split()
    return dict(row.split("|", 1) for row in rows)


def update_states(jobs: Sequence[SlurmJob]) -> None:
    """Asks Slurm for the states of jobs; one that it no longer knows has ended."""
    known = slurm_states()
    for job in jobs:
        job.state = known.get(str(job.number).removeprefix("slurm:"), "no longer in the queue")


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Children started inside do not hear Ctrl-C: submitit's would be killed a second later."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
