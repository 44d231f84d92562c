"""A real Slurm of one node in a folder of its own: munge, controller and node, stopped at the end.

Nothing of the system is changed: keys, sockets, ports, logs and state are all in the folder. The
programs are Debian's packages slurmctld, slurmd, slurm-client and munge, to be installed before.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "scontrol")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
CONFIG = """
ClusterName=sgas
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=10
NodeName={node} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def find(program: str) -> str | None:
    """Where a program is; daemons are often not on a user's path."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def why_not() -> str | None:
    """Why no Slurm is to be started here, or None where one is wanted and can be."""
    if os.environ.get("SGAS_SLURM_TEST") != "1":
        return "starts a Slurm node of its own and takes minutes: set SGAS_SLURM_TEST=1"
    missing = [program for program in PROGRAMS if find(program) is None]
    return f"no {', '.join(missing)} here: install {' '.join(PACKAGES)}" if missing else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SlurmNode:
    """The three daemons, as a context manager; `environ` is what Slurm's commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> SlurmNode:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        munge = self.folder / "munge"
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755, parents=True)
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        text = CONFIG.format(
            node=socket.gethostname().partition(".")[0],
            folder=self.folder,
            user=user.stdout.strip(),
            controller_port=free_port(),
            node_port=free_port(),
        )
        (self.folder / "slurm.conf").write_text(text)
        places = ("key-file=key", "socket=socket", "pid-file=pid", "log-file=log", "seed-file=seed")
        options = [
            f"--{name}={munge / file}" for name, file in (place.split("=") for place in places)
        ]
        self._daemon("munged", "--foreground", "--force", *options)
        self._until(lambda: (munge / "socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        self._until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"), "the node")

    def _daemon(self, program: str, *options: str) -> None:
        environ = {**os.environ, **self.environ}
        with open(self.folder / f"{program}.out", "wb") as out:
            process = subprocess.Popen(
                [str(find(program)), *options], env=environ, stdout=out, stderr=out
            )
        self.daemons.append(process)

    def _until(self, holds: object, what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():  # type: ignore[operator]
            if time.monotonic() > end or any(d.poll() is not None for d in self.daemons):
                logs = "\n".join(
                    f"{path.name}: {path.read_text(errors='replace')[-800:]}"
                    for path in sorted(self.folder.glob("*.out"))
                    + sorted(self.folder.glob("*.log"))
                )
                raise RuntimeError(f"{what} did not come up\n{logs}")
            time.sleep(0.2)

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints; empty where it fails."""
        environ = {**os.environ, **self.environ}
        return subprocess.run(command, env=environ, capture_output=True, text=True).stdout

    def stop(self) -> None:
        """Cancels what runs and ends the daemons, those that were started last first."""
        if len(self.daemons) == 3:
            self.run("scancel", "--full", "--user", str(os.getuid()))
        for process in reversed(self.daemons):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()
