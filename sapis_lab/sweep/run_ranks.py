"""Train one point by hand, with one or several processes.

    python -m sapis_lab.sweep.run_ranks FOLDER --cache CACHE --devices 2           # starts both ranks on this
    machine torchrun --nproc-per-node 2 -m sapis_lab.sweep.run_ranks FOLDER --cache CACHE --devices 2
    srun --ntasks 4 --kill-on-bad-exit=1 python -m sapis_lab.sweep.run_ranks FOLDER --cache CACHE --devices 4

Under torchrun and srun it is one rank, and one is started for every device. FOLDER is that of a point, with
its config.yaml; output goes to log.txt there (log.rank1.txt, ... of further ranks). Exit status: 0 done, 1
failed, with the reason in failure.txt, 74 failed where that could not be written, 75 stopped by SIGTERM,
SIGINT, SIGUSR1 or SIGUSR2 and ready to go on; torchrun turns all but 0 into 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from sapis_lab.jobs.folder import FAILURE
from sapis_lab.jobs.launcher import STOP_SIGNALS, die_with, fork_ranks, run_child
from sapis_lab.text import never_fails

TARGET = "sapis_lab.training.run:run_point"


def main(arguments: list[str] | None = None) -> int:
    """Run one rank, or start all; returns the exit status."""
    never_fails(sys.stdout, sys.stderr)
    parser = argparse.ArgumentParser(
        prog="run_ranks", description="Train one point, as one of its ranks or with all of them."
    )
    parser.add_argument("folder", type=Path, help="folder of the point, with its config.yaml")
    parser.add_argument("--cache", type=Path, help="folder of the frame stores")
    parser.add_argument("--devices", type=int, default=1, help="processes that train the point together")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:K")
    parser.add_argument("--threads", type=int, help="of the CPU, for every process")
    parser.add_argument("--step", help="auto, eager, compiled or graph")
    parser.add_argument("--checkpoint-seconds", type=float, help="wall time between checkpoints, s")
    parser.add_argument("--target", default=TARGET, help="the function that trains it, module:function")
    parser.add_argument("--arguments", type=json.loads, default={}, help="its further arguments, as JSON")
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    given = {**given.pop("arguments"), **given}
    folder, target = given.pop("folder").absolute(), given.pop("target")
    if target == TARGET and not (folder / "config.yaml").exists():
        parser.error(f"{folder / 'config.yaml'}: no such file; wanted the folder of a point")
    if "cache" not in given and target == TARGET:
        parser.error("the training of a point wants --cache, the folder of the frame stores")
    if "cache" in given:
        given["cache"] = Path(given["cache"]).absolute()
    n = given["devices"]
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID") if name in os.environ), None)
    if n > 1 and rank is None:
        return _all_ranks({"folder": folder, "target": target, "arguments": given, "ranks": n})
    number = int(rank or 0) if n > 1 else 0
    if number == 0:
        (folder / FAILURE).unlink(missing_ok=True)
    if "RANK" in os.environ:  # of torchrun, when it is killed
        die_with(os.getppid())
    return run_child(folder, target, given, rank=number, n_ranks=n)


def _all_ranks(request: dict[str, Any]) -> int:
    """Fork the ranks, hand signals on to them, and wait for their end; the status of the first that
    failed."""
    importlib.import_module(request["target"].partition(":")[0])  # once, before the ranks are forked
    (request["folder"] / FAILURE).unlink(missing_ok=True)
    group = fork_ranks(request)

    def hand_on(number: int, frame: FrameType | None) -> None:
        group.signal(number)

    for number in STOP_SIGNALS:
        signal.signal(number, hand_on)
    status = group.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
