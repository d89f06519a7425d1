"""The launcher: a small process that has imported everything once and forks a child for every point.

    python -m sapis_lab.jobs.launcher MODULE...        # the modules to import beforehand

It reads one JSON request a line on its input and writes one JSON answer a line on its output:

    {"start": id, "folder": ..., "target": "module:function", "arguments": {...}}   ->  {"started": id, "pid":
    ...} {"stop": id, "signal": 15}                                                       ->  {"ended": id,
    "status": ...}

so a point starts in a tenth of a second instead of the ten that importing torch and lightning can take, with
no thread and no device context of a parent in it. (multiprocessing's forkserver does the same, but imports
the caller's main script in every child and takes its environment from the caller's.) Nothing outlives the
engine: the launcher ends when its input closes, and the system kills every child when the launcher ends,
however it ends.

With "ranks": k in the request a point is k children that train it together: they find each other through
RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, the port being free and held for them. Rank 0
writes log.txt, the others log.rank1.txt and so on. When one of them fails the others are ended at once; the
point has ended when all have, with the status of the first that failed (and "rank": which).
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import logging
import os
import platform
import selectors
import signal
import socket
import stat
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from sapis_lab.jobs.folder import LOCK, LOG, write_failure
from sapis_lab.jobs.notices import keep_notices
from sapis_lab.jobs.processes import die_with
from sapis_lab.records import FAILURE

STOPPED = 75
"""Exit status of what was stopped and can be continued."""
UNTOLD = 74
"""Exit status of what failed in a folder where not even the reason could be written."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_WAIT_FOR_SURVIVOR = 30.0
_WAIT_FOR_REASON = 0.5
"""A failure that all ranks see is told by rank 0; the others wait this long, s, before they tell it."""
_WAIT_FOR_END = 3.0
"""A rank that has lost another waits this long, s: whoever ended that one may be about to end this one, and
knows the reason."""


class PointFailed(Exception):
    """A run that cannot give a number: its message is the reason that is recorded."""


def main() -> None:
    """Serve requests until the input closes."""
    die_with(os.getppid())
    answers = os.dup(1)
    os.dup2(2, 1)  # what a module prints while it is imported must not get between the answers
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    # Slurm sends them to every process of a job; the parent passes them on to the points
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _Server(answers, wake_read).serve()


@dataclass
class Group:
    """The processes of one point."""

    ranks: dict[int, int]
    """Rank of every process that still runs, by its pid."""
    size: int
    status: int = 0
    """Of the first that failed."""
    failed: int | None = None
    """Its rank."""

    def signal(self, number: int) -> None:
        """Send a signal to all that still run."""
        for pid in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def ended(self, pid: int, status: int) -> bool:
        """Take note of the end of a process; whether the point has ended with it."""
        rank = self.ranks.pop(pid)
        if status != 0 and self.failed is None:
            self.status, self.failed = status, rank
            self.signal(signal.SIGKILL)  # they would wait for it in vain
        return not self.ranks

    def wait(self) -> int:
        """Wait for the end of the point; its status. For who has no other children."""
        over = False
        while not over:
            pid, status = os.wait()
            over = pid in self.ranks and self.ended(pid, os.waitstatus_to_exitcode(status))
        return self.status


def fork_ranks(request: dict[str, Any]) -> Group:
    """Start the processes of one point; see the head of this file for the request. Returns in the parent
    alone."""
    parent, n = os.getpid(), int(request.get("ranks", 1))
    listener = socket.create_server(("127.0.0.1", 0)) if n > 1 else None
    pids: dict[int, int] = {}
    for rank in range(n):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                die_with(parent)
                if listener is not None:
                    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which tells every rank once
                    _set_rank(rank, n, listener)
                code = run_child(
                    Path(request["folder"]), request["target"], request["arguments"], rank=rank, n_ranks=n
                )
            finally:
                os._exit(code)  # never back into the caller
        pids[pid] = rank
    if listener is not None:
        listener.close()
    return Group(pids, n)


def _set_rank(rank: int, n: int, listener: socket.socket) -> None:
    """What torchrun would set; the listening socket goes to rank 0, so that no other process takes the port
    meanwhile."""
    port = listener.getsockname()[1]
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    # names of hosts need not lead anywhere
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    os.environ["SAPIS_RANK_LISTENER"] = str(listener.detach()) if rank == 0 else ""
    if rank:
        listener.close()


class _Server:
    def __init__(self, answers: int, wake: int) -> None:
        self.answers, self.wake = answers, wake
        self.points: dict[str, Group] = {}
        self.pending = b""

    def serve(self) -> None:
        self._answer({"ready": os.getpid()})
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self.wake, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self.wake in ready:
                    os.read(self.wake, 4096)
                    self._reap()
                if 0 in ready and not self._read():
                    break
        for group in self.points.values():
            group.signal(signal.SIGKILL)

    def _read(self) -> bool:
        """Handle the requests that have arrived; False when the engine is gone."""
        data = os.read(0, 65536)
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "start" in request:
                self._start(request)
            elif request["stop"] in self.points:
                self.points[request["stop"]].signal(request["signal"])
        return bool(data)

    def _start(self, request: dict[str, Any]) -> None:
        group = self.points[request["start"]] = fork_ranks(request)
        self._answer({"started": request["start"], "pid": min(group.ranks, key=lambda pid: group.ranks[pid])})

    def _reap(self) -> None:
        while self.points:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for id, group in list(self.points.items()):
                if pid in group.ranks and group.ended(pid, os.waitstatus_to_exitcode(status)):
                    del self.points[id]
                    which = {"rank": group.failed} if group.size > 1 and group.status else {}
                    self._answer({"ended": id, "status": group.status, **which})

    def _answer(self, message: dict[str, Any]) -> None:
        os.write(self.answers, json.dumps(message).encode() + b"\n")


# -------------------------------------------------------------------------------------------------- the child


def run_child(
    folder: Path, target: str, arguments: dict[str, Any], *, rank: int = 0, n_ranks: int = 1
) -> int:
    """Run one rank of one point with its output in its own log, and return its exit status.

    0: done. 75: stopped, or told to stop before it had begun. 1: failed, with the reason in failure.txt; 74:
    failed where that could not be written.
    """
    for number in STOP_SIGNALS:  # until the point has handlers of its own
        signal.signal(number, _stop)
    try:
        _redirect(folder / (LOG if rank == 0 else f"log.rank{rank}.txt"))
        print(
            f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()} starts {folder.name}", flush=True
        )
        if rank == 0:
            _hold(folder / LOCK)
            keep_notices(folder)
        module, _, name = target.partition(":")
        getattr(importlib.import_module(module), name)(folder, **arguments)
        return 0
    except SystemExit as exit:
        with contextlib.suppress(OSError):
            print(f"exit: {exit}", flush=True)
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException as error:
        return _failed(folder, error, rank, n_ranks)
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(STOPPED)


def _redirect(log: Path) -> None:
    """Output and errors go to the end of `log`, in UTF-8 whatever the terminal speaks; input comes from
    nowhere."""
    null, file = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd, to in ((null, 0), (file, 1), (file, 2)):
        os.dup2(fd, to)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _failed(folder: Path, error: BaseException, rank: int, n_ranks: int) -> int:
    """Tell why the point failed, unless another rank has done so; the exit status."""
    detail, kind = traceback.format_exc(), type(error).__name__
    with contextlib.suppress(OSError):
        print(detail, file=sys.stderr, flush=True)
    if isinstance(error, KeyboardInterrupt) or kind == "SIGTERMException":
        return STOPPED
    reason = _reason(error)
    if n_ranks > 1:
        time.sleep(_WAIT_FOR_END if kind == "PeerLost" else _WAIT_FOR_REASON if rank else 0.0)
        if (folder / FAILURE).exists():
            return 1
        if rank and kind != "PeerLost":
            reason = f"rank {rank} of {n_ranks}: {reason}"
    try:
        write_failure(folder, reason, detail)
    except OSError as unwritable:
        with contextlib.suppress(OSError):
            print(
                f"{folder / FAILURE} cannot be written ({unwritable.strerror}), which would say: {reason}",
                file=sys.stderr,
                flush=True,
            )
        return UNTOLD
    return 1


def _reason(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = type(error).__name__ in ("PointFailed", "PeerLost") or type(error).__name__ in first
    return first if message else f"{type(error).__name__}: {first}"


def _hold(path: Path) -> None:
    """Lock `path` until this process ends, with its host and process, or its job, in it. A process of a
    killed engine may still be dying: wait for it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise PointFailed(f"{path}: wanted a file, got a pipe; remove it and run the point again")
    deadline = time.monotonic() + _WAIT_FOR_SURVIVOR
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            job = f", {os.environ['SAPIS_JOB']}" if "SAPIS_JOB" in os.environ else ""
            os.pwrite(fd, f"host {platform.node()}, process {os.getpid()}{job}\n".encode(), 0)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                who = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
                raise PointFailed(
                    f"{who} still holds {path.name} of this point after {_WAIT_FOR_SURVIVOR:.0f} s; stop it"
                ) from None
            time.sleep(0.05)


if __name__ == "__main__":
    main()
