"""The launcher: a small process that has imported everything once and forks a child for every point.

    python -m sapis_lab.sweep.launcher MODULE...        # the modules to import beforehand

It reads one JSON request a line on its input and writes one JSON answer a line on its output:

    {"start": id, "folder": ..., "target": "module:function", "arguments": {...}}   ->  {"started": id, "pid": ...}
    {"stop": id, "signal": 15}                                                       ->  {"ended": id, "status": ...}

so a point starts in a tenth of a second instead of the ten that importing torch and lightning can take, with no thread and no device
context of a parent in it. (multiprocessing's forkserver does the same, but imports the caller's main script in every child and
takes its environment from the caller's.) Nothing outlives the engine: the launcher ends when its input closes, and the system kills
every child when the launcher ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

LOG, LOCK, FAILURE = "log.txt", ".lock", "failure.txt"
STOPPED = 75
"""Exit status of what was stopped and can be continued."""
_PR_SET_PDEATHSIG = 1
_WAIT_FOR_SURVIVOR = 30.0


class PointFailed(Exception):
    """A run that cannot give a number: its message is the reason that is recorded."""


def main() -> None:
    """Serve requests until the input closes."""
    _die_with(os.getppid())
    answers = os.dup(1)
    os.dup2(2, 1)  # what a module prints while it is imported must not get between the answers
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _Server(answers, wake_read).serve()


class _Server:
    def __init__(self, answers: int, wake: int) -> None:
        self.answers, self.wake = answers, wake
        self.children: dict[int, str] = {}
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
        for pid in self.children:
            _signal(pid, signal.SIGKILL)

    def _read(self) -> bool:
        """Handle the requests that have arrived; False when the engine is gone."""
        data = os.read(0, 65536)
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "start" in request:
                self._start(request)
            else:
                for pid in [p for p, name in self.children.items() if name == request["stop"]]:
                    _signal(pid, request["signal"])
        return bool(data)

    def _start(self, request: dict[str, Any]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _die_with(parent)
                code = _run(Path(request["folder"]), request["target"], request["arguments"])
            finally:
                os._exit(code)  # never back into the launcher's loop
        self.children[pid] = request["start"]
        self._answer({"started": request["start"], "pid": pid})

    def _reap(self) -> None:
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.children:
                self._answer({"ended": self.children.pop(pid), "status": os.waitstatus_to_exitcode(status)})

    def _answer(self, message: dict[str, Any]) -> None:
        os.write(self.answers, json.dumps(message).encode() + b"\n")


# --------------------------------------------------------------------------------------------------------- the child


def _run(folder: Path, target: str, arguments: dict[str, Any]) -> int:
    """Run one point with its output in its own log; the exit status: 0, 75 when stopped, or 1 with the reason in failure.txt."""
    null, log = os.open(os.devnull, os.O_RDWR), os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd, to in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, to)
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()} starts {folder.name}", flush=True)
    try:
        _hold(folder / LOCK)
        module, _, name = target.partition(":")
        getattr(importlib.import_module(module), name)(folder, **arguments)
        return 0
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "SIGTERMException":
            return STOPPED
        write_failure(folder, _reason(error), traceback.format_exc())
        return 1
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()


def _reason(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    told = type(error).__name__ == "PointFailed" or type(error).__name__ in first
    return first if told else f"{type(error).__name__}: {first}"


def write_failure(folder: Path, reason: str, detail: str) -> None:
    """`failure.txt`: the reason on the first line, then what is known about it."""
    temporary = folder / f".{FAILURE}.{os.getpid()}.tmp"
    temporary.write_text(f"{reason}\n\n{detail.rstrip()}\n", encoding="utf-8")
    temporary.replace(folder / FAILURE)


def _hold(path: Path) -> None:
    """Lock `path` until this process ends. A process of a killed engine may still be dying: wait for it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _WAIT_FOR_SURVIVOR
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise PointFailed(
                    f"another process still holds {path.name} of this point after {_WAIT_FOR_SURVIVOR:.0f} s; stop it"
                ) from None
            time.sleep(0.05)


def _die_with(parent: int) -> None:
    """Be killed when `parent`, this process's parent, ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
