"""Runs `sapis` commands, each in a fork of a process that has imported everything once: a command costs a
tenth of a second.

Reads one JSON request a line, {"words": [...], "home": folder, "timeout": s}, and answers with one,
{"status": ..., "output": ...}; the status is null when the command did not end in time and was killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

PRELOAD = (
    "sapis_lab.cli",
    "sapis_lab.report",
    "sapis_lab.figures",
    "sapis_lab.sweep.run_study",
    "sapis_lab.sweep.engine",
    "sapis_lab.sweep.plan",
    "sapis_lab.executors.slurm",
    "sapis_lab.sweep.export",
    "sapis_lab.sweep.clean",
    "sapis_lab.training",
    "sapis_lab.data.extxyz",
    "sapis_lab.models.geat",
    "sapis_lab.models.transformer",
    "matplotlib.pyplot",
    "pyarrow.parquet",
)


def main() -> None:
    """Serve requests until the input closes."""
    for name in PRELOAD:
        importlib.import_module(name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as output:
            status = run(request, output.fileno())
            output.seek(0)
            print(
                json.dumps({"status": status, "output": output.read().decode(errors="replace")}), flush=True
            )


def run(request: dict, output: int) -> int | None:
    """The exit status of a command, whose output goes to `output`."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        code = 1
        try:
            code = command(request, output)
        finally:
            os._exit(code)
    deadline = time.monotonic() + request["timeout"]
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.01)


def command(request: dict, output: int) -> int:
    """What `python -m sapis_lab.cli WORDS` does."""
    import traceback

    from sapis_lab.cli import main as sapis

    null = os.open(os.devnull, os.O_RDONLY)
    for fd, to in ((null, 0), (output, 1), (output, 2)):
        os.dup2(fd, to)
    os.chdir(request["home"])
    os.environ["SAPIS_HOME"] = request["home"]
    sys.argv = ["sapis", *request["words"]]
    try:
        sapis()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    main()
