"""A real Slurm on this machine, with a controller, one or more node daemons and a key of its own; needs root,
no systemd, no cgroups.

    apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge     # Debian, Ubuntu
    python tests/sweep/slurm_node.py FOLDER        # runs until Ctrl-C; `export SLURM_CONF=FOLDER/slurm.conf`
    elsewhere

Everything lies in FOLDER, and only processes that were started here are ended. There is no database, as on
many clusters: `sacct` fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")

CONF = """
ClusterName=single
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
MaxArraySize={max_array}
MinJobAge=30
KillWait=5
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=requeue \
GraceTime=3
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""


class SlurmNode:
    """Starts with `with`, and ends with it; `conf` is what SLURM_CONF must say."""

    def __init__(self, folder: Path, *, n_nodes: int = 1, max_array: int = 1001) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.nodes, self.max_array = [f"n{k + 1}" for k in range(n_nodes)], max_array

    def __enter__(self) -> SlurmNode:
        for name in ("munge", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for place in (self.folder, self.folder / "munge"):
            place.chmod(0o711)
        host = socket.gethostname().partition(".")[0]
        with contextlib.ExitStack() as stack:
            ports = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
                for _ in range(1 + len(self.nodes))
            ]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={os.cpu_count()} "
            f"State=UNKNOWN"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        )
        self.conf.write_text(
            CONF.format(host=host, folder=self.folder, ports=ports, nodes=nodes, max_array=self.max_array)
        )
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        try:
            files = {name: self.folder / "munge" / name for name in ("socket", "pid", "log", "seed")}
            self._run(
                "munged",
                "--force",
                f"--key-file={key}",
                f"--socket={files['socket']}",
                f"--pid-file={files['pid']}",
                f"--log-file={files['log']}",
                f"--seed-file={files['seed']}",
            )
            self._run("slurmctld", "-f", str(self.conf), "-c")
            self.start_slurmd()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_slurmd(self) -> None:
        """Start the daemons of the nodes, and wait until all nodes take jobs."""
        for name in self.nodes:
            self._run("slurmd", "-f", str(self.conf), "-N", name)
        end = time.monotonic() + 60
        while not set(self._states()) <= {"idle", "mixed", "allocated", "completing"}:
            if time.monotonic() > end:
                logs = "\n".join(p.read_text(errors="replace")[-2000:] for p in self.folder.glob("*.log"))
                raise RuntimeError(f"Slurm did not come up within 60 s:\n{logs}")
            time.sleep(0.3)

    def _states(self) -> list[str]:
        return self.ask("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").split() or [
            "unknown"
        ]

    def kill_slurmd(self) -> None:
        """SIGKILL to the daemons of the nodes; the steps of running jobs live on."""
        for name in self.nodes:
            pid = int((self.folder / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            while _alive(pid):
                time.sleep(0.05)
            (self.folder / f"{name}.pid").unlink()

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        return self._run(*command, check=False).strip()

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, "SLURM_CONF": str(self.conf)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr}")
        return done.stdout

    def stop(self) -> None:
        """Cancel all jobs, wait for their end, and end the daemons."""
        self.ask("scancel", f"--user={os.getuid()}", "--full")
        end = time.monotonic() + 20
        while self.ask("squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.2)
        for name in (*(f"{name}.pid" for name in self.nodes), "slurmctld.pid", "munge/pid"):
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                pid = int((self.folder / name).read_text())
                os.kill(pid, signal.SIGTERM)
                while _alive(pid) and time.monotonic() < end + 10:
                    time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def missing() -> str | None:
    """Why Slurm cannot be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return (
            f"{', '.join(absent)} not installed: apt-get install -y --no-install-recommends slurmctld slurmd "
            f"slurm-client munge"
        )
    return None if os.getuid() == 0 else "a Slurm of its own wants root"


if __name__ == "__main__":
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    with SlurmNode(Path(sys.argv[1]).absolute()) as node, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={node.conf}", flush=True)
        signal.pause()
